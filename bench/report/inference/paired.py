"""Two checkpoints on the same images: tests and an interval from the discordant counts alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri

Array = npt.NDArray[np.float64]

_HALVINGS = 60
"""Bisections of an interval of length 1: to the last bit."""


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    p = min(1, 2 P(X <= min(only_a, only_b))) with X ~ Binomial(only_a + only_b, 1/2).

    Args:
        only_a: samples that only a got right.
        only_b: samples that only b got right.

    Returns:
        p in (0, 1]; 1 when no sample is discordant. It underflows to 0 beyond some thousand one-sided ones.
    """
    if only_a == only_b:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def mid_p(only_a: int, only_b: int) -> float:
    """McNemar's mid-p: as `mcnemar`, with half the probability of what was seen; less conservative, nearly exact.

    Source: Fagerland, Lydersen and Laake, The McNemar test for binary matched-pairs data: mid-p and asymptotic are
        better than exact conditional, BMC Medical Research Methodology 13 (2013).
    """
    few, n = min(only_a, only_b), only_a + only_b
    if only_a == only_b:
        return 1.0
    upto = float(bdtr(few, n, 0.5))
    below = float(bdtr(few - 1, n, 0.5)) if few else 0.0
    return min(1.0, upto + below)


def tango(
    only_a: npt.ArrayLike, only_b: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike = 0.05
) -> tuple[Array, Array]:
    """Tango's score interval of the difference of two paired proportions, b minus a, elementwise.

    All differences that a score test at level `alpha` does not reject. It keeps a width where nothing is discordant.

    Args:
        only_a: samples that only a got right.
        only_b: samples that only b got right.
        n: samples paired, at least only_a + only_b and above 0.
        alpha: one minus the coverage, half of it at either end.

    Returns:
        The lower and the upper ends, in [-1, 1].

    Source: Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design, Statistics in Medicine 17 (1998).
    """
    lost, won, total, level = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (only_a, only_b, n, alpha))
    )
    z = ndtri(1 - level / 2)
    seen = (won - lost) / total
    upper = _root(lost, won, total, z, seen)
    lower = -_root(won, lost, total, z, -seen)
    return lower, upper


def _root(lost: Array, won: Array, n: Array, z: Array, seen: Array) -> Array:
    """The difference above what was seen whose score is -z."""
    low, high = seen.copy(), np.ones_like(seen)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = _score(lost, won, n, middle) > -z
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return (low + high) / 2


def _score(lost: Array, won: Array, n: Array, difference: Array) -> Array:
    """Standardized distance of what was seen from a difference, variance by maximum likelihood under the latter."""
    a, b = 2 * n, -won - lost + (2 * n - won + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (np.sqrt(np.maximum(b**2 - 4 * a * c, 0)) - b) / (2 * a)
    variance = n * (2 * share + difference * (1 - difference))
    with np.errstate(divide="ignore", invalid="ignore"):
        score: Array = (won - lost - n * difference) / np.sqrt(variance)
    return np.where(variance > 0, score, np.where(difference >= 1, -np.inf, 0.0))
