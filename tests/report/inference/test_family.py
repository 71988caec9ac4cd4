"""Many figures at one level: Holm by hand, max-T against closed forms and by its errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.special import ndtri

from bench.report.inference.family import holm, level_of_each


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7]) == [0.7]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_lies_between_none_and_bonferroni_and_keeps_the_order(p):
    adjusted = holm(p)
    for raw, one in zip(p, adjusted, strict=True):
        assert raw <= one <= min(1.0, len(p) * raw) or one == pytest.approx(raw)
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_equal_figures_cost_nothing_and_independent_ones_what_sidak_says():
    moved = np.random.default_rng(0).standard_normal((6, 800))
    assert level_of_each([np.tile(moved[:1], (6, 1))], 0.05) == pytest.approx(0.05, abs=0.008)
    assert level_of_each([moved], 0.05) == pytest.approx(1 - 0.95 ** (1 / 6), abs=0.0015)
    assert level_of_each([moved[:3], moved[3:]], 0.05) == pytest.approx(1 - 0.95 ** (1 / 6), abs=0.0015)


def test_the_level_is_the_same_every_time_and_never_below_bonferroni():
    moved = np.random.default_rng(1).standard_normal((4, 50))
    assert level_of_each([moved], 0.05) == level_of_each([moved], 0.05) >= 0.0125
    assert level_of_each([np.zeros((4, 50))], 0.05) == 0.05
    assert level_of_each([], 0.05) == 0.05


def test_an_error_anywhere_is_as_likely_as_it_should_be():
    rng = np.random.default_rng(2)
    shared, wrong = 0.8, 0
    for _ in range(400):
        moved = shared * rng.standard_normal(300) + (1 - shared**2) ** 0.5 * rng.standard_normal((8, 300))
        level = level_of_each([moved - moved.mean(axis=1, keepdims=True)], 0.05, flips=2000)
        z = moved.mean(axis=1) / (moved.std(axis=1, ddof=1) / 300**0.5)
        wrong += bool((np.abs(z) > -ndtri(level / 2)).any())
    assert wrong / 400 <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
