"""E-processes: their formula, and their level however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from bench.report.inference.paired import mcnemar
from bench.report.inference.sequential import decided, log_evidence_of_loss, log_evidence_within


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (3, 1), (20, 9), (5, 12)])
def test_the_evidence_of_loss_is_the_integral(lost, won):
    area, _ = quad(lambda t: t**lost * (1 - t) ** won, 0.5, 1)
    assert float(log_evidence_of_loss(lost, won)) == pytest.approx(math.log(2 ** (lost + won) * 2 * area))


def test_evidence_begins_at_one_and_no_bet_gains_on_average_at_its_edge():
    assert float(log_evidence_of_loss(0, 0)) == pytest.approx(0)
    assert float(log_evidence_within(0, 0, 0, 0.02)) == pytest.approx(0)
    step = [float(np.exp(log_evidence_of_loss(*one))) for one in ((1, 0), (0, 1))]
    assert np.mean(step) == pytest.approx(1)
    lost, won = 0.07, 0.05  # by the margin of 2 points
    steps = [float(np.exp(log_evidence_within(*one, 1, 0.02))) for one in ((1, 0), (0, 1), (0, 0))]
    assert np.dot([lost, won, 1 - lost - won], steps) == pytest.approx(1)


def paths(rng, lost, won, draws=600, n=3000):
    drawn = rng.random((draws, n))
    return np.cumsum(drawn < lost, axis=1), np.cumsum(drawn > 1 - won, axis=1)


def test_false_alarms_however_often_one_looks():
    lost, won = paths(np.random.default_rng(0), 0.06, 0.06)
    alarms = (log_evidence_of_loss(lost, won) >= math.log(20)).any(axis=1).mean()
    assert alarms <= 0.05
    looks = zip(lost[:, 49::50], won[:, 49::50], strict=True)
    peeked = [any(mcnemar(a, b) <= 0.05 for a, b in zip(*path, strict=True)) for path in looks]
    assert np.mean(peeked) > 0.2  # what a p-value does that is looked at again and again


def test_false_safety_however_often_one_looks():
    lost, won = paths(np.random.default_rng(1), 0.07, 0.05)
    lost, won, seen = lost[:, ::10], won[:, ::10], np.arange(1, 3001, 10)
    assert (log_evidence_within(lost, won, seen, 0.02) >= math.log(20)).any(axis=1).mean() <= 0.05


def test_a_drop_of_three_points_is_seen_in_time():
    lost, won = paths(np.random.default_rng(2), 0.075, 0.045)
    reached = log_evidence_of_loss(lost, won) >= math.log(20)
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), lost.shape[1])
    assert 600 < np.median(first) < 1150


def test_what_is_decided():
    assert decided(40, 10, 1000) == "worse"
    assert decided(0, 0, 1000) == "not worse"
    assert decided(10, 9, 200) is None
    assert decided(60, 60, 20000, margin=0.01) == "not worse"
