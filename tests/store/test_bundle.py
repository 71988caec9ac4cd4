"""Export and import: the same facts give the same bytes, and a bundle is merged once, whole, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BadStore, DiskFull
from bench.store import bundle
from bench.store.database import Store
from bench.store.rows import DatasetRow
from bench.verdict import Verdict

from .given import LABEL, PAIRS, ZERO_GRADIENT, N, attack, checkpoint, empty, filled, forge, of, refused


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


FACTS = (
    "SELECT e.evaluation_key, o.* EXCLUDE (evaluation_id) FROM complete_evaluations e JOIN outcomes o "
    "USING (evaluation_id) ORDER BY ALL"
)


def test_equal_facts_give_equal_bytes(exported: Path, tmp_path: Path) -> None:
    halves = [slice(20, 30), slice(0, 20)]
    other = filled(tmp_path / "other.duckdb", PAIRS[::-1], halves)
    enter_partly = other.begin("t", "d1", attack("clean").attack_id, N)
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
    assert target.rows("SELECT attack_id FROM attacks") == [(attack("clean").attack_id,)]
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
    partial = target.begin("a", "d1", attack("clean").attack_id, N)
    target.add_chunk(partial, of(np.array([7]), LABEL[7:8], LABEL[7:8], np.array([1.0]), np.array([0])))
    assert target.merge(exported) == 3
    assert target.begin("a", "d1", attack("clean").attack_id, N) == partial
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
