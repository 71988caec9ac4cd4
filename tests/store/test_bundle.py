"""Export and import: the same facts give the same bytes, and a bundle is merged once, whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from bench.errors import BadStore, DiskFull
from bench.outcomes import Outcomes
from bench.store import bundle
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow, EpochRow
from bench.verdict import Verdict

N = 30
LABEL = np.arange(N) % 3
ZERO_GRADIENT = Verdict("zero-gradient", None, 0.1, "pass", 10, "no gradient is zero")
DATASET = DatasetRow("d1", "digits", "test", "", N, ("zero", "one", "two"))


def of(*columns: Any) -> Outcomes:
    """Outcomes from columns of any integer type, which the constructor narrows."""
    return Outcomes(*columns)


def attack(name: str) -> AttackRow:
    return AttackRow(f"{name}-id", name, "Linf", "8/255", 8 / 255, ("apgd-ce", "fab"), '{"name":"' + name + '"}')


def checkpoint(name: str, teacher: str | None = None) -> CheckpointRow:
    return CheckpointRow(
        name, f"m-{name}", "", "short", "convnet-6", "digits", 0, f"run-{name}", f"recipe-{name}", 3, 3, "last",
        teacher, "{}", "{}", "{}",
    )  # fmt: skip


def result(name: str, attack_name: str) -> Outcomes:
    rng = np.random.default_rng(sum(map(ord, name + attack_name)))
    predicted = np.where(rng.random(N) < 0.6, LABEL, (LABEL + 1) % 3)
    broken = np.where(predicted == LABEL, 0, 2)
    return of(np.arange(N), LABEL, predicted, rng.random(N), broken, rng.exponential(size=N), 10, 3, 1.5)


def enter(store: Store, name: str, attack_name: str, chunks: Sequence[slice]) -> None:
    evaluation = store.begin(name, "d1", f"{attack_name}-id", N)
    whole = result(name, attack_name)
    for part in chunks:
        some = whole.select(np.arange(N)[part])
        store.add_chunk(evaluation, replace(some, seconds=whole.seconds * len(some) / N))


def filled(path: Path, order: Sequence[tuple[str, str]], chunks: Sequence[slice] = (slice(None),)) -> Store:
    store = Store(path)
    store.create()
    store.add_dataset(DATASET)
    for name in dict.fromkeys(name for _, name in order):
        store.add_attack(attack(name))
    for name in dict.fromkeys(name for name, _ in order):
        epochs = [EpochRow(epoch, "valid", index, 10, 5, epoch) for epoch in (1, 2) for index in range(3)]
        store.add_checkpoint(checkpoint(name, teacher="t"), epochs)
    store.add_checkpoint(checkpoint("t", teacher="tt"))
    store.add_checkpoint(checkpoint("tt"))
    for name, attack_name in order:
        enter(store, name, attack_name, chunks)
    return store


PAIRS = [("a", "clean"), ("a", "pgd"), ("b", "clean"), ("b", "pgd")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("source") / "bench.duckdb", PAIRS)


@pytest.fixture(scope="module")
def exported(source: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "an [odd] *name's"
    source.export(folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    copy.mkdir()
    for file in exported.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def empty(path: Path) -> Store:
    store = Store(path)
    store.create()
    return store


FACTS = (
    "SELECT e.evaluation_key, o.* EXCLUDE (evaluation_id) FROM complete_evaluations e JOIN outcomes o "
    "USING (evaluation_id) ORDER BY ALL"
)


def test_equal_facts_give_equal_bytes(exported: Path, tmp_path: Path) -> None:
    halves = [slice(20, 30), slice(0, 20)]
    other = filled(tmp_path / "other.duckdb", PAIRS[::-1], halves)
    enter_partly = other.begin("t", "d1", "clean-id", N)
    other.add_chunk(enter_partly, of(np.array([3]), np.array([0]), np.array([0]), np.array([1.0]), np.array([0])))
    other.export(tmp_path / "bundle")
    assert contents(tmp_path / "bundle") == contents(exported)


def test_manifest_counts_and_hashes(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["schema_version"] == 2
    rows = {name: entry["rows"] for name, entry in manifest["files"].items()}
    assert rows == {
        "datasets.parquet": 1, "attacks.parquet": 2, "checkpoints.parquet": 4, "epochs.parquet": 12,
        "evaluations.parquet": 4, "outcomes.parquet": 4 * N, "checks.parquet": 0, "published.parquet": 0,
    }  # fmt: skip
    assert set(contents(exported)) == {*rows, "manifest.json"}


def test_only_what_is_needed_is_written(tmp_path: Path) -> None:
    store = filled(tmp_path / "bench.duckdb", PAIRS[:1])
    store.add_dataset(DatasetRow("d2", "other", "test", "", 1, ("x",)))
    store.add_attack(attack("unused"))
    store.add_checkpoint(checkpoint("unused"))
    store.export(tmp_path / "bundle")
    target = empty(tmp_path / "target.duckdb")
    target.merge(tmp_path / "bundle")
    assert target.rows("SELECT dataset_id FROM datasets") == [("d1",)]
    assert target.rows("SELECT attack_id FROM attacks") == [("clean-id",)]
    assert target.rows("SELECT checkpoint_id FROM checkpoints ORDER BY 1") == [("a",), ("t",), ("tt",)]


def test_merge_gives_the_same_facts_and_the_same_export(source: Store, exported: Path, tmp_path: Path) -> None:
    target = empty(tmp_path / "target.duckdb")
    assert target.merge(exported) == 4
    assert target.rows(FACTS) == source.rows(FACTS)
    for view in ("summary", "leaderboard"):
        hidden = "EXCLUDE (evaluation_id)" if view == "summary" else ""
        sql = f"SELECT * {hidden} FROM {view} ORDER BY ALL"
        assert target.rows(sql) == source.rows(sql)
    assert target.rows("SELECT * FROM epochs ORDER BY ALL") == source.rows("SELECT * FROM epochs ORDER BY ALL")
    assert target.rows("SELECT DISTINCT forwards, backwards, seconds FROM complete_evaluations") == [(300, 90, None)]
    target.export(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(exported)


def test_merge_again_changes_nothing(exported: Path, tmp_path: Path) -> None:
    target = empty(tmp_path / "target.duckdb")
    target.merge(exported)
    before = target.rows("SELECT * FROM outcomes ORDER BY ALL")
    assert target.merge(exported) == 0
    assert target.rows("SELECT * FROM outcomes ORDER BY ALL") == before
    assert target.rows("SELECT (SELECT count(*) FROM epochs), (SELECT count(*) FROM chunks)") == [(12, 4)]


def test_merge_keeps_what_is_complete_and_completes_what_is_partial(
    source: Store, exported: Path, tmp_path: Path
) -> None:
    target = filled(tmp_path / "target.duckdb", [("b", "pgd"), ("c", "clean")])
    target.add_attack(attack("clean"))
    target.add_checkpoint(checkpoint("a"))
    partial = target.begin("a", "d1", "clean-id", N)
    target.add_chunk(partial, of(np.array([7]), LABEL[7:8], LABEL[7:8], np.array([1.0]), np.array([0])))
    assert target.merge(exported) == 3
    assert target.begin("a", "d1", "clean-id", N) == partial
    assert target.rows("SELECT seconds FROM complete_evaluations WHERE checkpoint_id = 'c'") == [(1.5,)]
    everything = filled(tmp_path / "all.duckdb", [*PAIRS, ("c", "clean")])
    assert target.rows(FACTS) == everything.rows(FACTS)
    assert target.rows("SELECT count(*) FROM chunks") == [(5,)]
    assert target.rows("SELECT count(DISTINCT evaluation_id) = count(*) FROM evaluations") == [(True,)]


def test_merge_of_two_bundles_in_either_order_exports_the_same(tmp_path: Path) -> None:
    for name, pairs in (("x", PAIRS[:3]), ("y", PAIRS[1:])):
        filled(tmp_path / f"{name}.duckdb", pairs).export(tmp_path / name)
    for name, order in (("xy", "xy"), ("yx", "yx")):
        target = empty(tmp_path / f"{name}.duckdb")
        for part in order:
            target.merge(tmp_path / part)
        target.export(tmp_path / name)
    assert contents(tmp_path / "xy") == contents(tmp_path / "yx")


def test_checks_and_published_figures_travel(tmp_path: Path) -> None:
    store = filled(tmp_path / "bench.duckdb", PAIRS[:1])
    store.add_dataset(DatasetRow("d2", "noise", "test", "", 1, ("x",)))
    store.add_verdicts("a", "d1", "none", "0", [ZERO_GRADIENT])
    store.add_verdicts("t", "d2", "Linf", "8/255", [replace(ZERO_GRADIENT, name="ordering", verdict="fail")])
    with store._writing() as connection:
        connection.execute("INSERT INTO published VALUES ('paper', 'm', 'd', 'r', 'aa', 'Linf', 0.1, 'accuracy', 0.5)")
    store.export(tmp_path / "bundle")
    target = empty(tmp_path / "target.duckdb")
    for _ in range(2):
        target.merge(tmp_path / "bundle")
        assert target.verdicts("a", "d1", "none", "0") == [ZERO_GRADIENT]
        assert target.rows("SELECT name FROM checks JOIN datasets USING (dataset_id) ORDER BY 1") == [
            ("digits",),
            ("noise",),
        ]
        assert target.rows("SELECT source, value FROM published") == [("paper", 0.5)]


def test_the_verdict_of_a_newer_check_replaces_the_older(tmp_path: Path) -> None:
    found: dict[str, list[Verdict]] = {}
    for name, version in (("old", 1), ("new", 2)):
        store = filled(tmp_path / f"{name}.duckdb", PAIRS[:1])
        found[name] = [replace(ZERO_GRADIENT, detail=name, version=version)]
        store.add_verdicts("a", "d1", "none", "0", found[name])
        store.export(tmp_path / name)
    for first, second in (("old", "new"), ("new", "old")):
        target = empty(tmp_path / f"{first}-{second}.duckdb")
        target.merge(tmp_path / first)
        target.merge(tmp_path / second)
        assert target.verdicts("a", "d1", "none", "0") == found["new"]


def test_a_bundle_of_the_first_schema_is_read(source: Store, folder: Path, tmp_path: Path) -> None:
    for column in ("divergence", "forwards", "backwards"):
        forge(folder, "outcomes", f"ALTER TABLE facts DROP COLUMN {column}")
    forge(
        folder,
        "checks",
        "CREATE OR REPLACE TABLE facts (checkpoint_id VARCHAR, check_name VARCHAR, value DOUBLE, threshold DOUBLE, "
        "verdict VARCHAR, n INTEGER)",
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 1}))
    target = empty(tmp_path / "target.duckdb")
    assert target.merge(folder) == 4
    old = "SELECT * REPLACE (NULL AS divergence, NULL AS forwards, NULL AS backwards)"
    assert target.rows(FACTS) == source.rows(f"{old} FROM ({FACTS}) ORDER BY ALL")
    assert target.rows("SELECT DISTINCT forwards, backwards FROM complete_evaluations") == [(300, 90)]


def test_an_empty_database_makes_an_empty_bundle(tmp_path: Path) -> None:
    empty(tmp_path / "empty.duckdb").export(tmp_path / "bundle")
    assert empty(tmp_path / "target.duckdb").merge(tmp_path / "bundle") == 0


# Folders


def test_an_earlier_export_is_replaced(source: Store, folder: Path, exported: Path) -> None:
    (folder / "outcomes.parquet").write_bytes(b"old")
    (folder / "checks.parquet").unlink()
    source.export(folder)
    assert contents(folder) == contents(exported)
    assert [entry.name for entry in folder.parent.iterdir()] == ["bundle"]


def test_an_empty_folder_and_missing_parents_are_fine(source: Store, tmp_path: Path, exported: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        source.export(folder)
        assert contents(folder) == contents(exported)


@pytest.mark.parametrize("name", ["thesis.tex", "outcomes.parquet"])
def test_a_folder_with_other_files_is_refused(source: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / name).write_text("mine")
    with pytest.raises(BadStore, match=name):
        source.export(tmp_path / "work")
    assert contents(tmp_path / "work") == {name: b"mine"}


def test_a_file_in_place_of_the_folder_is_refused(source: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadStore, match="is a file"):
        source.export(tmp_path / "file")


def test_a_full_disk_keeps_the_earlier_export(
    source: Store, folder: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "_hash", full)
    with pytest.raises(DiskFull, match="bundle"):
        source.export(folder)
    assert contents(folder) == contents(exported)
    assert [entry.name for entry in folder.parent.iterdir()] == ["bundle"]


# Bundles that are not what they should be


def refused(folder: Path, tmp_path: Path, match: str) -> None:
    target = empty(tmp_path / "target.duckdb")
    with pytest.raises(BadStore, match=match) as error:
        target.merge(folder)
    assert "\n" not in str(error.value)
    tables = ("datasets", "attacks", "checkpoints", "epochs", "evaluations", "chunks", "outcomes")
    assert [target.rows(f"SELECT count(*) FROM {table}") for table in tables] == [[(0,)]] * len(tables)


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    file = folder / "outcomes.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused(folder, tmp_path, "outcomes.parquet is damaged")


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "epochs.parquet").unlink()
    refused(folder, tmp_path, "lacks epochs.parquet")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', '{"format": "evenbench-bundle", "files": 3}'])
def test_a_damaged_manifest(folder: Path, tmp_path: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    refused(folder, tmp_path, "manifest.json is damaged")


def test_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "absent", tmp_path, "is no bundle")


def test_a_bundle_of_another_schema(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 9}))
    refused(folder, tmp_path, "has schema 9, this evenbench reads 2 and earlier")
    assert bundle.VERSION == 2


def forge(folder: Path, table: str, sql: str) -> None:
    """Rewrite a table of a bundle, with a manifest that agrees."""
    file = folder / f"{table}.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE facts AS SELECT * FROM read_parquet('{file}')")
        connection.execute(sql)
        connection.execute(f"COPY facts TO '{file}' (FORMAT parquet)")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file.name]["sha256"] = bundle._hash(file)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("table", "sql", "match"),
    [
        ("outcomes", "DELETE FROM facts WHERE sample = 3", "each planned sample exactly once"),
        ("outcomes", "UPDATE facts SET sample = 4 WHERE sample = 3", "each planned sample exactly once"),
        ("outcomes", "UPDATE facts SET correct = NOT correct WHERE sample = 3", "contradict"),
        (
            "outcomes",
            "UPDATE facts SET label = 9, predicted = 9, correct = true, broken_by = 0",
            "outside its data set",
        ),
        ("datasets", "DELETE FROM facts", "does not hold"),
        ("attacks", "DELETE FROM facts WHERE name = 'pgd'", "does not hold"),
        ("checkpoints", "DELETE FROM facts", "does not hold"),
        ("evaluations", "UPDATE facts SET checkpoint_id = 'b'", "not what its key says"),
        ("evaluations", "ALTER TABLE facts DROP COLUMN n", "cannot be used"),
    ],
)
def test_facts_that_contradict_each_other(folder: Path, tmp_path: Path, table: str, sql: str, match: str) -> None:
    forge(folder, table, sql)
    refused(folder, tmp_path, match)


def test_an_evaluation_planned_otherwise_here(folder: Path, tmp_path: Path) -> None:
    target = filled(tmp_path / "target.duckdb", [("b", "pgd")])
    target.add_attack(attack("clean"))
    target.begin("b", "d1", "clean-id", N - 1)
    with pytest.raises(BadStore, match="another number of samples"):
        target.merge(folder)
    assert target.rows("SELECT count(*) FROM complete_evaluations") == [(1,)]
