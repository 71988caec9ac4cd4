"""Many figures at one level: an error anywhere among them is no likelier than one error alone would be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Array = npt.NDArray[np.float64]

FLIPS = 8000
"""Draws of signs: the level of a family at 5 % is met within a quarter of a percent."""
_AT_ONCE = 2**24
"""Signs held at one time."""


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values, by Holm's step-down: rejecting those at most alpha errs anywhere with at most alpha.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    """
    adjusted = [1.0] * len(p)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = highest
    return adjusted


def level_of_each(blocks: Sequence[npt.ArrayLike], alpha: float, *, flips: int = FLIPS) -> float:
    """The two-sided level at which each of many figures errs, so that all of them together err with `alpha`.

    Signs are drawn for every image, as often as `flips`; the largest standardized sum over the figures is what chance
    does to the most extreme of them. Figures that move with the same images cost little more than one: the level lies
    between `alpha` for equal figures and Sidak's for independent ones. Draws are the same every time.

    Args:
        blocks: for every set of images, (J,n) how much each image moves each figure.
        alpha: level of all figures together, in (0, 1).
        flips: how many draws.

    Returns:
        A level in [alpha / number of figures, alpha].

    Source: Westfall and Young, Resampling-based multiple testing (1993), max-T; sign flips of centred influences are
        the Rademacher multipliers of Chernozhukov, Chetverikov and Kato, Gaussian approximations and multiplier
        bootstrap for maxima of sums of high-dimensional random vectors, Annals of Statistics 41 (2013).
    """
    rng = np.random.default_rng(0)
    highest = np.zeros(flips)
    figures = 0
    for block in blocks:
        moved = np.asarray(block, dtype=np.float64)
        size = np.sqrt((moved**2).sum(axis=1))
        figures += len(moved)
        scaled = (moved[size > 0] / size[size > 0, None]).T.astype(np.float32)
        rows = max(1, _AT_ONCE // max(moved.shape[1], 1))
        for start in range(0, flips, rows):
            count = min(rows, flips - start)
            signs = 2 * rng.integers(0, 2, (count, moved.shape[1]), dtype=np.int8) - 1
            reached = np.abs(signs.astype(np.float32) @ scaled).max(axis=1, initial=0.0)
            highest[start : start + count] = np.maximum(highest[start : start + count], reached)
    if not figures:
        return alpha
    level = 2 * ndtr(-float(np.quantile(highest, 1 - alpha)))
    return float(min(max(level, alpha / figures), alpha))
