"""Boards from a database: which evaluations may stand in one table, and the figures of each row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.errors import BadStore, UnknownName
from bench.report import metrics
from bench.report.boards.columns import SORTS
from bench.report.boards.counts import (
    EVERYTHING,
    ClassCounts,
    Judged,
    Queryable,
    Scope,
    Threat,
    best_known,
    evaluated_datasets,
    judged,
    verdicts,
)
from bench.report.boards.values import NOT_RUN, BestKnown, Board, Calibration, Row, Score

STRONGEST = "autoattack"
"""Name of the attack whose board comes first, whatever the figures say."""


def boards(
    store: Queryable, *, dataset: str | None = None, sort: str = "accuracy", scope: Scope = EVERYTHING
) -> list[Board]:
    """Every board that the complete evaluations of a database give.

    Args:
        store: the database.
        dataset: only the data sets of this name; None for all.
        sort: column of `SORTS` that orders the rows of each board; ties by method, variant, model and recipe.
        scope: only these evaluations, such as those of one study.

    Returns:
        The boards by data set and budget, in each the strongest attack first: autoattack, then by mean accuracy.
        The unattacked images make a board only where no attack was run on them.

    Raises:
        UnknownName: no such column, or no such data set among the evaluated ones.
        BadStore: the database holds no complete evaluation.
    """
    if sort not in SORTS:
        raise UnknownName.among("column", sort, SORTS)
    known = _evaluated(store)
    if dataset is not None and dataset not in known:
        raise UnknownName.among("evaluated data set", dataset, known)
    made = sorted((_sorted(board, sort) for board in _read(store, dataset, scope)), key=_order)
    attacked = {board.dataset_id for board in made if not board.is_clean}
    return [board for board in made if not board.is_clean or board.dataset_id not in attacked]


@dataclass(frozen=True)
class _Beside:
    """What is said of a checkpoint beside its figures under the board's attack.

    Attributes:
        unattacked: its counts on the same samples without attack, by dataset_id and checkpoint_id.
        known: its counts under all attacks together.
        verdicts: of its soundness checks, check -> pass, warn, fail or not-run.
    """

    unattacked: Mapping[tuple[str, str], ClassCounts]
    known: Mapping[Threat, ClassCounts]
    verdicts: Mapping[Threat, Mapping[str, str]]


def _evaluated(store: Queryable) -> set[str]:
    names = evaluated_datasets(store)
    if names:
        return names
    begun = int(store.query("SELECT count(*) AS n FROM evaluations")["n"][0])
    if begun:
        raise BadStore(
            f"none of the {begun} evaluations in the database is complete; run what made them again to finish them"
        )
    raise BadStore("the database holds no evaluation; 'evenbench evaluate' or 'evenbench run' makes some")


def _read(store: Queryable, dataset: str | None, scope: Scope) -> list[Board]:
    """Boards with unsorted rows, the clean ones included."""
    together: dict[tuple[str, str], dict[tuple[str, ...], list[Judged]]] = {}
    for one in judged(store, dataset, scope):
        entries = together.setdefault((one.board.dataset_id, one.board.attack_id), {})
        entries.setdefault(one.entry, []).append(one)
    boards = [list(entries.values()) for entries in together.values()]
    beside = _Beside(_unattacked(boards), best_known(store, dataset, scope), verdicts(store))
    return [_board(entries, beside) for entries in boards]


def _unattacked(boards: Sequence[Sequence[Sequence[Judged]]]) -> dict[tuple[str, str], ClassCounts]:
    """Counts without attack; of several clean fingerprints (another precision) those that most checkpoints have."""
    clean: dict[str, list[list[Judged]]] = defaultdict(list)
    for entries in boards:
        board = entries[0][0].board
        if board.is_clean:
            clean[board.dataset_id].append([one for seeds in entries for one in seeds])
    chosen = [min(found, key=lambda all_: (-len(all_), all_[0].board.attack_id)) for found in clean.values()]
    return {(one.board.dataset_id, one.checkpoint): one.counts for all_ in chosen for one in all_}


def _board(entries: Sequence[Sequence[Judged]], beside: _Beside) -> Board:
    board = entries[0][0].board
    rows = [_row(seeds, beside) for seeds in entries]
    ranked = [replace(row, rank=1 + sum(other.robust.accuracy > row.robust.accuracy for other in rows)) for row in rows]
    return replace(board, rows=tuple(ranked))


def _row(seeds: Sequence[Judged], beside: _Beside) -> Row:
    names = seeds[0].board.class_names
    method, variant, model, recipe_id, preset, selection = seeds[0].entry
    places = [(one.board.dataset_id, one.checkpoint) for one in seeds]
    at_rest = [beside.unattacked[place] for place in places if place in beside.unattacked]
    checks, failed = _checks(seeds, beside.verdicts)
    return Row(
        rank=0,
        method=method,
        variant=variant,
        preset=preset,
        model=model,
        selection=selection,
        recipe_id=recipe_id,
        checkpoints=tuple(one.checkpoint for one in seeds),
        robust=_score([one.counts for one in seeds], names),
        clean=_score(at_rest, names) if len(at_rest) == len(seeds) else None,
        best_known=_best_known([beside.known.get(one.threat) for one in seeds], names),
        checks=checks,
        failed_checks=failed,
    )


def _best_known(found: Sequence[ClassCounts | None], names: Sequence[str]) -> BestKnown | None:
    counts = [one for one in found if one is not None and one.attacks > 1]
    if len(counts) < len(found):
        return None
    return BestKnown(_score(counts, names), min(one.attacks for one in counts))


def _checks(seeds: Sequence[Judged], found: Mapping[Threat, Mapping[str, str]]) -> tuple[str, tuple[str, ...]]:
    """The worst verdict of all checkpoints of a row, and the checks that fail."""
    places = [(one.threat, (one.checkpoint, one.board.dataset_id, "none", "0")) for one in seeds]
    of_each = [[item for threat in threats for item in found.get(threat, {}).items()] for threats in places]
    failed = tuple(sorted({name for said in of_each for name, word in said if word == "fail"}))
    if failed:
        return "fail", failed
    if any(word == "warn" for said in of_each for _, word in said):
        return "warn", ()
    return ("pass" if all(any(word == "pass" for _, word in said) for said in of_each) else NOT_RUN), ()


def _score(counts: Sequence[ClassCounts], names: Sequence[str]) -> Score:
    accuracies = [sum(one.correct) / sum(one.n) for one in counts]
    by_class = [metrics.ratios(one.correct, one.n) for one in counts]
    means = tuple(_mean([value for value in column if not math.isnan(value)]) for column in zip(*by_class, strict=True))
    voted, votes = metrics.worst_by_vote(by_class)
    nsds = [nsd for vector in by_class if not math.isnan(nsd := metrics.nsd(vector))]
    return Score(
        accuracy=math.fsum(accuracies) / len(accuracies),
        accuracy_std=_spread(accuracies),
        worst_accuracy=math.fsum(metrics.worst_accuracy(vector) for vector in by_class) / len(by_class),
        worst_class=names[voted],
        worst_seeds=votes,
        nsd=_mean(nsds),
        nsd_std=_spread(nsds),
        class_accuracy=means,
        calibration=_calibration([one.calibration for one in counts]),
    )


def _calibration(found: Sequence[Calibration | None]) -> Calibration | None:
    seeds = [one for one in found if one is not None]
    if len(seeds) < len(found):
        return None
    errors = [one.error_confidence for one in seeds if one.error_confidence is not None]
    moved = [one.divergence for one in seeds if one.divergence is not None]
    return Calibration(
        mean_confidence=math.fsum(one.mean_confidence for one in seeds) / len(seeds),
        ece=math.fsum(one.ece for one in seeds) / len(seeds),
        ece_mass=math.fsum(one.ece_mass for one in seeds) / len(seeds),
        error_confidence=_mean(errors),
        divergence=_mean(moved) if len(moved) == len(seeds) else None,
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(float(value) for value in values) / len(values) if values else None


def _spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for less than two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _sorted(board: Board, sort: str) -> Board:
    key = SORTS[sort]
    return replace(board, rows=tuple(sorted(board.rows, key=lambda row: (key(row), row.entry))))


def _order(board: Board) -> tuple[object, ...]:
    """Boards of the same samples and budget stay together, the strongest attack first."""
    mean = math.fsum(row.robust.accuracy for row in board.rows) / len(board.rows)
    return (
        board.dataset,
        board.split,
        board.subset,
        board.dataset_id,
        board.norm,
        board.eps,
        board.eps_exact,
        board.attack != STRONGEST,
        mean,
        board.attack,
        board.attack_id,
    )
