"""How tables are written: for the terminal, as Markdown, as CSV, as JSON. The page has a template of its own."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import visible
from bench.report.tables import Table

if TYPE_CHECKING:
    from rich.table import Table as Grid

_SIGNS = re.compile(r"[\\|*`]|(?<=\])\(|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown would take as a sign: no brackets but those of a link, no underscore but at the edge of a word."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula."""
_FOLD = re.compile(r"(?<=\w)(-)|(?<=\w) ")
"""Where a heading is broken in the terminal if it is wider than the figures below."""


def framed(table: Table) -> Grid:
    """For the terminal: a table that stands alone, with rules and its note, the best figures bold."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    # Names are wrapped in Text: as plain strings their brackets would be read as markup.
    grid = Grid(
        title=Text(visible(table.title), style="bold"),
        caption=Text(visible(table.note), style="dim"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for at, heading in enumerate(table.headings):
        title = visible(heading.title)
        wide = heading.numeric and len(title) > max((len(row[at]) for row in table.texts), default=0)
        # Figures are never cut; where the width is short, names are folded.
        grid.add_column(
            Text(_FOLD.sub(r"\1\n", title) if wide else title),
            justify="right" if heading.numeric else "left",
            no_wrap=heading.numeric,
            overflow="fold",
            min_width=None if heading.numeric else 10,
        )
    for number, row in enumerate(table.texts):
        grid.add_row(
            *(Text(visible(text), style="bold" if table.is_best(number, at) else "") for at, text in enumerate(row))
        )
    return grid


def bare(table: Table) -> Grid:
    """For the terminal: a table between lines of text, without rules."""
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(
        title=Text(visible(table.title)) if table.title else None, title_justify="left", box=None, padding=(0, 1)
    )
    for heading in table.headings:
        grid.add_column(Text(visible(heading.title)), justify="right" if heading.numeric else "left")
    for row in table.texts:
        grid.add_row(*(Text(visible(text)) for text in row))
    return grid


def markdown(table: Table) -> str:
    """A Markdown table whose columns line up in plain text too; title and note are left to the text around it."""
    cells = [[inline(text) for text in row] for row in (table.titles, *table.texts)]
    widths = [max(3, *map(_width, column)) for column in zip(*cells, strict=True)]
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


def inline(text: str) -> str:
    """Text that Markdown shows as it is, in a cell or a heading, and that stays readable unrendered."""
    flat = visible(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    return _SIGNS.sub(r"\\\g<0>", flat)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""CSV with a line of column names and `\n` line ends; None is an empty field.

    A text that a spreadsheet would take for a formula has a `'` before it, as spreadsheets write it themselves.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(fact) if isinstance(fact, str) else fact for fact in row] for row in rows)
    return out.getvalue()


def json_text(facts: Any) -> str:
    """JSON as every verb writes it: indented, letters of all scripts as they are, a line end.

    Raises:
        ValueError: a number is none, which JSON cannot say.
    """
    return escaped(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def escaped(text: str) -> str:
    """JSON that says the same without signs that a terminal obeys or does not show."""
    return "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)


def lines(text: str) -> str:
    """Lines of text as a terminal may have them: what it would obey is escaped, but for the ends of lines."""
    return "\n".join(map(visible, text.split("\n")))


def _cell(text: str) -> str:
    return "'" + visible(text) if text.startswith(_FORMULA) else visible(text)


def _width(text: str) -> int:
    """Columns that the text takes in a monospaced font."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
