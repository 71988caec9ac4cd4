"""What the attack takes from each class: clean and robust accuracy side by side, one panel per method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.report.boards import tell_apart
from bench.report.plots.style import BLUE, SKY, VERMILION, class_ticks, head, new_figure, shorten, under
from bench.report.tables import percent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.report.boards import Board, Queryable, Row

_MANY_CLASSES = 24


def draw_bars(store: Queryable, board: Board) -> Figure:
    """A panel per method with a bar per class: robust accuracy in front of clean accuracy, the worst class marked."""
    from matplotlib.patches import Patch

    many = len(board.class_names) > _MANY_CLASSES
    columns = min(2 if many else 3, len(board.rows))
    lines = -(-len(board.rows) // columns)
    width = (6.0 if many else max(2.6, 0.9 + 0.2 * len(board.class_names))) * columns
    figure = new_figure(max(6.5, width), 1.6 + 1.7 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for panel in panels[len(board.rows) :]:
        panel.set_visible(False)
    for index, (row, name) in enumerate(zip(board.rows, tell_apart(board.rows), strict=True)):
        panel = panels[index]
        _bars(panel, row, name, clean_board=board.is_clean)
        class_ticks(panel, board.class_names)
        if index + columns < len(board.rows):
            panel.tick_params(axis="x", labelbottom=False)
        else:
            panel.set_xlabel("class")
        if index % columns == 0:
            panel.set_ylabel("accuracy in %")
    shown = [Patch(color=SKY, label="clean")] if not board.is_clean else []
    shown.append(Patch(color=BLUE, label="clean" if board.is_clean else f"under {board.attack}"))
    shown.append(Patch(color=VERMILION, label=f"worst class {'clean' if board.is_clean else f'under {board.attack}'}"))
    figure.legend(handles=shown, loc="outside lower left", ncols=3)
    title = "Clean accuracy of every class" if board.is_clean else "What the attack leaves of every class"
    several = any(row.seeds > 1 for row in board.rows)
    note = "bars: mean over seeds; worst: mean over seeds of the accuracy of each seed's own worst class"
    head(figure, title, under(board), *([note] if several else []))
    return figure


def _bars(panel: Axes, row: Row, name: str, *, clean_board: bool) -> None:
    robust = np.array([np.nan if value is None else 100 * value for value in row.robust.class_accuracy])
    classes = np.arange(len(robust))
    many = len(robust) > _MANY_CLASSES  # then gaps and narrow bars would flicker
    if row.clean and not clean_board:
        clean = np.array([np.nan if value is None else 100 * value for value in row.clean.class_accuracy])
        panel.bar(classes, clean, width=1.0 if many else 0.86, color=SKY)
    colours = [VERMILION if value == np.nanmin(robust) else BLUE for value in robust]
    panel.bar(classes, robust, width=1.0 if many else 0.5, color=colours)
    panel.set_ylim(0, 100)
    panel.set_yticks(range(0, 101, 25))
    panel.grid(visible=False, axis="x")
    panel.margins(x=0.01)
    panel.set_title(
        f"{shorten(name, 34)}\nmean {percent(row.robust.accuracy)} %, worst {percent(row.robust.worst_accuracy)} %, "
        f"NSD {plain(row.robust.nsd)}",
        size=8.5,
    )
