"""Facts of two networks under two attacks, and bundles of them: forged as well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from bench.errors import BadStore
from bench.fingerprint import canonical, fingerprint
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
    if name == "clean":
        return AttackRow(fingerprint({"attack": None}), name, "none", "0", 0.0, (), canonical({"attack": None}))
    spec = {"attack": {"is": name}, "norm": "Linf", "eps": "8/255", "seed": 0}
    return AttackRow(fingerprint(spec), name, "Linf", "8/255", 8 / 255, ("apgd-ce", "fab"), canonical(spec))


def checkpoint(name: str, teacher: str | None = None) -> CheckpointRow:
    return CheckpointRow(
        name, f"m-{name}", "", "short", "convnet-6", "digits", 0, f"run-{name}", f"recipe-{name}", 3, 3, "last",
        teacher, "{}", "{}", "{}",
    )  # fmt: skip


def result(name: str, attack_name: str) -> Outcomes:
    rng = np.random.default_rng(sum(map(ord, name + attack_name)))
    predicted = np.where(rng.random(N) < 0.6, LABEL, (LABEL + 1) % 3)
    broken = np.where(predicted == LABEL, 0, 1 if attack_name == "clean" else 2)
    return of(np.arange(N), LABEL, predicted, rng.random(N), broken, rng.exponential(size=N), 10, 3, 1.5)


def enter(store: Store, name: str, attack_name: str, chunks: Sequence[slice]) -> None:
    evaluation = store.begin(name, "d1", attack(attack_name).attack_id, N)
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


def empty(path: Path) -> Store:
    store = Store(path)
    store.create()
    return store


def refused(folder: Path, tmp_path: Path, match: str) -> None:
    target = empty(tmp_path / "target.duckdb")
    with pytest.raises(BadStore, match=match) as error:
        target.merge(folder)
    assert "\n" not in str(error.value)
    tables = ("datasets", "attacks", "checkpoints", "epochs", "evaluations", "chunks", "outcomes")
    assert [target.rows(f"SELECT count(*) FROM {table}") for table in tables] == [[(0,)]] * len(tables)


def forge(folder: Path, table: str, sql: str) -> None:
    """Rewrite a table of a bundle, with a manifest that agrees."""
    file = folder / f"{table}.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE facts AS SELECT * FROM read_parquet('{file}')")
        connection.execute(sql)
        connection.execute(f"COPY facts TO '{file}' (FORMAT parquet)")
        rows = connection.execute("SELECT count(*) FROM facts").fetchall()[0][0]
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file.name]["sha256"] = bundle._hash(file)
    manifest["files"][file.name]["rows"] = rows
    (folder / "manifest.json").write_text(json.dumps(manifest))
