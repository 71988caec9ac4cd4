"""Models that answer badly at any moment, and models that work in place."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks.trial import plan
from bench.data.load import load
from bench.errors import BadModel
from bench.evaluation.evaluate import evaluate

TRIALS = [
    replace(trial, attack=replace(trial.attack, queries=200)) if trial.name == "square" else trial
    for trial in plan(["fgsm", "square"], eps=Fraction("0.1"), batch_size=250)
]


@pytest.fixture(scope="module")
def images():
    return load("digits", "test").take(60, 0)


class Through(nn.Module):
    """A model behind something that is done to its images, or to its answers from a certain call on."""

    def __init__(self, model: nn.Module, before=None, after=None, since: int = 1) -> None:
        super().__init__()
        self.model, self.before, self.after, self.since, self.calls = model, before, after, since, 0

    def forward(self, x):
        self.calls += 1
        answer = self.model(self.before(x) if self.before else x)
        return self.after(answer) if self.after and self.calls >= self.since else answer


@pytest.mark.parametrize(
    ("in_place", "twin"),
    [
        (lambda x: x.clamp_(0.2, 0.8), lambda x: x.clamp(0.2, 0.8)),
        (lambda x: x.mul_(0.5), lambda x: x * 0.5),
        (lambda x: x.zero_(), lambda x: x * 0),
    ],
    ids=["clamp", "mul", "zero"],
)
def test_a_model_that_works_in_place_is_judged_like_its_twin(digits_network, images, in_place, twin):
    one = dict(evaluate(Through(digits_network(), in_place), images, TRIALS, batch_size=60))
    other = dict(evaluate(Through(digits_network(), twin), images, TRIALS, batch_size=60))
    for trial in TRIALS:
        for column in ("label", "predicted", "confidence", "broken_by", "divergence"):
            assert np.array_equal(getattr(one[trial], column), getattr(other[trial], column)), (trial.name, column)


class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ValueError("no way back")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda x: x.detach().numpy(), "the model returns ndarray; it must return logits"),
        (lambda x: x.argmax(1, keepdim=True).expand(-1, 10), "the model returns torch.int64; logits are floating"),
        (lambda x: x.to(torch.complex64), "the model returns torch.complex64; logits are floating"),
        (lambda x: x.to("meta"), "on the meta device"),
        (lambda x: None, "the model returns NoneType"),
        (lambda x: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda x: sys.exit(0), "the model fails on images of shape .* with SystemExit: 0"),
        (lambda x: x[:1], "the model returns shape"),
    ],
)
@pytest.mark.parametrize("since", [1, 3])
def test_a_model_that_answers_badly_at_any_call_is_told(digits_network, images, answer, complaint, since):
    model = Through(digits_network(), after=answer, since=since)
    model.register_forward_hook(lambda *_: None)  # so that it is not copied, and counts all its calls
    with pytest.raises(BadModel, match=complaint):
        list(evaluate(model, images, TRIALS, batch_size=20))


def test_logits_that_overflow_in_attacks_are_refused(digits_network, images):
    with pytest.raises(BadModel, match=r"logits up to .*e\+3\d; scale them below 1e\+30"):
        list(evaluate(Through(digits_network(), after=lambda x: x * 1e35), images, TRIALS[:1]))


def test_a_model_whose_gradient_fails_is_told(digits_network, images):
    model = Through(digits_network(), after=NoWayBack.apply)
    with pytest.raises(BadModel, match="the model's gradient, which 'fgsm' needs, fails with ValueError: no way back"):
        list(evaluate(model, images, TRIALS[:2]))
