from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from scipy.stats import binom, binomtest

from bench.soundness.check import RISK, beyond, outweighs, tail


@given(st.integers(0, 80), st.integers(0, 80), st.floats(0.001, 0.999))
def test_the_tail_is_the_binomials(count, n, share):
    count = min(count, n)
    assert tail(count, n, share) == pytest.approx(binom.sf(count - 1, n, share), abs=1e-9)


@pytest.mark.parametrize(
    ("count", "n", "share", "expected"),
    [(2, 64, 0.005, False), (3, 64, 0.005, True), (0, 64, 0.0, False), (1, 64, 0.0, True), (2, 20, 0.005, True)],
)
def test_beyond_a_share(count, n, share, expected):
    assert beyond(count, n, share) is expected


@given(st.integers(0, 40), st.integers(0, 40))
def test_outweighing_is_a_sign_test(more, less):
    expected = more > less and binomtest(more, more + less, alternative="greater").pvalue < RISK
    assert outweighs(more, less) == expected


def test_the_examples_of_the_docstring():
    assert outweighs(7, 0)
    assert outweighs(14, 3)
    assert not outweighs(6, 0)
    assert not outweighs(13, 3)
