"""The leaderboard in every format: terminal, Markdown, CSV, JSON and a static page.

    boards(store) -> [Board, ...]  ->  render(boards, "md")

The same database gives the same bytes: no dates, no paths, fixed decimals, fixed order.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from bench.errors import UnknownName
from bench.report.boards import SORTS, Board, Queryable, Row, Score, arenas, boards
from bench.report.tables import Table, board_table, calibration_table, class_table, overview_table

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["FORMATS", "SORTS", "Board", "Queryable", "Row", "Score", "boards", "calibration", "render"]

FORMATS = ("table", "md", "csv", "json", "html")
"""What `render` can write; `table` is for the terminal."""

TextFormat = Literal["md", "csv", "json", "html"]
_DECIMALS = 6
_MOST_CLASSES_IN_TEXT = 20
_SIGNS = re.compile(r"[\\|*`]|(?<=\])\(|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown would take as a sign: no brackets but those of a link, no underscore but at the edge of a word."""
_FOLD = re.compile(r"(?<=\w)(-)|(?<=\w) ")
"""Where a heading is broken in the terminal if it is wider than the figures below."""
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
    return _stacked([_rich(calibration_table(board)) for board in boards])


def _terminal(boards: Sequence[Board]) -> RenderableType:
    """Each arena's boards, then its overview, so that the whole picture ends next to the prompt."""
    tables: list[RenderableType] = []
    for arena in arenas(boards):
        tables += [_rich(board_table(board, brief=True)) for board in arena]
        overview = overview_table(arena, brief=True)
        if overview is not None:
            tables.append(_rich(overview))
    return _stacked(tables)


def _stacked(tables: Sequence[RenderableType]) -> RenderableType:
    from rich.console import Group

    return Group(*[part for table in tables for part in (table, "")][:-1])


def _rich(table: Table) -> RenderableType:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    # Names are wrapped in Text: as plain strings their brackets would be read as markup.
    grid = Grid(
        title=Text(table.title, style="bold"),
        caption=Text(table.note, style="dim"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for at, heading in enumerate(table.headings):
        wide = heading.numeric and len(heading.title) > max((len(cells[at].text) for cells in table.rows), default=0)
        # Figures are never cut; where the width is short, names are folded.
        grid.add_column(
            Text(_FOLD.sub(r"\1\n", heading.title) if wide else heading.title),
            justify="right" if heading.numeric else "left",
            no_wrap=heading.numeric,
            overflow="fold",
            min_width=None if heading.numeric else 10,
        )
    for number, cells in enumerate(table.rows):
        grid.add_row(
            *(Text(cell.text, style="bold" if table.is_best(number, at) else "") for at, cell in enumerate(cells))
        )
    return grid


def _markdown(boards: Sequence[Board], figures: Sequence[str]) -> str:
    from bench.report.page import picture

    parts = ["# Leaderboard", _READING]
    for arena in arenas(boards):
        parts.append(f"## {_inline(arena[0].data)}: {_inline(arena[0].threat)}")
        overview = overview_table(arena)
        if overview is not None:
            parts += ["### All attacks", _grid(overview), f"{_inline(overview.note)}."]
        for number, board in enumerate(arena):
            table = board_table(board)
            parts += [f"### {_inline(board.attack)}", _grid(table), f"{_inline(table.note)}."]
            if number == 0 and len(board.class_names) <= _MOST_CLASSES_IN_TEXT:
                classes = class_table(board)
                parts += [f"{_inline(board.attack)}, class by class, in percent:", _grid(classes)]
    if figures:
        parts.append("## Figures")
        for address in figures:
            shown = picture(address)
            parts.append(f"![{_inline(shown.caption)}]({shown.address})")
    return "\n\n".join(parts) + "\n"


def _grid(table: Table) -> str:
    """A Markdown table whose columns line up in plain text too."""
    cells = [[_inline(heading.title) for heading in table.headings]]
    cells += [[_inline(cell.text) for cell in row] for row in table.rows]
    widths = [max(3, *(_width(row[column]) for row in cells)) for column in range(len(table.headings))]
    rule = [
        "-" * (width - 1) + ":" if heading.numeric else "-" * width
        for width, heading in zip(widths, table.headings, strict=True)
    ]
    lines = [
        [
            " " * (width - _width(text)) + text if heading.numeric else text + " " * (width - _width(text))
            for text, width, heading in zip(row, widths, table.headings, strict=True)
        ]
        for row in cells
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _inline(text: str) -> str:
    """Text that Markdown shows as it is, in a cell or a heading, and that stays readable unrendered."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return _SIGNS.sub(r"\\\g<0>", flat)


def _width(text: str) -> int:
    """Columns that the text takes in a monospaced font."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _csv(boards: Sequence[Board]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    records = [{**_board_facts(board), **_row_facts(row)} for board in boards for row in board.rows]
    writer.writerow(_CSV_COLUMNS)
    for record in records:
        record["failed_checks"] = " ".join(record["failed_checks"])
        writer.writerow(["" if record[column] is None else record[column] for column in _CSV_COLUMNS])
    return out.getvalue()


def _json(boards: Sequence[Board]) -> str:
    listing = [
        {
            **_board_facts(board),
            "class_names": list(board.class_names),
            "rows": [
                {
                    **_row_facts(row),
                    "checkpoints": list(row.checkpoints),
                    "class_accuracy": [_rounded(value) for value in row.robust.class_accuracy],
                    "clean_class_accuracy": [_rounded(value) for value in row.clean.class_accuracy]
                    if row.clean
                    else None,
                }
                for row in board.rows
            ],
        }
        for board in boards
    ]
    return json.dumps(listing, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_CSV_COLUMNS = (
    *("dataset", "split", "subset", "norm", "eps", "attack", "samples"),
    *("rank", "method", "variant", "preset", "model", "selection", "seeds"),
    *("clean_accuracy", "clean_accuracy_std", "accuracy", "accuracy_std"),
    *("worst_class", "worst_seeds", "worst_accuracy", "nsd", "nsd_std"),
    *("clean_worst_class", "clean_worst_accuracy", "clean_nsd"),
    *("mean_confidence", "ece", "ece_mass", "error_confidence", "divergence", "clean_ece"),
    *("best_known_accuracy", "best_known_attacks", "checks", "failed_checks"),
    *("dataset_id", "attack_id", "recipe_id"),
)


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


def _row_facts(row: Row) -> dict[str, Any]:
    robust, clean, known = row.robust, row.clean, row.best_known
    confidence, at_rest = robust.calibration, clean.calibration if clean else None
    return {
        "rank": row.rank,
        "method": row.method,
        "variant": row.variant,
        "preset": row.preset,
        "model": row.model,
        "selection": row.selection,
        "recipe_id": row.recipe_id,
        "seeds": row.seeds,
        "accuracy": _rounded(robust.accuracy),
        "accuracy_std": _rounded(robust.accuracy_std),
        "worst_class": robust.worst_class,
        "worst_seeds": robust.worst_seeds,
        "worst_accuracy": _rounded(robust.worst_accuracy),
        "nsd": _rounded(robust.nsd),
        "nsd_std": _rounded(robust.nsd_std),
        "clean_accuracy": _rounded(clean.accuracy if clean else None),
        "clean_accuracy_std": _rounded(clean.accuracy_std if clean else None),
        "clean_worst_class": clean.worst_class if clean else None,
        "clean_worst_accuracy": _rounded(clean.worst_accuracy if clean else None),
        "clean_nsd": _rounded(clean.nsd if clean else None),
        "mean_confidence": _rounded(confidence.mean_confidence if confidence else None),
        "ece": _rounded(confidence.ece if confidence else None),
        "ece_mass": _rounded(confidence.ece_mass if confidence else None),
        "error_confidence": _rounded(confidence.error_confidence if confidence else None),
        "divergence": _rounded(confidence.divergence if confidence else None),
        "clean_ece": _rounded(at_rest.ece if at_rest else None),
        "best_known_accuracy": _rounded(known.score.accuracy if known else None),
        "best_known_attacks": known.attacks if known else None,
        "checks": row.checks,
        "failed_checks": list(row.failed_checks),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)
