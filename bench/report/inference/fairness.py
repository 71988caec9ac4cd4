"""The NSD of a sample: it is never 0, even of equal classes, and how far it is from what it estimates.

The accuracies of K classes on n_k images each scatter even where the classes are equally accurate, by the mean of
a_k (1 - a_k) / (n_k - 1). The raw NSD holds that scatter; the corrected one has it taken off.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import chi2, ncx2

from bench.report.inference.crossed import Figures

Array = npt.NDArray[np.float64]


def corrected(accuracies: npt.ArrayLike, counts: npt.ArrayLike) -> Array:
    """The NSD without the scatter of the images: sign(V) sqrt(|V|) / m, on the last axis.

    V = Var_pop(a) - (K - 1) / K mean(a (1 - a) / (n_k - 1)), which is unbiased for the variance of what the a_k
    estimate. A negative one says that the classes differ by less than chance would have it.

    Args:
        accuracies: (...,K) class accuracies.
        counts: (K,) images of each class, at least 2.

    Returns:
        (...,) NaN where no class is above 0.
    """
    a = np.asarray(accuracies, dtype=np.float64)
    mean = a.mean(axis=-1)
    rest = a.var(axis=-1) - _scatter(a, counts) * (a.shape[-1] - 1) / a.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        made: Array = np.where(mean > 0, _root(rest) / mean, np.nan)
    return made


def floor(accuracy: float, counts: npt.ArrayLike) -> float:
    """The raw NSD to be expected where every class has this accuracy: what is read below or near it says nothing.

    c4(K) sqrt((K - 1) / K mean(a (1 - a) / n_k)) / a, where c4(K) is the mean of a standard deviation of K normal
    values over the true one; .063 for 10 classes of 72 images at an accuracy of .75. NaN where the accuracy is 0.
    """
    n = np.asarray(counts, dtype=np.float64)
    if accuracy <= 0:
        return math.nan
    classes = len(n)
    c4 = math.sqrt(2 / (classes - 1)) * math.exp(math.lgamma(classes / 2) - math.lgamma((classes - 1) / 2))
    return c4 * math.sqrt((classes - 1) / classes * float((accuracy * (1 - accuracy) / n).mean())) / accuracy


def interval(accuracies: npt.ArrayLike, counts: npt.ArrayLike, alpha: float = 0.05) -> tuple[float, float]:
    """Interval of the NSD of one network, images random.

    Q = sum (a_k - m)^2 / s is about noncentral chi-square with K - 1 degrees of freedom and noncentrality
    K NSD^2 m^2 / s, where s is the variance of a class's accuracy; the noncentralities whose test at level `alpha` does
    not reject are the interval. (The percentile bootstrap fails here: its samples scatter once more.)

    The classes do not scatter alike, and the mean scatters too: s is mean(a (1 - a) / (n_k - 1)) or, where it is more,
    what gives the NSD the variance of the delta method; Q is shifted to the mean K - 1 for equal classes. With the mean
    alone the interval covers 71 to 89 % where a single class lies far below the others.

    Args:
        accuracies: (K,) class accuracies, of classes with at least 2 images.
        counts: (K,) images of each class.
        alpha: one minus the coverage, half of it at either end.

    Returns:
        The lower and the upper end, at least 0; 0 and infinity where nothing scatters, as at accuracies of 0 and 1;
        NaN where no class is above 0.
    """
    a = np.asarray(accuracies, dtype=np.float64)
    mean, least, classes = float(a.mean()), float(_scatter(a, counts)), a.size
    if mean == 0 or classes < 2:
        return math.nan, math.nan
    if least == 0:
        return 0.0, math.inf
    by_delta = (slope(a) ** 2 * _variances(a, counts)).sum() * classes * mean**2
    scatter = max(least, float(by_delta))
    q = classes * float(a.var()) / scatter + (classes - 1) * (1 - least / scatter)

    def noncentrality(q: float, share: float) -> float:
        if chi2.cdf(q, classes - 1) <= share:
            return 0.0
        top = q + 20 + 20 * math.sqrt(q + 1)
        return float(brentq(lambda value: ncx2.cdf(q, classes - 1, value) - share if value else 1.0, 0.0, top))

    # Classes more alike than chance would have them are no reason for a shorter interval.
    low, high = noncentrality(q, 1 - alpha / 2), noncentrality(max(q, classes - 1), alpha / 2)
    unit = math.sqrt(scatter / classes) / mean
    return unit * math.sqrt(low), unit * math.sqrt(high)


def slope(accuracies: npt.ArrayLike) -> Array:
    """(...,K) derivative of the raw NSD by each class accuracy; taken as 0 by its spread where all are equal."""
    a = np.asarray(accuracies, dtype=np.float64)
    mean = a.mean(axis=-1, keepdims=True)
    deviation = a - mean
    spread = np.sqrt((deviation**2).mean(axis=-1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.where(spread > 0, deviation / spread, 0.0)
        made: Array = unit / (a.shape[-1] * mean) - spread / (a.shape[-1] * mean**2)
    return made


def figures(classes: Figures, counts: npt.ArrayLike) -> Figures:
    """The corrected NSD of S networks as figures, from their K class accuracies.

    The influence of an image is its influence on V times the slope of sign(V) sqrt|V|. Where V is near 0 that has none
    that says how far the root strays; in its place stands the slope between V minus and V plus its standard error.
    """
    a = classes.seeds
    size, mean = a.shape[1], a.mean(axis=1, keepdims=True)
    scatter = _scatter(a, counts)[:, None]
    variance = a.var(axis=1, keepdims=True) - scatter * (size - 1) / size
    error = np.sqrt(2 * (size - 1) * scatter**2 / size**2 + 4 * np.maximum(variance, 0) * scatter / size)
    with np.errstate(divide="ignore", invalid="ignore"):
        secant = (_root(variance + error) - _root(variance - error)) / (2 * error)
        steep = np.where(error > 0, secant, 0.0)
        slopes = 2 * (a - mean) / size * steep / mean - _root(variance) / (size * mean**2)
    moved = np.einsum("sk,skn->sn", slopes, classes.images)
    return Figures(corrected(a, counts)[:, None], moved[:, None, :])


def _root(variance: Array) -> Array:
    made: Array = np.sign(variance) * np.sqrt(np.abs(variance))
    return made


def _variances(a: Array, counts: npt.ArrayLike) -> Array:
    """(...,K) variance of the accuracy of each class."""
    made: Array = a * (1 - a) / (np.asarray(counts, dtype=np.float64) - 1)
    return made


def _scatter(a: Array, counts: npt.ArrayLike) -> Array:
    """Their mean."""
    made: Array = _variances(a, counts).mean(axis=-1)
    return made
