"""Wilson's interval against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from bench.report.inference.proportion import wilson


@pytest.mark.parametrize("hits", [0, 1, 31, 72])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_ends_are_those_of_scipy(hits, alpha):
    wanted = binomtest(hits, 72).proportion_ci(1 - alpha, method="wilson")
    assert np.array(wilson(hits, 72, alpha)) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_it_covers_what_it_should_on_average():
    hits = np.arange(73)
    low, high = wilson(hits, np.full(73, 72))
    shares = np.linspace(0.02, 0.98, 200)
    covered = [(binom.pmf(hits, 72, p) * ((low <= p) & (p <= high))).sum() for p in shares]
    assert np.mean(covered) > 0.945


def test_without_trials_there_is_none():
    assert np.isnan(wilson([0], [0])).all()
