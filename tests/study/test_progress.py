"""Forecasts of passes, and what a pass takes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest

from bench.attacks.base import Attack, Passes
from bench.attacks.trial import CLEAN, Trial
from bench.outcomes import Outcomes
from bench.study.progress import SURVIVAL, Forecast, Known, Pace, Task, known_of


@dataclass(frozen=True)
class Steps(Attack):
    """Says what it costs, and is never run."""

    steps: int = 10

    def passes(self, classes: int) -> Passes:
        return Passes(self.steps * classes, self.steps)


def trial(steps: int = 10, eps: Fraction = Fraction(1, 10), **options) -> Trial:
    return Trial(f"steps-{steps}", Steps(steps), "Linf", eps, **options)


def test_before_anything_is_known_the_attack_says_and_some_images_survive():
    forecast = Forecast(3)
    assert forecast.per_image(CLEAN) == 1
    assert forecast.per_image(trial()) == pytest.approx(2 + SURVIVAL * (10 * 3 + 10))


def test_the_clean_trial_tells_how_many_images_are_attacked():
    forecast = Forecast(3)
    forecast.learn(CLEAN, Known(judged=100, correct=80, passes=100))
    assert forecast.per_image(trial()) == pytest.approx(2 + 0.8 * SURVIVAL * 40)


def test_an_attack_of_the_same_budget_tells_how_many_stand():
    forecast = Forecast(3)
    forecast.learn(CLEAN, Known(100, 80, 100))
    forecast.learn(trial(2), Known(100, 30, 600))
    forecast.learn(trial(3), Known(50, 20, 600))
    assert forecast.per_image(trial()) == pytest.approx(2 + 0.3 * 40)
    assert forecast.per_image(trial(eps=Fraction(1, 9))) == pytest.approx(2 + 0.8 * SURVIVAL * 40)
    assert forecast.most(trial()) == pytest.approx(2 + 0.8 * 40)


def test_what_a_trial_has_cost_so_far_it_goes_on_costing():
    forecast = Forecast(3)
    forecast.learn(trial(), Known(100, 30, 800))
    forecast.learn(trial(), Known(100, 20, 200))
    assert forecast.per_image(trial()) == pytest.approx(1000 / 200)


def test_answers_of_a_random_model_multiply():
    forecast = Forecast(3)
    assert forecast.per_image(trial(eot=4, votes=5)) == pytest.approx(10 + 4 * SURVIVAL * 40)
    assert forecast.per_image(Trial("clean", votes=5)) == 5


def test_outcomes_tell_what_they_cost():
    outcomes = Outcomes([1, 2, 3], [0, 1, 1], [0, 0, 1], [0.5, 0.5, 0.5], [0, 1, 0], 0, [4, 5, 6], [1, 2, 3])
    assert known_of(outcomes) == Known(judged=3, correct=2, passes=21)


def test_a_pass_takes_what_passes_of_its_narrowest_known_kind_took():
    pace = Pace()
    task = Task(("training rslad", "training"), 10)
    assert pace.seconds(task) is None
    pace.learn(Task(("judging pgd", "judging"), 100), 50)
    assert pace.seconds(task) == 5
    pace.learn(Task(("training trades", "training"), 100), 200)
    assert pace.seconds(task) == 20
    pace.learn(Task(("training rslad", "training"), 50), 250)
    assert pace.seconds(task) == 50
    assert pace.seconds(Task(("training mart", "training"), 10)) == pytest.approx(10 * 450 / 150)
    assert pace.seconds(Task(("checks",), 10)) == pytest.approx(10 * 500 / 250)


def test_what_has_not_ended_counts_for_the_moment_only():
    pace = Pace()
    more = pace.with_more([(Task(("judging",), 10), 5)])
    assert more.seconds(Task(("judging",), 4)) == 2
    assert pace.seconds(Task(("judging",), 4)) is None
