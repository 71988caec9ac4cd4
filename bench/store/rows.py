"""Rows of the tables as values, and how they are entered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from bench.errors import BadStore
from bench.fingerprint import fingerprint
from bench.outcomes import COLUMNS, Outcomes


@dataclass(frozen=True)
class DatasetRow:
    """A data set as evaluated, mirroring the table `datasets`."""

    dataset_id: str
    name: str
    split: str
    subset: str
    n: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class AttackRow:
    """An attack as run, mirroring the table `attacks`."""

    attack_id: str
    name: str
    norm: str
    eps_exact: str
    eps: float
    lineup: tuple[str, ...]
    spec: str


@dataclass(frozen=True)
class CheckpointRow:
    """Judged weights and what they are, mirroring the table `checkpoints`."""

    checkpoint_id: str
    method: str
    variant: str
    preset: str
    model: str
    trained_on: str
    seed: int | None
    run_id: str | None
    recipe_id: str
    epoch: int | None
    epochs: int | None
    selection: str
    teacher_id: str | None
    recipe: str
    schedule: str
    provenance: str


@dataclass(frozen=True)
class EpochRow:
    """One class in one epoch of a training, mirroring the table `epochs` without its `checkpoint_id`.

    Attributes:
        epoch: after how many epochs, from 1.
        split: "train" or "valid".
        class_: class index; the column `class`.
        n: samples of the class that were looked at.
        hits_clean: correct without attack; None when the method never looked at clean images.
        hits_adv: correct under the training attack; None when it was not run.
    """

    epoch: int
    split: str
    class_: int
    n: int
    hits_clean: int | None
    hits_adv: int | None


def evaluation_key(checkpoint_id: str, dataset_id: str, attack_id: str) -> str:
    """What one evaluation is called in every database: the hash of what was attacked, on what, and how."""
    return fingerprint([checkpoint_id, dataset_id, attack_id])


def first(connection: duckdb.DuckDBPyConnection, sql: str, params: Sequence[object]) -> tuple[Any, ...] | None:
    """The first row of an answer."""
    # fetchone would leave the rest of the answer waiting, and the connection refuses further work until it is read
    found = connection.execute(f"{sql} LIMIT 1", list(params)).fetchall()
    return found[0] if found else None


def insert(connection: duckdb.DuckDBPyConnection, table: str, row: DatasetRow | AttackRow | CheckpointRow) -> None:
    """Enter a row; one with the same id is left as it is."""
    names = [field.name for field in fields(row)]
    values = [list(value) if isinstance(value, tuple) else value for value in (getattr(row, name) for name in names)]
    marks = ", ".join("?" * len(names))
    connection.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT DO NOTHING", values)


def columns_of(epochs: Sequence[EpochRow]) -> dict[str, npt.NDArray[Any]]:
    """The rows as columns by name."""

    def counts(values: list[int | None]) -> npt.NDArray[Any]:
        missing = [value is None for value in values]
        return np.ma.masked_array([value or 0 for value in values], mask=missing, dtype=np.int32)

    return {
        "epoch": np.array([row.epoch for row in epochs], dtype=np.int32),
        "split": np.array([row.split for row in epochs], dtype=object),
        "class": np.array([row.class_ for row in epochs], dtype=np.uint16),
        "n": np.array([row.n for row in epochs], dtype=np.int32),
        "hits_clean": counts([row.hits_clean for row in epochs]),
        "hits_adv": counts([row.hits_adv for row in epochs]),
    }


def insert_chunk(connection: duckdb.DuckDBPyConnection, evaluation_id: int, outcomes: Outcomes) -> None:
    """Enter some outcomes of an evaluation.

    Raises:
        BadStore: they do not fit it.
    """
    order = np.argsort(outcomes.sample, kind="stable")
    columns = {name: np.ascontiguousarray(getattr(outcomes, name)[order]) for name in ("correct", *COLUMNS)}
    connection.register("incoming", columns)
    _refuse_misfit(connection, evaluation_id, columns)
    connection.execute(
        "INSERT INTO outcomes BY NAME SELECT ?::INTEGER AS evaluation_id, * FROM incoming", [evaluation_id]
    )
    totals = [int(getattr(outcomes, name).sum(dtype=np.int64)) for name in ("forwards", "backwards")]
    connection.execute(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", [evaluation_id, len(outcomes), *totals, outcomes.seconds]
    )


def _refuse_misfit(
    connection: duckdb.DuckDBPyConnection, evaluation_id: int, columns: dict[str, npt.NDArray[Any]]
) -> None:
    found = first(
        connection,
        "SELECT e.n, len(d.class_names), coalesce((SELECT sum(c.n) FROM chunks c WHERE c.evaluation_id = ?), 0) "
        "FROM evaluations e JOIN datasets d USING (dataset_id) WHERE e.evaluation_id = ?",
        [evaluation_id, evaluation_id],
    )
    if found is None:
        raise BadStore(f"no evaluation {evaluation_id} has begun; call begin first")
    planned, classes, before = (int(value) for value in found)
    sample = columns["sample"]
    if before + len(sample) > planned:
        raise BadStore(
            f"evaluation {evaluation_id} plans {planned} samples and has {before}; {len(sample)} more are too many"
        )
    twice = sample[1:][sample[1:] == sample[:-1]]
    there = first(
        connection,
        "SELECT sample FROM outcomes SEMI JOIN incoming USING (sample) WHERE evaluation_id = ? ORDER BY sample",
        [evaluation_id],
    )
    if len(twice) or there is not None:
        which = int(twice[0]) if there is None else there[0]
        raise BadStore(f"sample {which} of evaluation {evaluation_id} is already in; send only samples not yet done")
    for name in ("label", "predicted"):
        if len(sample) and columns[name].max() >= classes:
            raise BadStore(
                f"{name} {columns[name].max()} is outside the {classes} classes of the data set; nothing was stored"
            )
