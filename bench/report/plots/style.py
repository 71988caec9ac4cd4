"""How figures look, and how they become files with the same bytes each time."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from bench.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.report.boards import Board

# Okabe and Ito's colours, which stay apart under every common kind of colour blindness.
BLUE = "#0072B2"
SKY = "#56B4E9"
VERMILION = "#D55E00"
GREEN = "#009E73"
INK = "#1b1f24"
SOFT = "#6b7480"
GRID = "#e3e7eb"
HEAT = "cividis"

DPI = 150
_PAD = 4.0
"""Margin around everything, in points."""
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.dpi": DPI,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": DPI,
    "svg.hashsalt": "evenbench",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called a$b$c
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """`draw` under the project's style; whatever style the process has is back afterwards."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, laid out so that nothing is cut off; no window, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=_PAD / 72, h_pad=_PAD / 72))
    FigureCanvasAgg(figure)
    return figure


def head(figure: Figure, title: str, *lines: str) -> None:
    """A bold title and lines below it, flush left, broken where the figure ends."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    said = textwrap.wrap(title, max(20, int((width - 12) / 7.2)))
    below = [part for line in lines for part in textwrap.wrap(line, max(20, int((width - 12) / 5.0)))]
    x = 6 / width
    # One text cannot be bold in part: blank lines make room for the title, which is written over them. A title
    # without `y` stands where the layout puts it, _PAD below the edge.
    blank = [" "] * len(said)
    figure.suptitle("\n".join([*blank, *below]), x=x, ha="left", size=9, linespacing=1.45)
    figure.text(
        x,
        1 - _PAD / height,
        "\n".join(said),
        ha="left",
        va="top",
        size=10.5,
        weight="bold",
        linespacing=1.2,
        in_layout=False,
    )


def under(board: Board) -> str:
    """Data and threat of a board, as the figures name them."""
    return f"{board.data} · {board.samples} samples · {board.attack} · {board.threat}"


def shorten(name: str, length: int) -> str:
    """A name of at most `length` signs, cut with an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def class_ticks(axes: Axes, names: Sequence[str], most: int = 20) -> None:
    """Name the classes along the x axis: all of them, or as many as there is room for."""
    stride = -(-len(names) // most)
    shown = [shorten(name, 14) for name in names[::stride]]
    upright = max(len(name) for name in shown) > 2
    axes.set_xticks(range(0, len(names), stride), shown)
    axes.tick_params(axis="x", rotation=90 if upright else 0, length=0 if stride == 1 else 3)


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole, by the suffix of its path; the same figure gives the same bytes.

    Raises:
        DiskFull: no space is left.
        OSError: the file cannot be written.
    """
    import warnings

    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    with whole(path) as beside, warnings.catch_warnings():
        # A class named in a script the font lacks shows as boxes, which is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph")
        styled(figure.savefig)(beside, format=path.suffix[1:], metadata=metadata)
