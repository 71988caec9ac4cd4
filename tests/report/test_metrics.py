"""The figures of the board: against closed forms, and against the views over the same outcomes."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from bench.outcomes import Outcomes
from bench.report import metrics
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow

fractions = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def of(*columns: Any) -> Outcomes:
    """Outcomes from columns of any integer type, which the constructor narrows."""
    return Outcomes(*columns)


def drawn(seed: int, n: int, classes: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    predicted = np.where(rng.random(n) < rng.random(classes)[label], label, rng.integers(0, classes, n))
    return of(rng.permutation(n), label, predicted, rng.random(n), np.where(label == predicted, 0, 1))


def test_nsd_by_hand() -> None:
    # mean 0.6, deviations 0.2, 0, -0.2: sqrt(0.08 / 3) / 0.6
    assert metrics.nsd([0.8, 0.6, 0.4]) == pytest.approx(math.sqrt(0.08 / 3) / 0.6)
    assert metrics.nsd([0.7]) == 0.0


@given(fractions, st.floats(0.01, 100))
def test_nsd_does_not_change_with_scale(vector: list[float], scale: float) -> None:
    assume(max(vector) > 1e-6)
    assert metrics.nsd([scale * value for value in vector]) == pytest.approx(metrics.nsd(vector), rel=1e-9, abs=1e-12)


@given(fractions)
def test_nsd_is_zero_for_equal_classes_and_only_then(vector: list[float]) -> None:
    assume(max(vector) > 1e-6)
    assert (metrics.nsd(vector) == 0) == (len(set(vector)) == 1)
    assert metrics.nsd([vector[0] + 0.1] * 7) == 0


@given(fractions)
def test_nsd_lies_between_zero_and_the_root_of_k_minus_one(vector: list[float]) -> None:
    assume(max(vector) > 1e-6)
    assert 0 <= metrics.nsd(vector) <= math.sqrt(len(vector) - 1) + 1e-9


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_nsd_reaches_its_bound_where_one_class_has_everything(classes: int) -> None:
    assert metrics.nsd([0.3] + [0.0] * (classes - 1)) == pytest.approx(math.sqrt(classes - 1))


@given(fractions, st.randoms(use_true_random=False))
def test_nsd_does_not_know_the_order_of_classes(vector: list[float], random: object) -> None:
    assume(max(vector) > 1e-6)
    assert metrics.nsd(sorted(vector)) == pytest.approx(metrics.nsd(vector), rel=1e-9, abs=1e-12)


def test_nsd_without_a_mean_is_no_number() -> None:
    for vector in ([0.0, 0.0], [], [float("nan")], [float("nan"), 0.0]):
        assert math.isnan(metrics.nsd(vector))


def test_classes_without_samples_do_not_count() -> None:
    vector = [float("nan"), 0.8, 0.4]
    assert metrics.nsd(vector) == metrics.nsd([0.8, 0.4])
    assert metrics.worst_class(vector) == 2
    assert metrics.worst_accuracy(vector) == 0.4


def test_worst_class_is_the_first_of_equals() -> None:
    assert metrics.worst_class([0.5, 0.2, 0.2]) == 1
    with pytest.raises(ValueError, match="no class has a sample"):
        metrics.worst_class([float("nan")])


def test_the_worst_class_of_several_seeds_is_that_of_most() -> None:
    nan = float("nan")
    assert metrics.worst_by_vote([[0.2, 0.4], [0.5, 0.4], [0.6, 0.5]]) == (1, 2)
    assert metrics.worst_by_vote([[nan, 0.3, 0.1], [nan, 0.1, 0.2]]) == (2, 1)  # one vote each: 0.2 against 0.15
    assert metrics.worst_by_vote([[0.1, 0.3], [0.3, 0.1]]) == (0, 1)  # nothing tells them apart: the first
    with pytest.raises(ValueError, match="no class has a sample"):
        metrics.worst_by_vote([[nan, nan]])


def test_ratios_and_class_accuracy() -> None:
    np.testing.assert_array_equal(metrics.ratios([1, 0, 3], [2, 0, 3]), [0.5, np.nan, 1.0])
    one = of(np.arange(4), np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.ones(4), np.array([0, 1, 0, 0]))
    np.testing.assert_array_equal(one.class_accuracy(3), [0.5, 1.0, np.nan])


@pytest.fixture(scope="module")
def macros() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    schema = resources.files("bench.store").joinpath("schema.sql").read_text(encoding="utf-8")
    for statement in connection.extract_statements(schema):
        if "MACRO" in statement.query:
            connection.execute(statement)
    return connection


@given(st.lists(st.one_of(st.none(), st.fractions(0, 1, max_denominator=72).map(float)), min_size=1, max_size=12))
def test_the_macros_agree_with_the_functions(macros: duckdb.DuckDBPyConnection, found: list[float | None]) -> None:
    """Classes without samples are NaN in the vector and have no row."""
    rows = [(f"class {label}", label, value) for label, value in enumerate(found) if value is not None]
    assume(rows)
    ((nsd, worst_class, worst_accuracy),) = macros.execute(
        "SELECT nsd(accuracy), worst_class(class_name, class, accuracy), worst_accuracy(accuracy) FROM "
        f"(VALUES {', '.join(['(?, ?, ?::DOUBLE)'] * len(rows))}) AS t(class_name, class, accuracy)",
        [value for row in rows for value in row],
    ).fetchall()
    vector = [math.nan if value is None else value for value in found]
    assert worst_class == f"class {metrics.worst_class(vector)}"
    assert worst_accuracy == metrics.worst_accuracy(vector)
    assert (nsd is None) == math.isnan(metrics.nsd(vector))
    assert nsd is None or nsd == pytest.approx(metrics.nsd(vector), rel=1e-9, abs=1e-12)


def test_the_views_agree_with_the_functions(tmp_path: Path) -> None:
    store = Store(tmp_path / "bench.duckdb")
    store.create()
    store.add_attack(AttackRow("a", "clean", "none", "0", 0.0, (), "{}"))
    cases = {f"c{seed}": drawn(seed, 20 + 37 * seed, 2 + seed) for seed in range(6)}
    never = of(np.arange(4), np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), np.ones(4), np.ones(4))
    cases["never"] = never
    for name, outcomes in cases.items():
        classes = int(outcomes.label.max()) + 2  # a class without samples at the end
        names = tuple(f"class {index}" for index in range(classes))
        store.add_dataset(DatasetRow(name, name, "test", "", len(outcomes), names))
        store.add_checkpoint(
            CheckpointRow(name, "m", "", "", "r", "", None, None, "x", None, None, "", None, "{}", "{}", "{}")
        )
        store.add_chunk(store.begin(name, name, "a", len(outcomes)), outcomes)
    for name, outcomes in cases.items():
        vector = outcomes.class_accuracy(int(outcomes.label.max()) + 2)
        found = store.rows("SELECT class, accuracy FROM class_accuracy WHERE checkpoint_id = ? ORDER BY class", [name])
        assert [accuracy for _, accuracy in found] == [value for value in vector if not np.isnan(value)]
        ((n, accuracy, worst_class, worst_accuracy, nsd),) = store.rows(
            "SELECT n, accuracy, worst_class, worst_accuracy, nsd FROM summary WHERE checkpoint_id = ?", [name]
        )
        assert n == len(outcomes)
        assert accuracy == pytest.approx(float(outcomes.correct.mean()), rel=1e-12)
        assert worst_class == f"class {metrics.worst_class(vector)}"
        assert worst_accuracy == metrics.worst_accuracy(vector)
        assert (nsd is None) == math.isnan(metrics.nsd(vector))
        assert nsd is None or nsd == pytest.approx(metrics.nsd(vector), rel=1e-9)
    independent = store.rows(
        """
        WITH hits AS (SELECT e.checkpoint_id, label, avg(CASE WHEN label = predicted THEN 1.0 ELSE 0.0 END) AS a
                      FROM outcomes JOIN evaluations e USING (evaluation_id) GROUP BY ALL)
        SELECT s.checkpoint_id, s.nsd, sqrt(avg(a * a) - avg(a) ** 2) / avg(a) FROM hits JOIN summary s
        USING (checkpoint_id) WHERE s.nsd IS NOT NULL GROUP BY ALL
        """
    )
    assert len(independent) == 6
    for _, nsd, wanted in independent:
        assert nsd == pytest.approx(wanted, rel=1e-6)
