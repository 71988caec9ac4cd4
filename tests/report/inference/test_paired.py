"""McNemar's tests and Tango's interval: by hand, against scipy, and by their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from bench.report.inference.paired import mcnemar, mid_p, tango


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    wanted = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(wanted, rel=1e-6, abs=1e-290)


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(3, 11) == mcnemar(11, 3)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=50)
def test_mcnemar_is_the_sum_of_binomials(only_a, only_b):
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def test_mid_p_takes_half_of_what_was_seen():
    assert mid_p(4, 4) == 1
    assert mid_p(0, 10) == pytest.approx(1 / 2**10)
    assert mid_p(1, 9) == pytest.approx(mcnemar(1, 9) - 10 / 2**10)


@pytest.mark.parametrize(("lost", "won", "n"), [(9, 3, 72), (1, 0, 44), (0, 5, 60), (86, 60, 719)])
def test_the_ends_of_tango_are_where_the_score_is_z(lost, won, n):
    def score(difference):
        def loss(share):
            rest = 1 - 2 * share - difference
            chances = ((lost, share), (won, share + difference), (n - lost - won, rest))
            return -sum(count * math.log(max(chance, 1e-300)) for count, chance in chances if count)

        least = max(0.0, -difference)
        best = minimize_scalar(loss, bounds=(least, (1 - difference) / 2), method="bounded", options={"xatol": 1e-12}).x
        return (won - lost - n * difference) / math.sqrt(n * (2 * best + difference - difference**2))

    low, high = tango(lost, won, n)
    assert (score(float(low)), score(float(high))) == pytest.approx((1.959964, -1.959964), abs=1e-3)


def test_tango_of_nothing_discordant_is_wilsons_of_nothing():
    z2 = 1.959963984540054**2
    low, high = tango(0, 0, 50)
    assert (float(low), float(high)) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)), abs=1e-9)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60)
def test_tango_turns_with_its_sides_and_holds_what_was_seen(lost, won, rest):
    n = lost + won + rest + 1
    low, high = tango(lost, won, n)
    other_low, other_high = tango(won, lost, n)
    assert (low >= -1) & (high <= 1) & (low <= (won - lost) / n + 1e-9) & ((won - lost) / n <= high + 1e-9)
    assert (float(low), float(high)) == pytest.approx((-float(other_high), -float(other_low)), abs=1e-9)


@pytest.mark.parametrize("shares", [(0.06, 0.06), (0.09, 0.03), (0.01, 0.01), (0.2, 0.1)])
def test_tango_covers(shares):
    drawn = np.random.default_rng(0).multinomial(72, [*shares, 1 - sum(shares)], 4000)
    low, high = tango(drawn[:, 0], drawn[:, 1], 72)
    truth = shares[1] - shares[0]
    assert ((low <= truth) & (truth <= high)).mean() >= 0.94
