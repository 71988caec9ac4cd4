"""A chunk: the images that are judged together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bench.errors import BadData


class Chunk(NamedTuple):
    """Images that are judged together.

    Attributes:
        x: (B,C,H,W) in [0, 1].
        y: (B,) int64.
        sample: (B,) row of each in its data set's split.
        classes: K.
    """

    x: Tensor
    y: Tensor
    sample: npt.NDArray[np.uint32]
    classes: int


def check_pixels(chunk: Chunk) -> None:
    """Pixels must be numbers in [0, 1].

    Raises:
        BadData: one is not.
    """
    inside = ((chunk.x >= 0) & (chunk.x <= 1)).flatten(1).all(1)  # False for NaN
    if not inside.all():
        row = int((~inside).nonzero()[0, 0])
        x = chunk.x[row]
        raise BadData(
            f"sample {chunk.sample[row]} has pixels from {float(x.min()):.4g} to {float(x.max()):.4g}; "
            "images must be numbers in [0, 1], normalisation belongs inside the model"
        )
