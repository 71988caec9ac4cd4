"""The leaderboard in every format: terminal, Markdown, CSV, JSON and a static page.

    boards(store) -> [Board, ...]  ->  render(boards, "md")

The same database gives the same bytes: no dates, no paths, fixed decimals, fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from bench.errors import UnknownName
from bench.report.boards import SORTS, Board, Queryable, Row, Score, arenas, boards
from bench.report.boards.columns import IN_CSV, IN_JSON, rounded
from bench.report.boards.layout import board_table, calibration_table, class_table, overview_table
from bench.report.formats import csv_text, framed, inline, json_text, markdown

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["FORMATS", "SORTS", "Board", "Queryable", "Row", "Score", "boards", "calibration", "render"]

FORMATS = ("table", "md", "csv", "json", "html")
"""What `render` can write; `table` is for the terminal."""

TextFormat = Literal["md", "csv", "json", "html"]
_MOST_CLASSES_IN_TEXT = 20
_READING = (
    "Figures are percent of samples classified correctly, clean or attacked; ± is the standard deviation over "
    "training seeds. Worst class is the accuracy of the class that fares worst. NSD is the standard deviation of "
    "the class accuracies over their mean: lower is fairer. Only figures in one table compare: same samples, same "
    "attack, same budget eps."
)


@overload
def render(boards: Sequence[Board], format: Literal["table"], *, figures: Sequence[str] = ()) -> RenderableType: ...
@overload
def render(boards: Sequence[Board], format: TextFormat, *, figures: Sequence[str] = ()) -> str: ...
@overload
def render(boards: Sequence[Board], format: str, *, figures: Sequence[str] = ()) -> RenderableType: ...
def render(boards: Sequence[Board], format: str, *, figures: Sequence[str] = ()) -> RenderableType:
    r"""Boards in one of `FORMATS`.

    Args:
        boards: what to show, as `boards` returned it.
        format: `table` gives something that a `rich` console prints, all others a text with `\n` line ends.
        figures: relative addresses of pictures, for `md` and `html`.

    Raises:
        UnknownName: no such format.
    """
    match format:
        case "table":
            return _terminal(boards)
        case "md":
            return _markdown(boards, figures)
        case "csv":
            return _csv(boards)
        case "json":
            return _json(boards)
        case "html":
            from bench.report.page import page

            return page(boards, figures)
    raise UnknownName.among("format", format, FORMATS)


def calibration(boards: Sequence[Board]) -> RenderableType:
    """Whether the confidences can be believed, a table per board for the terminal; other formats hold it anyway."""
    return _stacked([framed(calibration_table(board)) for board in boards])


def _terminal(boards: Sequence[Board]) -> RenderableType:
    """Each arena's boards, then its overview, so that the whole picture ends next to the prompt."""
    tables: list[RenderableType] = []
    for arena in arenas(boards):
        tables += [framed(board_table(board, brief=True)) for board in arena]
        overview = overview_table(arena, brief=True)
        if overview is not None:
            tables.append(framed(overview))
    return _stacked(tables)


def _stacked(tables: Sequence[RenderableType]) -> RenderableType:
    from rich.console import Group

    return Group(*[part for table in tables for part in (table, "")][:-1])


def _markdown(boards: Sequence[Board], figures: Sequence[str]) -> str:
    from bench.report.page import picture

    parts = ["# Leaderboard", _READING]
    for arena in arenas(boards):
        parts.append(f"## {inline(arena[0].data)}: {inline(arena[0].threat)}")
        overview = overview_table(arena)
        if overview is not None:
            parts += ["### All attacks", markdown(overview), f"{inline(overview.note)}."]
        for number, board in enumerate(arena):
            table = board_table(board)
            parts += [f"### {inline(board.attack)}", markdown(table), f"{inline(table.note)}."]
            if number == 0 and len(board.class_names) <= _MOST_CLASSES_IN_TEXT:
                classes = class_table(board)
                parts += [f"{inline(board.attack)}, class by class, in percent:", markdown(classes)]
    if figures:
        parts.append("## Figures")
        for address in figures:
            shown = picture(address)
            parts.append(f"![{inline(shown.caption)}]({shown.address})")
    return "\n\n".join(parts) + "\n"


def _csv(boards: Sequence[Board]) -> str:
    records = [
        {**_board_facts(board), **{column.key: column.exported(row) for column in IN_JSON}}
        for board in boards
        for row in board.rows
    ]
    header = (*_FIRST_IN_CSV, *(column.key for column in IN_CSV), *_LAST_IN_CSV)
    return csv_text(header, [[_field(record[name]) for name in header] for record in records])


def _field(fact: object) -> object:
    return " ".join(fact) if isinstance(fact, tuple) else fact


def _json(boards: Sequence[Board]) -> str:
    listing = [
        {
            **_board_facts(board),
            "class_names": board.class_names,
            "rows": [
                {
                    **{column.key: column.exported(row) for column in IN_JSON},
                    "checkpoints": row.checkpoints,
                    "class_accuracy": _by_class(row.robust),
                    "clean_class_accuracy": _by_class(row.clean) if row.clean else None,
                }
                for row in board.rows
            ],
        }
        for board in boards
    ]
    return json_text(listing)


def _by_class(score: Score) -> list[float | None]:
    return [rounded(value) for value in score.class_accuracy]


_FIRST_IN_CSV = ("dataset", "split", "subset", "norm", "eps", "attack", "samples")
_LAST_IN_CSV = ("dataset_id", "attack_id", "recipe_id")


def _board_facts(board: Board) -> dict[str, Any]:
    return {
        "dataset": board.dataset,
        "split": board.split,
        "subset": board.subset,
        "dataset_id": board.dataset_id,
        "samples": board.samples,
        "norm": board.norm,
        "eps": board.eps_exact,
        "attack": board.attack,
        "attack_id": board.attack_id,
    }
