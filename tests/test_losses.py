from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, rel_entr, softmax

from bench.losses import (
    cross_entropy,
    dlr,
    kl,
    margin,
    one_hot,
    probability_margin,
    rival,
    targeted_dlr,
    targeted_margin,
)

LOGITS = arrays(np.float32, (4, 5), elements=st.floats(-20, 20, width=32))
LABELS = arrays(np.int64, (4,), elements=st.integers(0, 4))
relaxed = settings(deadline=None, max_examples=100)


@given(LOGITS, LOGITS)
@relaxed
def test_cross_entropy_and_kl_agree_with_float64(logits, wanted):
    target = softmax(wanted.astype(np.float64), 1)
    logp = log_softmax(logits.astype(np.float64), 1)
    t, z = torch.tensor(target, dtype=torch.float32), torch.tensor(logits)
    np.testing.assert_allclose(cross_entropy(z, t), -(target * logp).sum(1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(kl(t, z), rel_entr(target, np.exp(logp)).sum(1), rtol=1e-4, atol=1e-4)
    assert (kl(t, z) > -1e-5).all()


@given(LOGITS, LABELS)
@relaxed
def test_margins_agree_with_float64(logits, y):
    wide, rows = logits.astype(np.float64), np.arange(4)
    others = wide.copy()
    others[rows, y] = -np.inf
    expected = others.max(1) - wide[rows, y]
    z, label = torch.tensor(logits), torch.tensor(y)
    np.testing.assert_allclose(margin(z, label), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(rival(z, label), others.max(1))
    top = np.sort(wide, 1)[:, ::-1]
    spread = top[:, 0] - top[:, 2]
    clear = spread > 0.01
    np.testing.assert_allclose(dlr(z, label)[clear], (expected / (spread + 1e-12))[clear], rtol=2e-3, atol=1e-5)


def test_values_worked_by_hand():
    z = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    y = torch.tensor([0, 0])
    assert margin(z, y).tolist() == [-1.0, 3.0]
    # -(2-1)/(2-0) and -(0-3)/(3-0)
    assert dlr(z, y).tolist() == [-0.5, 1.0]
    goal = torch.tensor([2, 1])
    assert targeted_margin(z, y, goal).tolist() == [-2.0, 3.0]
    # (1 - 4) / (4 - (2 + 1) / 2)
    assert targeted_dlr(torch.tensor([[4.0, 3, 2, 1]]), y[:1], torch.tensor([3])).tolist() == pytest.approx([-1.2])
    # probabilities 2/3 and 1/3
    assert probability_margin(torch.tensor([[math.log(2), 0.0]]), y[:1]).tolist() == pytest.approx([-1 / 3])
    uniform = torch.full((1, 4), 0.25)
    assert cross_entropy(torch.zeros(1, 4), uniform).item() == pytest.approx(math.log(4))
    assert kl(uniform, torch.zeros(1, 4)).item() == pytest.approx(0, abs=1e-7)
    # KL of a certain class against a fair coin: log 2, with 0 log 0 = 0
    assert kl(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)).item() == pytest.approx(math.log(2))


@given(LOGITS, LABELS, st.floats(0.1, 10), st.floats(-5, 5))
@relaxed
def test_dlr_ignores_shift_and_scale(logits, y, scale, shift):
    top = np.sort(logits, 1)[:, ::-1]
    if (top[:, 0] - top[:, 2] < 0.1).any():
        return
    z, label = torch.tensor(logits, dtype=torch.float64), torch.tensor(y)
    torch.testing.assert_close(dlr(scale * z + shift, label), dlr(z, label))


def test_cross_entropy_of_a_label_is_torchs():
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1, 2, 3, 4, 0])
    torch.testing.assert_close(
        cross_entropy(z, one_hot(y, 5)), torch.nn.functional.cross_entropy(z, y, reduction="none")
    )


def test_kl_passes_gradients_into_the_target():
    a = torch.randn(2, 3, generator=torch.Generator().manual_seed(2), requires_grad=True)
    kl(a.softmax(1), torch.zeros(2, 3)).sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0


def test_kl_has_a_gradient_where_a_target_underflows_to_zero():
    z = torch.tensor([[0.0, 200.0, -200.0]], requires_grad=True)
    kl(z.softmax(1), torch.tensor([[0.3, 0.1, 0.2]])).sum().backward()
    assert z.grad.isfinite().all()
    certain = torch.tensor([[1.0, 0.0]], requires_grad=True)
    torch.testing.assert_close(kl(certain, torch.zeros(1, 2)), torch.tensor([math.log(2)]))
