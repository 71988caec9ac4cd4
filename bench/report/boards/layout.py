"""The tables that boards are shown as: which columns each has, who is in its rows, and the note below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.report.boards.columns import (
    ACCURACY,
    BEST_KNOWN,
    CALIBRATION,
    CLEAN_ACCURACY,
    METHOD,
    MODEL,
    NSD,
    WORST,
    columns_of,
)
from bench.report.boards.values import DOUBTFUL, Board, Row, Score, Trait, tell_apart
from bench.report.tables import MISSING, Datum, Heading, Table, named, percent

_BESIDE: tuple[Trait, ...] = ("model", "selection")
"""What a wide table shows of a row beside its name."""
_NOTHING = Datum(MISSING, None)


def board_table(board: Board, *, brief: bool = False) -> Table:
    """One board, a row per entry.

    Args:
        board: what to show.
        brief: for a narrow place: only the columns that are everywhere, and the model beside the name where it differs.
    """
    columns = columns_of(unattacked=board.is_clean, brief=brief)
    names = tell_apart(board.rows, shown=() if brief else _BESIDE)
    rows = tuple(
        tuple(named(name) if column is METHOD else column.datum(row) for column, _ in columns)
        for row, name in zip(board.rows, names, strict=True)
    )
    note = (
        f"{board.samples} samples, {len(board.class_names)} classes; "
        f"{'attack' if brief else 'attack fingerprint'} {board.attack_id}, data {board.dataset_id}"
        + (_common_model(board.rows) if brief else "")
        + _doubts(board.rows, names)
    )
    return Table(title_of(board), tuple(heading for _, heading in columns), rows, note, _doubtful(board.rows))


def title_of(board: Board) -> str:
    """A board in words: `autoattack, Linf eps 8/255, on cifar10 test`."""
    return f"{board.attack}, {board.threat}, on {board.data}"


def overview_table(boards: Sequence[Board], *, brief: bool = False) -> Table | None:
    """All attacks on the same samples within the same budget, side by side: one fingerprint per column.

    Args:
        boards: boards of one arena, the strongest first; see `bench.report.boards.arenas`.
        brief: for a narrow place: the model beside the name, where it differs.

    Returns:
        A row per entry, in the order of the strongest board; None where one board says it all.
    """
    if len(boards) < 2:
        return None
    strongest = boards[0]
    under = [{row.entry: row for row in board.rows} for board in boards]
    entries = {entry: row for board in reversed(under) for entry, row in board.items()}
    order = [row.entry for row in strongest.rows]
    order += sorted(entry for entry in entries if entry not in under[0])
    listed = [entries[entry] for entry in order]
    names = tell_apart(listed, shown=() if brief else _BESIDE)
    known = [row.best_known for row in listed if row.best_known]
    over = [one.attacks for one in known] if len(known) == len(listed) else []
    rows = tuple(
        (
            named(name),
            *(() if brief else (MODEL.datum(row),)),
            _accuracy(row.clean),
            *(_accuracy(board[row.entry].robust if row.entry in board else None) for board in reversed(under)),
            *((BEST_KNOWN.datum(row),) if over else ()),
            *_fairness(under[0].get(row.entry), brief=brief),
        )
        for row, name in zip(listed, names, strict=True)
    )
    attacks = [
        Heading(name, f"Percent classified correctly under the attack {name}.", "high")
        for name in reversed(_attack_names(boards))
    ]
    headings = (
        *((METHOD.head,) if brief else (METHOD.head, MODEL.head)),
        *(CLEAN_ACCURACY.head, *attacks),
        *((BEST_KNOWN.head,) if over else ()),
        *(replace(WORST.head, title="worst") if brief else WORST.head, NSD.head),
    )
    note = (
        f"percent of {strongest.samples} samples; worst class and NSD under {strongest.attack}; lower NSD is fairer"
        + (f"; best known: over {_span(over)} attacks" if over else "")
        + (_common_model(listed) if brief else "")
        + _doubts(listed, names)
    )
    return Table(f"all attacks, {strongest.threat}, on {strongest.data}", headings, rows, note, _doubtful(listed))


def class_table(board: Board) -> Table:
    """One board class by class: a row per entry, a column per class, accuracy in percent."""
    names = tell_apart(board.rows)
    rows = tuple(
        (named(name), *(Datum(percent(value, 0), value) for value in row.robust.class_accuracy))
        for row, name in zip(board.rows, names, strict=True)
    )
    under = "unattacked" if board.is_clean else f"under {board.attack}"
    note = (
        f"percent of each class's samples classified correctly {under}; the worst class of each row is underlined"
        + _doubts(board.rows, names)
    )
    headings = (METHOD.head, *(Heading(name, "", "high") for name in board.class_names))
    return Table(f"class by class, {title_of(board)}", headings, rows, note, _doubtful(board.rows))


def calibration_table(board: Board) -> Table:
    """Whether the confidences of each entry of a board can be believed, for a narrow place."""
    columns = sorted(CALIBRATION, key=lambda column: column.form is not percent)  # nats after percentages
    names = tell_apart(board.rows)
    rows = tuple(
        (named(name), _accuracy(row.robust), *(column.datum(row) for column in columns))
        for row, name in zip(board.rows, names, strict=True)
    )
    headings = (METHOD.head, ACCURACY.head, *(column.head for column in columns))
    note = (
        "percent, but KL in nats; ECE: expected calibration error over 15 bins of equal width, or of equal mass; on "
        "errors: mean confidence where wrong; KL: of the clean from the attacked output" + _doubts(board.rows, names)
    )
    return Table(f"calibration, {title_of(board)}", headings, rows, note, _doubtful(board.rows))


def _doubtful(rows: Sequence[Row]) -> frozenset[int]:
    return frozenset(number for number, row in enumerate(rows) if row.failed_checks)


def _doubts(rows: Sequence[Row], names: Sequence[str]) -> str:
    """What the sign after some names means: which soundness checks these rows fail."""
    failing = [
        f"{name.removesuffix(DOUBTFUL).rstrip()} ({', '.join(row.failed_checks)})"
        for row, name in zip(rows, names, strict=True)
        if row.failed_checks
    ]
    return f"; {DOUBTFUL} fails soundness checks, do not trust its figures: {', '.join(failing)}" if failing else ""


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _attack_names(boards: Sequence[Board]) -> list[str]:
    """Names of the attacks; with the fingerprint's beginning where two attacks of one name differ."""
    names = [board.attack for board in boards]
    return [
        f"{board.attack} {board.attack_id[:6]}" if names.count(board.attack) > 1 else board.attack for board in boards
    ]


def _common_model(rows: Sequence[Row]) -> str:
    """The model, where the names of the rows do not say it because it is the same in all."""
    models = sorted({row.model for row in rows})
    return f"; model {models[0]}" if len(models) == 1 else ""


def _accuracy(score: Score | None) -> Datum:
    """Accuracy without its spread, where there is no room for it."""
    return _NOTHING if score is None else Datum(percent(score.accuracy), score.accuracy)


def _fairness(row: Row | None, *, brief: bool) -> tuple[Datum, Datum]:
    if row is None:
        return _NOTHING, _NOTHING
    lowest = row.robust.worst_accuracy
    return Datum(percent(lowest), lowest) if brief else WORST.datum(row), NSD.datum(row)
