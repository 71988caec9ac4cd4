"""How the trainings went: accuracy by epoch, on the training images and on the held-out ones."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.report.boards import tell_apart
from bench.report.plots.style import BLUE, SOFT, VERMILION, head, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.report.boards import Board, Queryable, Row

Line = tuple[str, str]
"""Split and measure of a curve."""


@dataclass(frozen=True)
class _Look:
    label: str
    colour: str
    dashes: Literal["-", "--", ":"]
    width: float


_LINES: Mapping[Line, _Look] = {
    ("train", "clean"): _Look("clean, training images", BLUE, "--", 1.0),
    ("valid", "clean"): _Look("clean, held-out images", BLUE, "-", 1.5),
    ("train", "adv"): _Look("attacked, training images", VERMILION, "--", 1.0),
    ("valid", "adv"): _Look("attacked, held-out images", VERMILION, "-", 1.5),
    ("valid", "worst"): _Look("attacked, held-out, worst class", VERMILION, ":", 1.0),
}


@dataclass(frozen=True)
class _Course:
    """Curves of one entry: line -> ((epoch, accuracy in percent), ...), mean over seeds; and the epochs kept."""

    lines: Mapping[Line, Sequence[tuple[int, float]]]
    kept: frozenset[int]


def draw_curves(store: Queryable, board: Board) -> Figure | None:
    """A panel per method; methods without stored epochs are named below the title. None where no method has any."""
    from matplotlib.lines import Line2D

    courses = _courses(store, board.rows)
    names = tell_apart(board.rows)
    shown = [index for index, course in enumerate(courses) if course.lines]
    if not shown:
        return None
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = new_figure(max(6.5, 2.9 * columns), 2.0 + 1.8 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    for place, index in enumerate(shown):
        panel = panels[place]
        _curves(panel, courses[index], shorten(names[index], 34))
        if place + columns >= len(shown):
            panel.set_xlabel("epoch")
        if place % columns == 0:
            panel.set_ylabel("accuracy in %")
    drawn = {line for course in courses for line in course.lines}
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.dashes, linewidth=look.width, label=look.label)
        for line, look in _LINES.items()
        if line in drawn
    ]
    handles.append(Line2D([], [], color=SOFT, linewidth=0.8, label="epoch kept"))
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    missing = [name for index, name in enumerate(names) if index not in shown]
    head(
        figure,
        "How the trainings went",
        f"of the models judged on {board.data}; attacked as each training does it"
        + ("; mean over seeds" if any(board.rows[index].seeds > 1 for index in shown) else ""),
        *([f"no epochs stored for: {', '.join(missing)}"] if missing else []),
    )
    return figure


def _curves(panel: Axes, course: _Course, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for epoch in sorted(course.kept):
        panel.axvline(epoch, color=SOFT, linewidth=0.8, zorder=1)
    for line, look in _LINES.items():
        points = course.lines.get(line)
        if points:
            epochs, accuracies = zip(*points, strict=True)
            panel.plot(
                epochs,
                accuracies,
                color=look.colour,
                linestyle=look.dashes,
                linewidth=look.width,
                marker="o" if len(points) == 1 else "",
                markersize=3,
            )
    panel.set_ylim(0, 100)
    panel.set_yticks(range(0, 101, 25))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    panel.set_title(name)


def _courses(store: Queryable, rows: Sequence[Row]) -> list[_Course]:
    found = store.query(
        """
        SELECT e.checkpoint_id, k.epoch AS kept, e.epoch, e.split, sum(e.n) AS n,
               sum(e.hits_clean) AS clean, sum(e.hits_adv) AS adv, min(e.hits_adv / nullif(e.n, 0)) AS worst
        FROM epochs e JOIN checkpoints k USING (checkpoint_id)
        GROUP BY ALL
        ORDER BY e.checkpoint_id, e.split, e.epoch
        """
    )
    by_checkpoint = defaultdict(list)
    for record in found.to_dict("records"):
        by_checkpoint[str(record["checkpoint_id"])].append(record)
    courses = []
    for row in rows:
        values: dict[Line, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        kept = set()
        for record in (record for checkpoint in row.checkpoints for record in by_checkpoint[checkpoint]):
            epoch, split, n = int(record["epoch"]), str(record["split"]), float(record["n"])
            if not math.isnan(float(record["kept"])):
                kept.add(int(record["kept"]))
            for measure, total in (("clean", n), ("adv", n), ("worst", 1.0)):
                value = float(record[measure])
                if not math.isnan(value) and total and (split, measure) in _LINES:
                    values[split, measure][epoch].append(100 * value / total)
        lines = {
            line: [(epoch, math.fsum(seen) / len(seen)) for epoch, seen in sorted(by_epoch.items())]
            for line, by_epoch in values.items()
        }
        courses.append(_Course(lines, frozenset(kept)))
    return courses
