"""What the database says of one checkpoint: its counts per class, its confidences, and what the checks found."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bench.report.boards.values import Board, Calibration

if TYPE_CHECKING:
    import pandas as pd

_DIGITS = 12
"""Decimals kept of means that DuckDB computes: beyond, they depend on the order in which its threads add."""

_LISTS = "list(class ORDER BY class) AS classes, list(n ORDER BY class) AS n, list(correct ORDER BY class) AS correct"
"""The rows of a view by class, folded into one."""


class Queryable(Protocol):
    """Anything that answers SQL over the views of `bench/store/schema.sql`; `bench.store.database.Store` is one."""

    def query(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        """The rows that `sql` selects."""
        ...


@dataclass(frozen=True)
class Scope:
    """Which complete evaluations are looked at; a part that is None leaves nothing out.

    Attributes:
        checkpoints: by checkpoint_id.
        datasets: by dataset_id.
        attacks: by attack_id; what is best known is over all attacks regardless.
    """

    checkpoints: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    attacks: tuple[str, ...] | None = None


EVERYTHING = Scope()

Threat = tuple[str, str, str, str]
"""checkpoint_id, dataset_id, norm, eps_exact"""


@dataclass(frozen=True)
class ClassCounts:
    """One checkpoint on some samples, class by class.

    Attributes:
        n: (K,) samples; 0 for a class without.
        correct: (K,) of them classified correctly.
        calibration: of its confidences; None for what is best known.
        attacks: number of attacks that left so many.
    """

    n: tuple[int, ...]
    correct: tuple[int, ...]
    calibration: Calibration | None = None
    attacks: int = 1


@dataclass(frozen=True)
class Judged:
    """One checkpoint under one attack; `board` has no rows yet."""

    board: Board
    entry: tuple[str, str, str, str, str, str]
    checkpoint: str
    counts: ClassCounts

    @property
    def threat(self) -> Threat:
        """The checkpoint on these samples within this budget, whatever the attack."""
        return (self.checkpoint, *self.board.arena)


def evaluated_datasets(store: Queryable) -> set[str]:
    """Names of the data sets with a complete evaluation."""
    found = store.query("SELECT DISTINCT name FROM complete_evaluations JOIN datasets USING (dataset_id)")
    return {str(name) for name in found["name"]}


def judged(store: Queryable, dataset: str | None, scope: Scope) -> list[Judged]:
    """Every complete evaluation, those of one attack and entry in the order of their seeds."""
    where, params = _where(dataset, {**_ids(scope), "attack_id": scope.attacks})
    confidences = {
        int(row["evaluation_id"]): _calibration(row)
        for row in _records(store, f"SELECT * FROM calibration WHERE {where}", params)
    }
    found = _records(
        store,
        f"""
        SELECT dataset, split, subset, dataset_id, class_names, attack, attack_id, norm, eps, eps_exact, method,
               variant, model, recipe_id, preset, selection, checkpoint_id, evaluation_id, coalesce(seed, -1) AS seed,
               {_LISTS}
        FROM class_accuracy JOIN (SELECT dataset_id, class_names FROM datasets) USING (dataset_id)
        WHERE {where}
        GROUP BY ALL
        ORDER BY attack_id, seed, checkpoint_id
        """,
        params,
    )
    made = []
    for row in found:
        n, correct = _by_class(row)
        board = Board(
            dataset=str(row["dataset"]),
            split=str(row["split"]),
            subset=str(row["subset"]),
            dataset_id=str(row["dataset_id"]),
            class_names=tuple(str(name) for name in row["class_names"]),
            samples=sum(n),
            attack=str(row["attack"]),
            attack_id=str(row["attack_id"]),
            norm=str(row["norm"]),
            eps=float(row["eps"]),
            eps_exact=str(row["eps_exact"]),
            rows=(),
        )
        method, variant, model, recipe_id, preset, selection = (
            str(row[key]) for key in ("method", "variant", "model", "recipe_id", "preset", "selection")
        )
        entry = (method, variant, model, recipe_id, preset, selection)
        counts = ClassCounts(n, correct, confidences[int(row["evaluation_id"])])
        made.append(Judged(board, entry, str(row["checkpoint_id"]), counts))
    return made


def best_known(store: Queryable, dataset: str | None, scope: Scope) -> dict[Threat, ClassCounts]:
    """What stood against every attack of a budget."""
    where, params = _where(dataset, _ids(scope))
    found = _records(
        store,
        f"""
        SELECT checkpoint_id, dataset_id, norm, eps_exact, attacks, class_names, {_LISTS}
        FROM best_known_class_accuracy JOIN (SELECT dataset_id, class_names FROM datasets) USING (dataset_id)
        WHERE {where}
        GROUP BY ALL
        """,
        params,
    )
    return {_threat(row): ClassCounts(*_by_class(row), attacks=int(row["attacks"])) for row in found}


def verdicts(store: Queryable) -> Mapping[Threat, Mapping[str, str]]:
    """Check -> pass, warn, fail or not-run, within each budget; norm 'none' for those that no threat is part of."""
    made: dict[Threat, dict[str, str]] = defaultdict(dict)
    for row in _records(store, "SELECT * FROM checks ORDER BY check_name", []):
        made[_threat(row)][str(row["check_name"])] = str(row["verdict"])
    return made


def _records(store: Queryable, sql: str, params: list[object]) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in store.query(sql, params).to_dict("records")]


def _ids(scope: Scope) -> dict[str, tuple[str, ...] | None]:
    return {"checkpoint_id": scope.checkpoints, "dataset_id": scope.datasets}


def _where(dataset: str | None, among: Mapping[str, tuple[str, ...] | None]) -> tuple[str, list[object]]:
    """A condition on the views' columns, and its parameters."""
    conditions, params = ["true"], list[object]()
    if dataset is not None:
        conditions.append("dataset = ?")
        params.append(dataset)
    for column, ids in among.items():
        if ids is not None:
            conditions.append(f"{column} IN (SELECT unnest(?))")
            params.append(list(ids))
    return " AND ".join(conditions), params


def _threat(row: Mapping[str, Any]) -> Threat:
    return (str(row["checkpoint_id"]), str(row["dataset_id"]), str(row["norm"]), str(row["eps_exact"]))


def _by_class(row: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    n, correct = [0] * len(row["class_names"]), [0] * len(row["class_names"])
    for label, total, hits in zip(row["classes"], row["n"], row["correct"], strict=True):
        n[int(label)], correct[int(label)] = int(total), int(hits)
    return tuple(n), tuple(correct)


def _calibration(row: Mapping[str, Any]) -> Calibration:
    figures = ("mean_confidence", "ece", "ece_mass", "error_confidence", "divergence")
    mean, ece, mass, error, divergence = (round(float(row[name]), _DIGITS) for name in figures)
    return Calibration(
        mean, ece, mass, None if math.isnan(error) else error, None if math.isnan(divergence) else divergence
    )
