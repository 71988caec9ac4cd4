"""Outcomes: narrow columns that agree with each other."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bench.outcomes import COLUMNS, FIRST_OF_LINEUP, SURVIVED, WRONG_UNATTACKED, Outcomes


def of(*columns: Any) -> Outcomes:
    """Outcomes from columns of any integer type, which the constructor narrows."""
    return Outcomes(*columns)


def made(label: list[int], predicted: list[int], broken: list[int] | None = None) -> Outcomes:
    n = len(label)
    if broken is None:
        broken = [SURVIVED if a == b else FIRST_OF_LINEUP for a, b in zip(label, predicted, strict=True)]
    return of(np.arange(n), np.array(label), np.array(predicted), np.full(n, 0.5), np.array(broken))


def test_columns_are_narrowed() -> None:
    outcomes = made([0, 1], [0, 0])
    assert {name: getattr(outcomes, name).dtype for name in COLUMNS} == COLUMNS
    assert [field.name for field in fields(Outcomes)] == [*COLUMNS, "seconds"]
    assert outcomes.correct.tolist() == [True, False]
    assert len(outcomes) == 2


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one length"):
        of(np.arange(3), np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="one length"):
        of(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)))


def test_one_number_stands_for_every_sample_and_nothing_for_zero() -> None:
    first = made([0, 1, 1], [0, 0, 1])
    for name in ("divergence", "forwards", "backwards"):
        np.testing.assert_array_equal(getattr(first, name), [0, 0, 0])
    given = replace(first, divergence=np.array(0.25), forwards=np.array(20), backwards=np.array([1, 2, 3]))
    np.testing.assert_array_equal(given.divergence, [0.25, 0.25, 0.25])
    np.testing.assert_array_equal(given.forwards, [20, 20, 20])
    with pytest.raises(ValueError, match="one length"):
        replace(first, forwards=np.array([20]))


@pytest.mark.parametrize("value", [-1e-6, np.nan, np.inf])
def test_a_divergence_is_finite_and_not_negative(value: float) -> None:
    with pytest.raises(ValueError, match="no divergence"):
        replace(made([0, 1], [0, 0]), divergence=np.array([0.5, value]))


def test_select_takes_every_column() -> None:
    n = 4
    whole = of(
        np.arange(n) * 3, np.zeros(n), np.arange(n), np.arange(n) / n, [0, 2, 3, 2], [0, 1, 2, 3], [5, 6, 7, 8], 9, 1.5
    )
    some = whole.select(np.array([3, 1]))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[[3, 1]])
    assert some.seconds == 1.5


@pytest.mark.parametrize(("predicted", "broken"), [(0, WRONG_UNATTACKED), (1, SURVIVED), (0, FIRST_OF_LINEUP)])
def test_broken_by_must_agree_with_the_prediction(predicted: int, broken: int) -> None:
    with pytest.raises(ValueError, match="broken_by"):
        made([0], [predicted], [broken])


def test_class_accuracy_by_hand() -> None:
    vector = made([0, 0, 1, 3], [0, 1, 1, 0]).class_accuracy(4)
    np.testing.assert_array_equal(vector, [0.5, 1.0, np.nan, 0.0])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=50))
def test_class_accuracies_weighted_by_size_are_the_accuracy(pairs: list[tuple[int, int]]) -> None:
    outcomes = made([label for label, _ in pairs], [predicted for _, predicted in pairs])
    sizes = np.bincount(outcomes.label, minlength=5)
    vector = np.nan_to_num(outcomes.class_accuracy(5))
    assert (vector * sizes).sum() / sizes.sum() == pytest.approx(outcomes.correct.mean())


def test_no_samples_are_fine() -> None:
    outcomes = made([], [])
    assert len(outcomes) == 0
    assert np.isnan(outcomes.class_accuracy(2)).all()
