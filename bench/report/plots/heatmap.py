"""Class by method: which classes hold out under which training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.report.boards import tell_apart
from bench.report.contrast import wants_black
from bench.report.plots.style import HEAT, INK, SOFT, class_ticks, head, new_figure, shorten, under
from bench.report.tables import percent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.report.boards import Board, Queryable

_MOST_CLASSES_WITH_FIGURES = 24


def draw_heatmap(store: Queryable, board: Board) -> Figure:
    """Accuracy of every class under every method, as a map of colours; beside each row its mean and NSD."""
    names = [shorten(name, 36) for name in tell_apart(board.rows)]
    classes = len(board.class_names)
    written = classes <= _MOST_CLASSES_WITH_FIGURES
    accuracy = np.array([[np.nan if v is None else v for v in row.robust.class_accuracy] for row in board.rows])
    longest = max(len(name) for name in names)
    width = max(6.5, 2.0 + 0.075 * longest + (0.44 * classes if written else 7.0))
    figure = new_figure(width, 1.9 + 0.3 * len(names) + (0.5 if max(map(len, board.class_names)) > 2 else 0))
    margin = 2.4 if written else 0.13 * classes
    axes, side = figure.subplots(1, 2, sharey=True, width_ratios=[classes, margin])
    low, high = board.heat()
    image = axes.imshow(100 * accuracy, cmap=HEAT, vmin=100 * low, vmax=100 * high, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    class_ticks(axes, board.class_names)
    axes.set_xlabel("class")
    if written:
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(visible=True, which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0)
    if written:
        _write(axes, accuracy, low, high)
    _margin(side, board)
    bar = figure.colorbar(
        image, ax=[axes, side], orientation="horizontal", extend="min" if low > 0 else "neither", shrink=0.5, aspect=35
    )
    bar.set_label("accuracy of the class in %", size=8)
    bar.outline.set_visible(False)
    marked = "; the worst class of each row is underlined" if written else ""
    title = "Clean accuracy class by class" if board.is_clean else "Robust accuracy class by class"
    head(figure, title, under(board), f"percent of each class's samples still classified correctly{marked}")
    return figure


def _write(axes: Axes, accuracy: np.ndarray[tuple[int, int], np.dtype[np.float64]], low: float, high: float) -> None:
    """Each cell's figure, in the ink that reads best on its colour."""
    import matplotlib as mpl

    colours = mpl.colormaps[HEAT]((accuracy - low) / (high - low))[..., :3]
    for row, values in enumerate(accuracy):
        for column, value in enumerate(values):
            if np.isnan(value):
                continue
            ink = "black" if wants_black(*colours[row, column]) else "white"
            axes.text(column, row, percent(value, 0), ha="center", va="center", size=8, color=ink)
            if value == np.nanmin(values):
                axes.plot([column - 0.22, column + 0.22], [row + 0.3] * 2, color=ink, linewidth=1.4)


def _margin(side: Axes, board: Board) -> None:
    """Mean and NSD at the end of each row."""
    side.set_axis_off()
    side.set_xlim(0, 2)
    for place, title in ((0.5, "mean"), (1.5, "NSD")):
        side.text(place, -0.7, title, ha="center", va="bottom", size=8, color=SOFT)
    for row, entry in enumerate(board.rows):
        for place, text in ((0.5, percent(entry.robust.accuracy)), (1.5, plain(entry.robust.nsd))):
            side.text(place, row, text, ha="center", va="center", size=8, color=INK)
