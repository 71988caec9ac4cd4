"""A bundle that contradicts itself, or what the database holds of its data, is refused whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BadStore
from bench.fingerprint import canonical, fingerprint
from bench.store.database import Store

from .given import N, attack, empty, filled, forge

TABLES = ("datasets", "attacks", "checkpoints", "epochs", "evaluations", "chunks", "outcomes", "checks", "published")
WEAKER = canonical({"attack": {"is": "pgd"}, "norm": "Linf", "eps": "1/255", "seed": 0})
"""The spec of another attack than the one given."""
A_CHECK = "INSERT INTO facts VALUES ('{}', '{}', 'Linf', '8/255', 'zero-gradient', {}, 0.1, '{}', {}, 'one line', 1)"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return empty(tmp_path_factory.mktemp("target") / "target.duckdb")


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("mine") / "mine.duckdb", [("c", "clean"), ("c", "pgd")])


def refused(target: Store, folder: Path, match: str) -> None:
    """The error names the contradiction on one line; the database is as it was."""
    sizes = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
    before = target.rows(sizes)
    with pytest.raises(BadStore, match=match) as error:
        target.merge(folder)
    assert "\n" not in str(error.value)
    assert "nothing of it was taken" in str(error.value) or "export it again" in str(error.value)
    assert target.rows(sizes) == before


@pytest.mark.parametrize(
    ("table", "sql", "match"),
    [
        # The three that were taken once
        (
            "outcomes",
            "UPDATE facts SET label = predicted, correct = true, broken_by = 0 WHERE evaluation_id = 1",
            "data set d1 .* has sample 0 with the labels 0 and 1",
        ),
        ("evaluations", "UPDATE facts SET n = 7", f"has 7 images, but its data set {N}"),
        ("attacks", "UPDATE facts SET eps = 16 / 255, eps_exact = '16/255' WHERE name = 'pgd'", "has eps 16/255 "),
        # Data sets
        ("datasets", "DELETE FROM facts", "does not hold"),
        ("datasets", "INSERT INTO facts FROM facts", "the table datasets .* has d1 more than once"),
        ("datasets", "UPDATE facts SET n = 29", "has 30 images, but its data set 29"),
        ("datasets", "UPDATE facts SET n = 0", "data set d1 .* has no images"),
        ("datasets", "UPDATE facts SET class_names = []", "has no classes"),
        ("datasets", "UPDATE facts SET class_names = ['zero', NULL, 'two']", "a class without a name"),
        ("datasets", "UPDATE facts SET class_names = ['zero', 'one']", "holds class 2, which is outside"),
        ("datasets", "UPDATE facts SET name = NULL", "the table datasets .* has a row without name"),
        ("datasets", "ALTER TABLE facts ALTER class_names TYPE VARCHAR", "a column 'class_names' of type VARCHAR"),
        # Attacks
        ("attacks", "DELETE FROM facts WHERE name = 'pgd'", "does not hold"),
        ("attacks", f"UPDATE facts SET spec = '{WEAKER}' WHERE name = 'pgd'", "not what its id says"),
        ("attacks", "UPDATE facts SET spec = ' ' || spec", "not what its id says"),
        ("attacks", "UPDATE facts SET spec = '[' || repeat('[', 100000)", "not what its id says"),
        ("attacks", "UPDATE facts SET spec = NULL", "has a row without spec"),
        ("attacks", "UPDATE facts SET eps = 'nan'::DOUBLE WHERE name = 'pgd'", "has eps 8/255 .nan"),
        ("attacks", "UPDATE facts SET eps = 0.5 WHERE name = 'clean'", "has eps 0 .0.5"),
        ("attacks", "UPDATE facts SET norm = 'L2'", "has the norm L2, but"),
        ("attacks", "UPDATE facts SET name = 'clean'", "is called clean, with the line-up"),
        ("attacks", "UPDATE facts SET name = 'pgd'", "is called pgd, with the line-up"),
        ("attacks", "UPDATE facts SET lineup = []", "broken by number 2, but its attack has a line-up of 0"),
        # Networks
        ("checkpoints", "DELETE FROM facts WHERE checkpoint_id = 'a'", "has epochs, but is not in it"),
        ("checkpoints", "INSERT INTO facts FROM facts", "has a more than once"),
        ("checkpoints", "UPDATE facts SET recipe = '{'", "that is no JSON"),
        ("checkpoints", "UPDATE facts SET epoch = 4", "is of epoch 4 of 3"),
        ("epochs", "UPDATE facts SET hits_adv = 11", "has 5 and 11 hits of 10 images"),
        ("epochs", "UPDATE facts SET hits_clean = -1", "has -1 and 1 hits"),
        ("epochs", "UPDATE facts SET split = 'test'", "split test"),
        ("epochs", "INSERT INTO facts FROM facts", "more than once"),
        # Evaluations
        ("evaluations", "UPDATE facts SET checkpoint_id = 'b'", "not what its key says"),
        (
            "evaluations",
            "UPDATE facts SET evaluation_id = 1",
            "evaluation number 2 .* is not in it",
        ),
        ("evaluations", "DELETE FROM facts WHERE evaluation_id = 2", "evaluation number 2 .* is not in it"),
        ("evaluations", "UPDATE facts SET forwards = -1", "took -1 forward"),
        ("evaluations", "UPDATE facts SET backwards = 1", "took 300 and 1 passes, but its outcomes 300 and 90"),
        ("evaluations", "ALTER TABLE facts DROP COLUMN n", "a column 'n' of type none, wanted INTEGER"),
        ("evaluations", "ALTER TABLE facts ADD COLUMN more INTEGER", "a column 'more' of type INTEGER, wanted none"),
        # Outcomes
        ("outcomes", "DELETE FROM facts WHERE sample = 3", "each planned sample exactly once"),
        ("outcomes", "UPDATE facts SET sample = 4 WHERE sample = 3", "each planned sample exactly once"),
        ("outcomes", "UPDATE facts SET sample = 30 WHERE sample = 3", "holds sample 30 of a data set whose last is 29"),
        ("outcomes", "UPDATE facts SET correct = NOT correct WHERE sample = 3", "contradict themselves: correct"),
        ("outcomes", "UPDATE facts SET correct = NULL WHERE sample = 3", "contradict themselves: correct"),
        ("outcomes", "UPDATE facts SET broken_by = 3 WHERE broken_by = 0", "contradict themselves: broken_by"),
        ("outcomes", "UPDATE facts SET broken_by = 4 WHERE broken_by = 2", "broken by number 4"),
        (
            "outcomes",
            "UPDATE facts SET label = 9, predicted = 9, correct = true, broken_by = 0",
            "outside its data set",
        ),
        ("outcomes", "UPDATE facts SET confidence = 1.5 WHERE sample = 3", "a confidence that is not in"),
        ("outcomes", "UPDATE facts SET confidence = 'nan'::FLOAT WHERE sample = 3", "a confidence that is not in"),
        ("outcomes", "UPDATE facts SET confidence = NULL WHERE sample = 3", "a confidence that is not in"),
        ("outcomes", "UPDATE facts SET divergence = 'inf'::FLOAT WHERE sample = 3", "a divergence that is negative"),
        ("outcomes", "UPDATE facts SET divergence = 'nan'::FLOAT WHERE sample = 3", "a divergence that is negative"),
        ("outcomes", "UPDATE facts SET divergence = -1 WHERE sample = 3", "a divergence that is negative"),
        ("outcomes", "ALTER TABLE facts ALTER label TYPE INTEGER", "a column 'label' of type INTEGER"),
        # Soundness checks
        ("checks", A_CHECK.format("x", "d1", 0.0, "pass", 3), "of a checkpoint or a data set that it does not hold"),
        ("checks", A_CHECK.format("a", "x", 0.0, "pass", 3), "of a checkpoint or a data set that it does not hold"),
        ("checks", A_CHECK.format("a", "d1", 0.0, "fine", 3), "says fine"),
        ("checks", A_CHECK.format("a", "d1", 0.0, "pass", -1), "measured 0.0 against 0.1 on -1 images"),
        ("checks", A_CHECK.format("a", "d1", "'nan'", "pass", 3), "measured nan against 0.1"),
    ],
)
def test_facts_that_contradict_each_other(target: Store, folder: Path, table: str, sql: str, match: str) -> None:
    forge(folder, table, sql)
    refused(target, folder, match)


def test_other_samples_in_one_evaluation_than_in_the_rest(target: Store, folder: Path) -> None:
    forge(folder, "datasets", "UPDATE facts SET subset = 'n=30,seed=0'")
    forge(folder, "outcomes", "UPDATE facts SET sample = 100 WHERE sample = 3 AND evaluation_id = 1")
    refused(target, folder, "data set d1 .* has sample (3|100) in some evaluations only")


def test_a_manifest_that_counts_other_rows(target: Store, folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"rows": 120', '"rows": 121'))
    refused(target, folder, "outcomes.parquet has 120 rows, but 121 in manifest.json")


def test_a_radius_that_would_take_for_ever_to_read(target: Store, folder: Path) -> None:
    spec = canonical({"attack": {"is": "pgd"}, "norm": "Linf", "eps": "1e9999999999", "seed": 0})
    made = fingerprint({"attack": {"is": "pgd"}, "norm": "Linf", "eps": "1e9999999999", "seed": 0})
    forge(folder, "attacks", f"UPDATE facts SET spec = '{spec}', attack_id = '{made}' WHERE name = 'pgd'")
    refused(target, folder, "has the radius 1e9999999999 in its spec, which is none")


# What the database holds already


@pytest.mark.parametrize("whole", [True, False])
def test_other_labels_than_the_database_has(mine: Store, folder: Path, tmp_path: Path, whole: bool) -> None:
    here = mine if whole else filled(tmp_path / "part.duckdb", [("c", "clean")], [slice(0, 10)])
    forge(
        folder,
        "outcomes",
        "UPDATE facts SET label = (label + 1) % 3, predicted = (predicted + 1) % 3",
    )
    refused(here, folder, "data set d1 .* has sample 0 with label 1, but 0 in this database")


def test_other_samples_than_the_database_has(mine: Store, folder: Path) -> None:
    forge(folder, "datasets", "UPDATE facts SET subset = 'n=30,seed=0'")
    forge(folder, "outcomes", "UPDATE facts SET sample = 100 WHERE sample = 3")
    refused(mine, folder, "data set d1 .* lacks sample 3, which this database has")


@pytest.mark.parametrize(
    ("table", "sql", "match"),
    [
        (
            "datasets",
            "UPDATE facts SET class_names = ['0', '1', '2']",
            "has the classes .0, 1, 2., but .zero, one, two.",
        ),
        ("datasets", "UPDATE facts SET class_names = ['zero', 'one', 'two', 'three']", "has the classes "),
        ("attacks", "UPDATE facts SET lineup = ['fab'] WHERE name = 'pgd'", "has 1 names in its line-up, but 2"),
    ],
)
def test_what_the_database_holds_otherwise(mine: Store, folder: Path, table: str, sql: str, match: str) -> None:
    forge(folder, table, sql)
    refused(mine, folder, match)


def test_an_evaluation_planned_otherwise_here(folder: Path, tmp_path: Path) -> None:
    here = filled(tmp_path / "mine.duckdb", [("b", "pgd")])
    here.add_attack(attack("clean"))
    here.begin("b", "d1", attack("clean").attack_id, N - 1)
    refused(here, folder, "another number of samples")
    assert here.rows("SELECT count(*) FROM complete_evaluations") == [(1,)]


def test_outcomes_that_agree_with_themselves_are_believed(folder: Path, tmp_path: Path) -> None:
    forge(folder, "outcomes", "UPDATE facts SET predicted = label, correct = true, broken_by = 0")
    target = empty(tmp_path / "target.duckdb")
    target.merge(folder)
    assert target.rows("SELECT min(accuracy) FROM summary") == [(1.0,)]
