"""Calibration, against hand values, a literal reference in float64, and the view of the database."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bench.outcomes import Outcomes
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow

from . import calibration_reference as calibration

CLASSES = 3


def made(confidence: Any, correct: Any, divergence: Any = 0.0, label: Any = None) -> Outcomes:
    n = len(confidence)
    truth = np.zeros(n, dtype=int) if label is None else np.asarray(label)
    right = np.asarray(correct, dtype=bool)
    predicted = np.where(right, truth, (truth + 1) % CLASSES)
    columns: tuple[Any, ...] = (np.arange(n), truth, predicted, confidence, np.where(right, 0, 2), divergence)
    return Outcomes(*columns)


def literal(confidence: list[float], correct: list[bool], bins: list[list[int]]) -> float:
    """The sum of n_b / N * |accuracy_b - confidence_b| over the bins that are not empty."""
    total = 0.0
    for rows in bins:
        if rows:
            accuracy = math.fsum(correct[row] for row in rows) / len(rows)
            mean = math.fsum(confidence[row] for row in rows) / len(rows)
            total += len(rows) / len(confidence) * abs(accuracy - mean)
    return total


def by_width(confidence: list[float], bins: int = 15) -> list[list[int]]:
    """Bins (k/15, (k+1)/15], the first with 0."""
    edges = [k / bins for k in range(bins + 1)]
    return [
        [i for i, c in enumerate(confidence) if (low < c or (low == 0 and c == 0)) and c <= high]
        for low, high in itertools.pairwise(edges)
    ]


def by_mass(confidence: list[float], bins: int = 15) -> list[list[int]]:
    """Sorted, cut into bins whose sizes differ by one at most, the larger first."""
    order = sorted(range(len(confidence)), key=lambda row: confidence[row])
    cut, found = 0, []
    for k in range(bins):
        size = len(order) // bins + (k < len(order) % bins)
        found.append(order[cut : cut + size])
        cut += size
    return found


def test_ece_by_hand() -> None:
    # bin of 0.62 and 0.65 (9/15 .. 10/15): |1/2 - 0.635| = 0.135; bin of 0.97: |1 - 0.97| = 0.03; weights 2/3, 1/3
    outcomes = made([0.62, 0.65, 0.97], [True, False, True])
    assert calibration.ece(outcomes) == pytest.approx((2 * 0.135 + 0.03) / 3, abs=1e-7)
    # fewer samples than bins: each alone
    assert calibration.ece_mass(outcomes) == pytest.approx((0.38 + 0.65 + 0.03) / 3, abs=1e-7)


def test_both_ends_fall_into_a_bin() -> None:
    assert calibration.ece(made([0.0, 1.0], [False, True])) == 0.0
    assert calibration.ece(made([0.0, 1.0], [True, False])) == 1.0
    assert calibration.ece_mass(made([0.0, 1.0], [True, False])) == 1.0


def test_perfect_calibration_with_ties() -> None:
    outcomes = made([0.5] * 30, [True] * 15 + [False] * 15)
    assert calibration.ece(outcomes) == pytest.approx(0.0, abs=1e-12)
    assert calibration.ece_mass(outcomes) == pytest.approx(0.0, abs=1e-12)


def test_means_by_hand() -> None:
    outcomes = made([0.5, 0.75, 1.0], [False, False, True], [0.25, 0.5, 1.5], [0, 0, 2])
    assert calibration.mean_confidence(outcomes) == 0.75
    assert calibration.error_confidence(outcomes) == 0.625
    assert calibration.divergence(outcomes) == 0.75
    np.testing.assert_array_equal(calibration.class_divergence(outcomes, 3), [0.375, np.nan, 1.5])


def test_nothing_gives_nan() -> None:
    empty = made([], [])
    for of in (calibration.ece, calibration.ece_mass, calibration.mean_confidence, calibration.divergence):
        assert math.isnan(of(empty))
    assert math.isnan(calibration.error_confidence(made([0.5], [True])))


SAMPLES = st.lists(
    st.tuples(st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.25, 0.5, 1.0])), st.booleans()),
    min_size=1,
    max_size=80,
)


@given(SAMPLES)
def test_ece_is_the_literal_sum(samples: list[tuple[float, bool]]) -> None:
    confidence, correct = [c for c, _ in samples], [right for _, right in samples]
    wanted = literal(confidence, correct, by_width(confidence))
    assert calibration.ece(made(confidence, correct)) == pytest.approx(wanted, abs=1e-12)


@given(SAMPLES, st.randoms())
def test_ece_mass_is_the_literal_sum_and_does_not_know_the_order(
    samples: list[tuple[float, bool]], random: Any
) -> None:
    unique = list(dict(samples).items())
    confidence, correct = [c for c, _ in unique], [right for _, right in unique]
    wanted = literal(confidence, correct, by_mass(confidence))
    assert calibration.ece_mass(made(confidence, correct)) == pytest.approx(wanted, abs=1e-12)
    shuffled = random.sample(samples, len(samples))
    first, second = (made([c for c, _ in some], [right for _, right in some]) for some in (samples, shuffled))
    assert calibration.ece_mass(first) == pytest.approx(calibration.ece_mass(second), abs=1e-12)


def test_the_view_computes_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    evaluations = [([0.0, 1.0, 0.5, 0.5, 0.5], [False, True, True, False, False]), ([0.7], [True]), ([1.0], [False])]
    for n in (14, 15, 100, 101):
        drawn = np.round(rng.random(n), rng.integers(1, 9))  # with and without ties
        evaluations.append((drawn.tolist(), (rng.random(n) < drawn).tolist()))
    store = Store(tmp_path / "bench.duckdb")
    store.create()
    store.add_checkpoint(
        CheckpointRow("c", "rslad", "", "p", "m", "", 0, None, "r", None, None, "", None, "{}", "{}", "{}")
    )
    store.add_attack(AttackRow("a", "cw", "Linf", "8/255", 8 / 255, ("cw",), "{}"))
    whole = []
    for number, (confidence, correct) in enumerate(evaluations):
        n = len(confidence)
        store.add_dataset(DatasetRow(f"d{number}", "digits", "test", "", n, ("0", "1", "2")))
        whole.append(made(confidence, correct, rng.exponential(size=n), rng.integers(0, 3, n)))
        store.add_chunk(store.begin("c", f"d{number}", "a", n), whole[-1])
    names = ("n", "mean_confidence", "accuracy", "ece", "ece_mass", "error_confidence", "divergence")
    found = store.rows(f"SELECT {', '.join(names)} FROM calibration ORDER BY dataset_id")
    for row, outcomes in zip(found, whole, strict=True):
        mean_error = calibration.error_confidence(outcomes)
        assert row == (
            len(outcomes),
            pytest.approx(calibration.mean_confidence(outcomes), abs=1e-12),
            pytest.approx(outcomes.correct.mean(), abs=1e-12),
            pytest.approx(calibration.ece(outcomes), abs=1e-12),
            pytest.approx(calibration.ece_mass(outcomes), abs=1e-12),
            None if math.isnan(mean_error) else pytest.approx(mean_error, abs=1e-12),
            pytest.approx(calibration.divergence(outcomes), abs=1e-9),
        )
    by_class = store.rows("SELECT class, divergence FROM class_accuracy WHERE dataset_id = 'd0' ORDER BY class")
    wanted = calibration.class_divergence(whole[0], CLASSES)
    assert by_class == [(label, pytest.approx(wanted[label], abs=1e-9)) for label in np.unique(whole[0].label)]
