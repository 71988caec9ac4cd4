from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from torch import nn

from bench.attacks.trial import plan
from bench.data.load import load
from bench.outcomes import Outcomes
from bench.study.account import Account, spoken
from bench.study.forecast import Forecast, Known
from bench.verdict import Verdict

CLEAN, PGD = plan(["pgd-sat"], eps=Fraction(1, 10), batch_size=10)


class Shown:
    def __init__(self) -> None:
        self.total, self.done, self.doing, self.lines = 0.0, [], [], []

    def plan(self, total: float) -> None:
        self.total = total

    def advance(self, done: float, doing: str) -> None:
        self.done.append(done)
        self.doing.append(doing)

    def say(self, line: str) -> None:
        self.lines.append(line)


def chunk(n: int, correct: int, forwards: int, backwards: int) -> Outcomes:
    right = np.arange(n) < correct
    return Outcomes(np.arange(n), np.zeros(n), ~right, np.full(n, 0.5), np.where(right, 0, 2), 0, forwards, backwards)


def account(forecast: Forecast | None = None) -> Account:
    return Account(forecast or Forecast(10), (CLEAN, PGD), 20, Shown(), "mine")


def test_what_is_left_shrinks_to_nothing_and_what_was_spent_is_what_it_cost():
    now = account()
    before = now.left
    assert before == pytest.approx(20 + 20 * Forecast(10).per_image(PGD))
    now.enter(CLEAN, chunk(20, 10, 1, 0))
    assert now.spent == 20
    assert now.left == pytest.approx(before - 20 - 20 * (Forecast(10).per_image(PGD) - 2) / 2)
    now.enter(PGD, chunk(10, 3, 8, 7))
    assert (now.spent, now.left) == (20 + 150, 150)
    now.enter(PGD, chunk(10, 3, 2, 1))
    assert (now.spent, now.left) == (20 + 150 + 30, 0)


def test_the_chunk_in_flight_counts_by_estimate_and_what_an_earlier_run_did_does_not():
    forecast = Forecast(10)
    forecast.learn(PGD, Known(10, 5, 50, 50))
    now = account(forecast)
    assert now.left == 20 + 10 * 10
    now.report(PGD, 10, 20)
    now.report(PGD, 12.5, 20)
    most = 2 + 20 + 20  # passes of an image that stands
    assert now.progress.done == [0, 2.5 * most]
    assert now.progress.total == 120
    now.report(PGD, 20, 20)
    assert now.progress.done[-1] == now.progress.total == 10 * most
    now.enter(PGD, chunk(10, 5, 4, 4))
    now.report(PGD, 20, 20)
    assert (now.progress.done[-1], now.progress.total) == (80, 100)
    assert now.progress.doing[-1] == "mine: pgd-sat"
    now.checked(Verdict("logits", None, None, "pass", 1, ""))
    assert now.progress.doing[-1] == "mine: checked logits"


def test_the_cost_is_told_before_anything_is_done():
    now, images = account(), load("digits").take(20, 0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    now.foretell(network, images, 10, "cpu")
    (line,) = now.progress.lines
    assert line.startswith(f"mine: about {now.left:,.0f} forward passes ahead, about ")
    assert now.forecast.right < 1


def test_durations_in_words():
    assert [spoken(s) for s in (0.01, 89.5, 91, 3600, 5400, 36000)] == [
        "1 s",
        "90 s",
        "2 min",
        "60 min",
        "1.5 h",
        "10.0 h",
    ]
