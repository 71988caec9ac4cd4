"""Outcomes: who survived what. The waist between making (torch) and reading (no torch).

Everything that is ever shown is computed from values of this type; the making half ends in them and the
reading half starts from them. Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

SURVIVED = 0
"""`broken_by` of a sample that is still classified correctly."""
WRONG_UNATTACKED = 1
"""`broken_by` of a sample that was misclassified before any attack."""
FIRST_OF_LINEUP = 2
"""`broken_by` of a sample broken by the first attack of the line-up; the next ones follow."""

COLUMNS: dict[str, npt.DTypeLike] = {
    "sample": np.uint32,
    "label": np.uint16,
    "predicted": np.uint16,
    "confidence": np.float32,
    "broken_by": np.uint8,
    "divergence": np.float32,
    "forwards": np.uint32,
    "backwards": np.uint32,
}
"""The columns of `Outcomes` and the narrow types they are stored in."""
LARGEST = {"confidence": 1.0, "divergence": float(np.finfo(np.float32).max)}
"""The largest value of each column of fractions; the smallest is 0."""


def narrowed(name: str, values: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A column in the narrow type that is stored.

    Raises:
        ValueError: a value would not survive: an integer out of range, a confidence outside [0, 1], a divergence that
            is negative or not finite.
    """
    wide = np.asarray(values)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(np.dtype(dtype))
        fits = (wide >= limits.min) & (wide <= limits.max)
    else:
        fits = (wide >= 0) & (wide <= LARGEST[name])
    if not fits.all():
        raise ValueError(f"{name} holds {wide[~fits].flat[0]}, which is no {name}")
    return wide.astype(dtype)


@dataclass(frozen=True)
class Outcomes:
    """What one attack did to some samples, row by row.

    Attributes:
        sample: (N,) uint32, row of the image in its data set's split.
        label: (N,) uint16, true class.
        predicted: (N,) uint16, class predicted for the attacked image, in fp32.
        confidence: (N,) float32 in [0, 1], softmax probability of `predicted`.
        broken_by: (N,) uint8: SURVIVED, WRONG_UNATTACKED, or FIRST_OF_LINEUP + position of the
            attack in the line-up that broke the sample.
        divergence: (N,) float32 >= 0, KL(softmax(clean logits) || softmax(logits of the judged image)) in nats;
            0 where nothing was attacked: without attack, or wrong unattacked.
        forwards: (N,) uint32, how often the sample passed forward through the model.
        backwards: (N,) uint32, how often it passed backward.
        seconds: wall time spent on all.

    One number given for `divergence`, `forwards` or `backwards` stands for every sample.

    Raises:
        ValueError: the columns do not have one length, a value does not fit its type, a confidence lies outside
            [0, 1], a divergence is negative or not finite, or `broken_by` contradicts the prediction.
    """

    sample: npt.NDArray[np.uint32]
    label: npt.NDArray[np.uint16]
    predicted: npt.NDArray[np.uint16]
    confidence: npt.NDArray[np.float32]
    broken_by: npt.NDArray[np.uint8]
    divergence: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((), np.float32))
    forwards: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros((), np.uint32))
    backwards: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros((), np.uint32))
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Columns come in any number type and leave in the narrow ones that are stored."""
        for name, dtype in COLUMNS.items():
            object.__setattr__(self, name, narrowed(name, getattr(self, name), dtype))
        for name in ("divergence", "forwards", "backwards"):
            if getattr(self, name).ndim == 0:
                object.__setattr__(self, name, np.full(self.sample.shape, getattr(self, name)))
        if len({getattr(self, name).shape for name in COLUMNS}) != 1 or self.sample.ndim != 1:
            raise ValueError("the columns of Outcomes must be vectors of one length")
        if not np.array_equal(self.correct, self.broken_by == SURVIVED):
            raise ValueError("broken_by must be SURVIVED exactly where the prediction is the label")

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.sample)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the attacked image is still classified as its label."""
        return np.equal(self.predicted, self.label)

    def select(self, rows: npt.NDArray[Any]) -> Outcomes:
        """The outcomes at some positions; the wall time stays that of all."""
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in COLUMNS}
        return replace(self, **columns)

    def class_accuracy(self, classes: int) -> npt.NDArray[np.float64]:
        """(classes,) fraction of each class still correct; NaN where a class has no sample."""
        total = np.bincount(self.label, minlength=classes).astype(float)
        hits = np.bincount(self.label[self.correct], minlength=classes)
        accuracy: npt.NDArray[np.float64] = np.divide(hits, total, out=np.full(classes, np.nan), where=total > 0)
        return accuracy
