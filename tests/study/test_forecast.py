from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import nn

from bench.attacks.base import Attack, Passes
from bench.attacks.trial import CLEAN, Trial
from bench.data.load import load
from bench.outcomes import Outcomes
from bench.study.forecast import SURVIVAL, Forecast, Known, known_of, measured


@dataclass(frozen=True)
class Steps(Attack):
    """Says what it costs, and is never run."""

    steps: int = 10

    def passes(self, classes: int) -> Passes:
        return Passes(self.steps * classes, self.steps)


def trial(steps: int = 10, eps: Fraction = Fraction(1, 10), **options) -> Trial:
    return Trial(f"steps-{steps}", Steps(steps), "Linf", eps, **options)


def test_before_anything_is_known_the_attack_says_and_some_images_survive():
    forecast = Forecast(3, backward=2.0)
    assert forecast.per_image(CLEAN) == 1
    assert forecast.per_image(trial()) == pytest.approx(2 + SURVIVAL * (10 * 3 + 2 * 10))
    forecast.right = 0.5
    assert forecast.per_image(trial()) == pytest.approx(2 + 0.5 * SURVIVAL * 50)


def test_the_clean_trial_tells_how_many_images_are_attacked():
    forecast = Forecast(3, backward=2.0, right=0.1)
    forecast.learn(CLEAN, Known(judged=100, correct=80, forwards=100))
    assert forecast.per_image(trial()) == pytest.approx(2 + 0.8 * SURVIVAL * 50)


def test_an_attack_of_the_same_budget_tells_how_many_stand():
    forecast = Forecast(3, backward=2.0)
    forecast.learn(CLEAN, Known(100, 80, 100, 0))
    forecast.learn(trial(2), Known(100, 30, 500, 100))
    forecast.learn(trial(3), Known(50, 20, 500, 100))
    assert forecast.per_image(trial()) == pytest.approx(2 + 0.3 * 50)
    assert forecast.per_image(trial(eps=Fraction(1, 9))) == pytest.approx(2 + 0.8 * SURVIVAL * 50)
    assert forecast.most(trial()) == pytest.approx(2 + 0.8 * 50)


def test_what_a_trial_has_cost_so_far_it_goes_on_costing():
    forecast = Forecast(3, backward=2.0)
    forecast.learn(trial(), Known(100, 30, 700, 100))
    forecast.learn(trial(), Known(100, 20, 100, 100))
    assert forecast.judged(trial()) == 200
    assert forecast.per_image(trial()) == pytest.approx((800 + 2 * 200) / 200)
    assert forecast.cost(Known(1, 1, 5, 7)) == 19


def test_answers_of_a_random_model_multiply():
    forecast = Forecast(3)
    assert forecast.per_image(trial(eot=4, votes=5)) == pytest.approx(10 + 4 * SURVIVAL * 40)
    assert forecast.per_image(Trial("clean", votes=5)) == 5


def test_outcomes_tell_what_they_cost():
    outcomes = Outcomes([1, 2, 3], [0, 1, 1], [0, 0, 1], [0.5, 0.5, 0.5], [0, 1, 0], 0, [4, 5, 6], [1, 2, 3])
    assert known_of(outcomes) == Known(judged=3, correct=2, forwards=15, backwards=6)


class Slow(nn.Module):
    """Takes 2 ms per image forward and 4 ms backward; always says the class of the first image."""

    class Pass(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            time.sleep(0.002 * len(x))
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            time.sleep(0.004 * len(grad))
            return grad.clone()

    def forward(self, x):
        logits = self.Pass.apply(x).flatten(1)[:, :10] * 1e-3
        return logits + nn.functional.one_hot(torch.tensor(int(load("digits").labels[0])), 10)


def test_the_speed_of_a_model_is_measured():
    model, passed = Slow(), []
    model.register_forward_hook(lambda _, given, __: passed.append(len(given[0])))
    pace = measured(model, load("digits"), 250, "cpu")
    assert 0.002 < pace.forward < 0.01
    assert 0.5 < pace.backward / pace.forward < 4
    assert max(passed) == 16
    assert sum(passed) == 2 * (4 + 3 * 16)
    assert 0 < pace.correct < 0.5
    assert model.training


def test_a_model_without_gradient_has_no_backward_cost():
    class Detached(Slow):
        def forward(self, x):
            return super().forward(x.detach())

    pace = measured(Detached(), load("digits").take(20, 0), 250, "cpu")
    assert pace.backward < 0.5 * pace.forward


def test_where_the_model_fails_or_memory_is_too_small_nothing_is_said():
    assert measured(nn.Flatten(), load("digits").take(20, 0), 250, "cpu") is None

    class Huge(Slow):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert measured(Huge(), load("digits").take(20, 0), 250, "cpu") is None


def test_measuring_leaves_global_randomness_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    noisy = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 10))
    torch.set_rng_state(before)
    measured(noisy, load("digits").take(20, 0), 250, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
