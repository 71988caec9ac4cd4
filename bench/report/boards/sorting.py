"""The columns that a board can be sorted by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.report.boards.values import Row

SortKey = tuple[bool, float, str]


def _high(value: float | None) -> SortKey:
    """Largest first, the unknown last."""
    return (value is None, -(value or 0.0), "")


def _low(value: float | None) -> SortKey:
    """Smallest first, the unknown last."""
    return (value is None, value or 0.0, "")


def _text(value: str | None) -> SortKey:
    return (value is None, 0.0, value or "")


SORTS: Mapping[str, Callable[[Row], SortKey]] = {
    "rank": lambda row: _low(row.rank),
    "method": lambda row: _text(row.name),
    "variant": lambda row: _text(row.variant),
    "preset": lambda row: _text(row.preset),
    "model": lambda row: _text(row.model),
    "selection": lambda row: _text(row.selection),
    "recipe_id": lambda row: _text(row.recipe_id),
    "seeds": lambda row: _high(row.seeds),
    "accuracy": lambda row: _high(row.robust.accuracy),
    "accuracy_std": lambda row: _low(row.robust.accuracy_std),
    "worst_class": lambda row: _text(row.robust.worst_class),
    "worst_accuracy": lambda row: _high(row.robust.worst_accuracy),
    "nsd": lambda row: _low(row.robust.nsd),
    "nsd_std": lambda row: _low(row.robust.nsd_std),
    "clean_accuracy": lambda row: _high(row.clean.accuracy if row.clean else None),
    "clean_accuracy_std": lambda row: _low(row.clean.accuracy_std if row.clean else None),
    "clean_worst_class": lambda row: _text(row.clean.worst_class if row.clean else None),
    "clean_worst_accuracy": lambda row: _high(row.clean.worst_accuracy if row.clean else None),
    "clean_nsd": lambda row: _low(row.clean.nsd if row.clean else None),
    "best_known": lambda row: _high(row.best_known.score.accuracy if row.best_known else None),
    "ece": lambda row: _low(row.robust.calibration.ece if row.robust.calibration else None),
    "divergence": lambda row: _low(row.robust.calibration.divergence if row.robust.calibration else None),
    # As the headings of the tables call them.
    "robust": lambda row: _high(row.robust.accuracy),
    "clean": lambda row: _high(row.clean.accuracy if row.clean else None),
    "worst": lambda row: _high(row.robust.worst_accuracy),
}
"""Column -> the key that sorts by it. The better figure of a column is always above the worse."""
