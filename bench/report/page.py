"""The leaderboard as one static page that needs nothing else: no server, no script, no network.

The script in it only adds sorting by a click on a heading; without it the page reads the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, urlsplit

from bench.errors import visible
from bench.report.boards import Board, arenas
from bench.report.boards.columns import EXPLAINED
from bench.report.boards.layout import board_table, class_table, overview_table
from bench.report.contrast import wants_black
from bench.report.tables import Table

_CAPTIONS = {
    "heatmap": "Robust accuracy of every class under every method",
    "fairness": "Mean robust accuracy against NSD; upper left is better on both counts",
    "bars": "Clean and robust accuracy of every class, method by method",
    "curves": "Accuracy during training",
}
_CIVIDIS = (
    *((0, 34, 78), (26, 56, 111), (67, 78, 108), (95, 100, 111), (125, 124, 120)),
    *((155, 148, 118), (188, 175, 111), (222, 203, 92), (254, 232, 56)),
)
"""Nine evenly spaced colours of the map `cividis`, which reads alike with and without colour vision."""


@dataclass(frozen=True)
class Picture:
    """A picture beside the page."""

    address: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One board on the page."""

    anchor: str
    name: str
    table: Table
    classes: Table
    heat: tuple[float, float]


@dataclass(frozen=True)
class Chapter:
    """All boards of the same samples and budget."""

    anchor: str
    title: str
    overview: Table | None
    sections: tuple[Section, ...]


def page(boards: Sequence[Board], figures: Sequence[str] = ()) -> str:
    """The page as HTML.

    Args:
        boards: what to show.
        figures: addresses of pictures relative to the page.

    Raises:
        ValueError: an address is absolute.
    """
    from importlib import resources

    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.globals.update(colour=colour)
    source = (resources.files("bench.report") / "leaderboard.html.j2").read_text(encoding="utf-8")
    return (
        environment.from_string(source).render(
            chapters=_chapters(boards),
            pictures=[picture(address) for address in figures],
            meanings=[(heading.title, heading.meaning) for heading in EXPLAINED],
        )
        + "\n"
    )


def picture(address: str) -> Picture:
    """The picture at a relative address, with a caption after its kind.

    Raises:
        ValueError: the address is absolute, so that it would hold on one machine only.
    """
    if urlsplit(address).scheme or PurePosixPath(address).is_absolute():
        raise ValueError(f"a figure's address must be relative to the page, not {address!r}")
    stem = PurePosixPath(address).stem
    kind, _, rest = stem.partition("-")
    caption = f"{_CAPTIONS[kind]}: {rest}" if kind in _CAPTIONS and rest else _CAPTIONS.get(kind, stem)
    return Picture(quote(address), caption)


def colour(accuracy: float, ends: tuple[float, float]) -> str:
    """Style of a cell by its accuracy on a scale with these ends: a background, and the ink that reads best on it."""
    low, high = ends
    place = min(max((accuracy - low) / (high - low), 0.0), 1.0) * (len(_CIVIDIS) - 1)
    below = min(int(place), len(_CIVIDIS) - 2)
    red, green, blue = (
        round(first + (second - first) * (place - below))
        for first, second in zip(_CIVIDIS[below], _CIVIDIS[below + 1], strict=True)
    )
    ink = "#000" if wants_black(red / 255, green / 255, blue / 255) else "#fff"
    return f"background:#{red:02x}{green:02x}{blue:02x};color:{ink}"


def _shown(value: object) -> object:
    """What the page writes for a value: a name's control signs and marks of direction are shown, not obeyed."""
    return visible(value) if type(value) is str else value  # what is markup already stays


def _chapters(boards: Sequence[Board]) -> list[Chapter]:
    return [
        Chapter(
            anchor=f"c{number}",
            title=f"{arena[0].data}: {arena[0].threat}",
            overview=overview_table(arena),
            sections=tuple(
                Section(f"c{number}-{place}", board.attack, board_table(board), class_table(board), board.heat())
                for place, board in enumerate(arena, start=1)
            ),
        )
        for number, arena in enumerate(arenas(boards), start=1)
    ]
