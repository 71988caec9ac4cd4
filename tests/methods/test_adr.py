from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from bench.randomness import Streams
from bench.training.recipe import Span
from bench.training.values import Batch, Context
from methods.adr import ADR


class Fixed(nn.Module):
    """Answers given logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits


def rectified(logits, y, progress, rule):
    """The targets of a batch by the rule, with the averaged self answering `logits`."""
    model = Fixed(logits)
    ctx = Context(nn.Identity(), model, {}, len(logits[0]), 0.1, 1, Streams(0, torch.arange(len(y))), progress=progress)
    targets = rule(ctx, Batch(torch.zeros(len(y), 1, 2, 2), torch.tensor(y)), None)
    assert torch.equal(targets.clean, targets.at(torch.ones(1)))
    return targets.clean.double().numpy()


def test_by_hand():
    # softmax((ln 16, ln 4, 0) / 2) = (4, 2, 1) / 7; trust 0.6.
    # y = 0: doubt 0, mix 0.6: 0.6 q + 0.4 e_0. y = 1: doubt 2/7, mix 0.6 - 2/7. y = 2: doubt 3/7, mix 0.6 - 3/7.
    rule = ADR(temperature=Span(2, 2), trust=Span(0.6, 0.6))
    q = np.array([4, 2, 1]) / 7
    got = rectified([[math.log(16), math.log(4), 0.0]] * 3, [0, 1, 2], 0.3, rule)
    for y, mix in enumerate((0.6, 0.6 - 2 / 7, 0.6 - 3 / 7)):
        np.testing.assert_allclose(got[y], mix * q + (1 - mix) * np.eye(3)[y], rtol=1e-6)


def test_an_averaged_self_that_is_surely_wrong_is_not_trusted_at_all():
    # doubt 0.98 is above the trust 0.7, so the mixture is clipped to 0: the plain label
    got = rectified([[8.0, 0.0, 0.0]], [2], 0.0, ADR(Span(1, 1), Span(0.7, 0.95)))
    assert got.tolist() == [[0, 0, 1]]


def test_full_trust_is_the_averaged_self():
    got = rectified([[math.log(3), 0.0]], [0], 0.0, ADR(Span(1, 1), Span(1, 1)))
    np.testing.assert_allclose(got, [[0.75, 0.25]], rtol=1e-6)


@pytest.mark.parametrize(
    ("progress", "temperature", "trust"),
    [(0.0, 2.5, 0.7), (0.5, 2.25, 0.825), (1.0, 2.0, 0.95), (1 / 3, 2.375, 0.7625)],
)
def test_both_are_annealed_along_a_half_cosine(progress, temperature, trust):
    # cos(pi/3) = 1/2, so a third of the way in time is a quarter of the way in value
    rule = ADR()
    assert rule.temperature.at(progress) == pytest.approx(temperature)
    assert rule.trust.at(progress) == pytest.approx(trust)
    e = np.exp(np.array([2.0, 1.0]) / temperature)
    q = e / e.sum()
    got = rectified([[2.0, 1.0]], [0], progress, rule)
    np.testing.assert_allclose(got[0], trust * q + (1 - trust) * np.array([1, 0]), rtol=1e-6)


@given(
    st.lists(st.floats(-20, 20), min_size=2, max_size=6),
    st.floats(0, 1),
    st.floats(0.1, 5),
    st.floats(0, 1),
    st.data(),
)
def test_it_is_a_distribution_that_never_takes_from_the_label(z, progress, t, trust, data):
    y = data.draw(st.integers(0, len(z) - 1))
    got = rectified([z], [y], progress, ADR(Span(t, t), Span(trust, trust)))[0]
    q = torch.tensor(z).div(t).softmax(0).numpy()
    assert got.min() >= 0
    assert got.sum() == pytest.approx(1, abs=1e-5)
    assert got[y] >= q[y] - 1e-5
