"""Forecasts of passes, and what a pass takes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest

from bench.attacks.base import Attack, Passes
from bench.attacks.square import SQUARE
from bench.attacks.trial import CLEAN, Trial
from bench.outcomes import Outcomes
from bench.study.progress import SURVIVAL, Forecast, Known, Pace, Task, known_of

SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Steps(Attack):
    """Says what it costs, and is never run."""

    steps: int = 10

    def passes(self, classes: int) -> Passes:
        return Passes(self.steps * classes, self.steps)


def trial(steps: int = 10, eps: Fraction = Fraction(1, 10), **options) -> Trial:
    return Trial(f"steps-{steps}", Steps(steps), "Linf", eps, **options)


def test_before_anything_is_known_the_attack_says_and_some_images_survive():
    forecast = Forecast(3, SHAPE)
    assert forecast.per_image(CLEAN) == 1
    assert forecast.per_image(trial()) == pytest.approx(2 + SURVIVAL * (10 * 3 + 10))


def test_the_clean_trial_tells_how_many_images_are_attacked():
    forecast = Forecast(3, SHAPE)
    forecast.learn(CLEAN, Known(judged=100, correct=80, passes=100))
    assert forecast.per_image(trial()) == pytest.approx(2 + 0.8 * SURVIVAL * 40)


def test_an_attack_of_the_same_budget_tells_how_many_stand():
    forecast = Forecast(3, SHAPE)
    forecast.learn(CLEAN, Known(100, 80, 100))
    forecast.learn(trial(2), Known(100, 30, 600))
    forecast.learn(trial(3), Known(50, 20, 600))
    assert forecast.per_image(trial()) == pytest.approx(2 + 0.3 * 40)
    assert forecast.per_image(trial(eps=Fraction(1, 9))) == pytest.approx(2 + 0.8 * SURVIVAL * 40)
    assert forecast.most(trial()) == pytest.approx(2 + 0.8 * 40)


def test_what_a_trial_has_cost_so_far_it_goes_on_costing():
    forecast = Forecast(3, SHAPE)
    forecast.learn(trial(), Known(100, 30, 800))
    forecast.learn(trial(), Known(100, 20, 200))
    assert forecast.per_image(trial()) == pytest.approx(1000 / 200)


def test_what_came_of_an_attacks_words_on_other_networks_mends_them():
    first = Forecast(3, SHAPE)
    told = first.per_image(trial())
    first.learn(trial(), Known(50_000, 30_000, int(50_000 * told / 2)))
    second = Forecast(3, SHAPE, first.truth)
    assert second.per_image(trial()) == pytest.approx(told / 2, rel=0.03)
    few = Forecast(3, SHAPE)
    few.learn(trial(), Known(1, 0, 1_000))  # an image says little of a thousand
    assert Forecast(3, SHAPE, few.truth).per_image(trial()) == pytest.approx(told, rel=0.25)


def test_answers_of_a_random_model_multiply():
    forecast = Forecast(3, SHAPE)
    assert forecast.per_image(trial(eot=4, votes=5)) == pytest.approx(10 + 4 * SURVIVAL * 40)
    assert forecast.per_image(Trial("clean", votes=5)) == 5


def test_outcomes_tell_what_they_cost():
    outcomes = Outcomes([1, 2, 3], [0, 1, 1], [0, 0, 1], [0.5, 0.5, 0.5], [0, 1, 0], 0, [4, 5, 6], [1, 2, 3])
    assert known_of(outcomes) == Known(judged=3, correct=2, passes=21)


def test_passes_that_small_images_do_without_are_not_expected():
    forecast = Forecast(10, SHAPE)
    square = Trial("square", SQUARE, "Linf", Fraction(1, 10))
    assert forecast.most(square) == pytest.approx(2 + 5001 - SQUARE.spared(SHAPE))


def test_a_pass_takes_what_passes_of_its_kind_took_if_enough_were_measured():
    pace = Pace()
    task = Task(("training rslad", "training"), 10)
    assert not pace.measured
    pace.learn(Task(("judging pgd", "judging"), 1e6), 5e5)
    assert pace.seconds(task) == 5
    pace.learn(Task(("training trades", "training"), 1e6), 2e6)
    assert pace.seconds(task) == pytest.approx(20, rel=1e-3)
    pace.learn(Task(("training rslad", "training"), 1e6), 5e6)
    assert pace.seconds(task) == pytest.approx(50, rel=1e-3)
    assert pace.seconds(Task(("training mart", "training"), 10)) == pytest.approx(10 * 7 / 2, rel=1e-3)
    assert pace.seconds(Task(("checks",), 10)) == pytest.approx(10 * 7.5 / 3, rel=1e-3)


def test_a_few_passes_say_little_of_many():
    pace = Pace()
    pace.learn(Task(("judging pgd", "judging"), 100_000), 100_000)
    pace.learn(Task(("judging autoattack", "judging"), 1), 100)
    many = pace.seconds(Task(("judging autoattack", "judging"), 10_000))
    assert 10_000 < many < 1.02 * 10_000
    assert pace.seconds(Task(("judging autoattack", "judging"), 0.001)) == pytest.approx(0.1, rel=0.01)


def test_what_has_not_ended_counts_too():
    pace = Pace()
    more = pace.with_begun([(Task(("judging",), 10), 5)])
    assert more.seconds(Task(("judging",), 4)) == pytest.approx(2)
    assert not pace.measured
    pace.learn(Task(("judging",), 10), 15)
    assert pace.with_begun([(Task(("judging",), 10), 5)]).seconds(Task(("judging",), 4)) == pytest.approx(4)
    assert pace.seconds(Task(("judging",), 4)) == pytest.approx(6)
