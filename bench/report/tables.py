"""A table as a value: headings and cells, before any format is chosen; `bench.report.formats` writes it.

The terminal, Markdown and the page are three spellings of the same cells, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

MISSING = "–"  # noqa: RUF001 - the dash that tables use for no value
"""What a table shows where there is no figure."""


@dataclass(frozen=True)
class Heading:
    """The head of a column.

    Attributes:
        title: what the table shows.
        meaning: one sentence for a reader who has never seen the table; "" where the title says it.
        better: which figure is the better one, None where neither is.
        numeric: whether the column holds figures, which stand to the right.
    """

    title: str
    meaning: str = ""
    better: Literal["high", "low"] | None = None
    numeric: bool = True


@dataclass(frozen=True)
class Datum:
    """What one cell of a table shows, and the value behind it, by which the page sorts; None where there is none."""

    text: str
    value: float | str | None


@dataclass(frozen=True)
class Table:
    """Headings and cells under a title.

    Attributes:
        title: what the table is about; "" where the place says it.
        headings: (columns,).
        rows: (rows, columns).
        note: what else a reader needs to know, in one line; "" for nothing.
        doubtful: the rows that fail a soundness check; their names have a sign, and the note names the checks.
    """

    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Datum, ...], ...]
    note: str = ""
    doubtful: frozenset[int] = frozenset()

    @property
    def titles(self) -> tuple[str, ...]:
        """(columns,) what the headings show."""
        return tuple(heading.title for heading in self.headings)

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """(rows, columns) what the cells show."""
        return [tuple(datum.text for datum in row) for row in self.rows]

    def is_best(self, row: int, column: int) -> bool:
        """Whether this cell shows the best of several different figures of its column."""
        better = self.headings[column].better
        values = [cells[column].value for cells in self.rows]
        figures = [value for value in values if isinstance(value, float)]
        if better is None or len(set(figures)) < 2:
            return False
        return values[row] == (max(figures) if better == "high" else min(figures))


def text_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str] = (), note: str = ""
) -> Table:
    """A table of texts: the first column is a name, the others are figures but for those whose head is in `words`."""
    headings = tuple(Heading(head, numeric=at > 0 and head not in words) for at, head in enumerate(header))
    return Table(title, headings, tuple(tuple(Datum(text, text) for text in row) for row in rows), note)


def named(name: str) -> Datum:
    """A cell that shows a name."""
    return Datum(name, name)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in percent, with fixed decimals and without the sign."""
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def plain(value: float | None) -> str:
    """A plain figure such as an NSD, with three decimals."""
    return MISSING if value is None else f"{value:.3f}"
