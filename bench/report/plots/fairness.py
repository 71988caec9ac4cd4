"""Robust on average, and fair? Mean robust accuracy against NSD, with the entries that no other beats on both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.report.boards import Row, tell_apart
from bench.report.plots.labels import Box, Segment, place
from bench.report.plots.style import BLUE, INK, SKY, SOFT, VERMILION, head, new_figure, shorten, under
from bench.report.tables import percent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from bench.report.boards import Board, Queryable

_TRIES = 5
_GROWTH = 1.25


def draw_fairness(store: Queryable, board: Board) -> Figure | None:
    """A point per entry: NSD to the right, mean robust accuracy upwards, so that the upper left is better.

    Entries below chance, whose NSD says nothing, are named below the title; drawn, they would squeeze all others into
    a corner.
    """
    drawable = [index for index, row in enumerate(board.rows) if row.robust.nsd is not None]
    shown = [index for index in drawable if board.rows[index].robust.accuracy >= board.chance] or drawable
    if not shown:
        return None
    names = [shorten(name, 40) for name in tell_apart(board.rows)]
    rows = [board.rows[index] for index in shown]
    left_out = [
        f"{names[index]} ({percent(row.robust.accuracy)} %, NSD {plain(row.robust.nsd)})"
        for index, row in enumerate(board.rows)
        if index not in shown
    ]
    size = 1.0
    for _ in range(_TRIES):
        figure = _draw(board, rows, [names[index] for index in shown], left_out, size)
        if figure is not None:
            return figure
        size *= _GROWTH
    return _draw(board, rows, [str(row.rank) for row in rows], [*left_out, "numbers are ranks"], size)


def pareto(rows: Sequence[Row]) -> list[int]:
    """Indices of the rows that no other row beats in accuracy or NSD without losing in the other, by rising NSD."""
    marks = [(row.robust.accuracy, row.robust.nsd) for row in rows]
    front = [
        index
        for index, (accuracy, nsd) in enumerate(marks)
        if nsd is not None
        and not any(a >= accuracy and n is not None and n <= nsd and (a > accuracy or n < nsd) for a, n in marks)
    ]
    return sorted(front, key=lambda index: (marks[index][1] or 0.0, marks[index][0], index))


def _draw(
    board: Board, rows: Sequence[Row], names: Sequence[str], left_out: Sequence[str], size: float
) -> Figure | None:
    """The figure at this size; None where the names find no room."""
    figure = new_figure(7.0 * size, 5.2 * size)
    axes = figure.add_subplot()
    x = [row.robust.nsd or 0.0 for row in rows]
    y = [100 * row.robust.accuracy for row in rows]
    front = pareto(rows)
    bars: list[Segment] = []
    for index, row in enumerate(rows):
        wide, high = row.robust.nsd_std or 0.0, 100 * (row.robust.accuracy_std or 0.0)
        bars.append(((x[index] - wide, y[index]), (x[index] + wide, y[index])))
        bars.append(((x[index], y[index] - high), (x[index], y[index] + high)))
    for (left, bottom), (right, top) in bars:
        axes.plot([left, right], [bottom, top], color=SKY, linewidth=0.8, zorder=2)
    behind = [index for index in range(len(rows)) if index not in front]
    axes.scatter([x[i] for i in behind], [y[i] for i in behind], s=42, color="white", edgecolor=BLUE, zorder=4)
    axes.scatter([x[i] for i in front], [y[i] for i in front], s=42, color=BLUE, edgecolor=BLUE, zorder=4)
    axes.set_xlim(*_limits([end[0] for bar in bars for end in bar], least=0.02))
    axes.set_ylim(*_limits([end[1] for bar in bars for end in bar], least=4.0))
    stairs = _stairs([(x[index], y[index]) for index in front], axes.get_ylim()[0], axes.get_xlim()[1])
    axes.plot(*zip(*stairs, strict=True), color=VERMILION, linewidth=1.2, zorder=3)
    axes.set_xlabel("NSD of the class accuracies (lower is fairer)")
    axes.set_ylabel(("clean" if board.is_clean else "robust") + " accuracy in %")
    notes = ["line and filled points: Pareto front, where no other entry is as good in both and better in one"]
    if any(row.seeds > 1 for row in rows):
        notes.append("thin bars: ± one standard deviation over seeds")
    if left_out:
        notes.append(f"not shown, below chance: {', '.join(left_out)}")
    head(figure, "Accuracy against fairness: better is up and to the left", under(board), *notes)
    return figure if _label(figure, axes, list(zip(x, y, strict=True)), names, [*pairwise(stairs), *bars]) else None


def _limits(values: Sequence[float], least: float) -> tuple[float, float]:
    """Ends of an axis, at least `least` apart, with room for names; below 0 only as far as a marker needs."""
    low, high = min(values), max(values)
    spare = 0.16 * (high - low) + max(0.0, least - (high - low)) / 2
    return max(low - spare, -0.04 * (high + spare)), high + spare


def _stairs(front: Sequence[tuple[float, float]], bottom: float, right: float) -> list[tuple[float, float]]:
    """The border of what the front beats, from the lower to the right end of the axes."""
    line = [(front[0][0], bottom), front[0]]
    for point in front[1:]:
        line += [(point[0], line[-1][1]), point]
    return [*line, (right, front[-1][1])]


def _label(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    lines: Sequence[Segment],
) -> bool:
    """Write the names beside the points; False where there is no room."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    texts = [_write(axes, name) for name in names]
    scale = figure.dpi / 72
    bounds = axes.get_window_extent()
    frame = Box(bounds.x0, bounds.y0, bounds.x1, bounds.y1).grown(-3 * scale)
    extents = [text.get_window_extent() for text in texts]
    pixels = [_pixel(axes, point) for point in points]
    segments = [(_pixel(axes, start), _pixel(axes, end)) for start, end in lines if start != end]
    found = place(
        pixels,
        [(extent.width + 2 * scale, extent.height + scale) for extent in extents],
        frame,
        lines=segments,
        radius=4.5 * scale,
        scale=scale,
    )
    if found is None:
        return False
    back = axes.transData.inverted()
    for text, spot in zip(texts, found, strict=True):
        centre = ((spot.box.left + spot.box.right) / 2, (spot.box.bottom + spot.box.top) / 2)
        x, y = back.transform(centre)
        text.set_position((x, y))
        if spot.leader:
            (x, y), (x_end, y_end) = back.transform(spot.leader)
            axes.plot([x, x_end], [y, y_end], color=SOFT, linewidth=0.6, zorder=1)
    return True


def _pixel(axes: Axes, point: tuple[float, float]) -> tuple[float, float]:
    x, y = axes.transData.transform(point)
    return float(x), float(y)


def _write(axes: Axes, name: str) -> Text:
    from matplotlib.patheffects import withStroke

    x, y = axes.get_xlim()[0], axes.get_ylim()[0]
    halo = withStroke(linewidth=2, foreground="white")
    return axes.text(x, y, name, ha="center", va="center", size=8.5, color=INK, zorder=5, path_effects=[halo])
