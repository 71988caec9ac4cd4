"""One accuracy: the interval of a proportion."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Array = npt.NDArray[np.float64]


def wilson(hits: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike = 0.05) -> tuple[Array, Array]:
    """Wilson's score interval of a proportion, elementwise.

    Args:
        hits: successes, between 0 and n; need not be whole.
        n: trials, above 0; NaN comes out where it is 0.
        alpha: one minus the coverage, half of it at either end.

    Returns:
        The lower and the upper ends, in [0, 1].

    Source: Wilson, Probable inference, the law of succession, and statistical inference, J. American Statistical
        Association 22 (1927).
    """
    k, total = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = ndtri(1 - np.asarray(alpha, dtype=np.float64) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = k / total
        middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
        half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
