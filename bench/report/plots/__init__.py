"""Figures: what the boards show, at a glance. One file per kind; `PLOTS` is their registry.

matplotlib is imported when a figure is drawn, not before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BadData, BenchError, UnknownName
from bench.files import cut_name
from bench.report.boards import EVERYTHING, Board, Queryable, Scope, arenas, boards
from bench.report.plots.bars import draw_bars
from bench.report.plots.curves import draw_curves
from bench.report.plots.fairness import draw_fairness
from bench.report.plots.heatmap import draw_heatmap
from bench.report.plots.style import save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PLOTS", "SUFFIXES", "Plot", "plot"]

Plot = Callable[[Queryable, Board], "Figure | None"]
"""Draws one board; None where the database has nothing of this kind for it."""

PLOTS: Mapping[str, Plot] = {
    "heatmap": draw_heatmap,
    "fairness": draw_fairness,
    "bars": draw_bars,
    "curves": draw_curves,
}
"""Name -> figure."""
SUFFIXES = (".png", ".svg")
"""Kinds of file that can be written."""


def plot(
    store: Queryable,
    out_dir: Path,
    names: Sequence[str] | None = None,
    dataset: str | None = None,
    *,
    suffix: str = ".png",
    scope: Scope = EVERYTHING,
    may: Callable[[Path], object] = Path.exists,
) -> list[Path]:
    """Draw figures of the strongest attack on each data set and budget.

    Args:
        store: the database.
        out_dir: where the files go; made where it is missing. A figure of the same name is replaced.
        names: keys of `PLOTS`; None for all that the database has something for.
        dataset: only the data sets of this name.
        suffix: one of `SUFFIXES`.
        scope: only these evaluations.
        may: asked for each file before it is written; what it raises ends the drawing.

    Returns:
        The files, in the order of the boards and of `names`, called after kind, data and budget.

    Raises:
        UnknownName: no such figure, data set or suffix.
        BadStore: the database holds no complete evaluation.
        BadData: a figure was named for which the database holds nothing.
        DiskFull: there is no room for a file.
        BenchError: a file cannot be written for another reason.
    """
    for name in names or ():
        if name not in PLOTS:
            raise UnknownName.among("figure", name, PLOTS)
    if suffix not in SUFFIXES:
        raise UnknownName.among("kind of picture", suffix, SUFFIXES)
    strongest = [arena[0] for arena in arenas(boards(store, dataset=dataset, scope=scope))]
    stems = _stems(strongest)
    files = []
    for name in names or PLOTS:
        drawn = [
            (out_dir / f"{name}-{stem}{suffix}", figure)
            for board, stem in zip(strongest, stems, strict=True)
            if (figure := styled(PLOTS[name])(store, board)) is not None
        ]
        if names and not drawn:
            raise BadData(f"nothing to draw for {name!r}: the database holds no such figures; evaluate or train first")
        for path, figure in drawn:
            may(path)
            _write(figure, path)
            files.append(path)
    return files


def _write(figure: Figure, path: Path) -> None:
    try:
        save(figure, path)
    except OSError as error:
        raise BenchError(f"cannot write {path.name}: {error.strerror}; name another folder") from None


def _stems(boards: Sequence[Board]) -> list[str]:
    """Names of files that say data and budget; with the data's fingerprint where two would be the same."""
    stems = [
        _slug(f"{board.dataset}-{board.split}-{board.subset}-{board.norm}-{board.eps_exact}".replace("/", "-of-"))
        for board in boards
    ]
    return [
        f"{stem}-{_slug(board.dataset_id)}" if stems.count(stem) > 1 else stem
        for stem, board in zip(stems, boards, strict=True)
    ]


def _slug(text: str) -> str:
    return cut_name(re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-."))
