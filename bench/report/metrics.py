"""The numbers of the board, as functions of the accuracies of the classes.

The macros in schema.sql compute the same from the database; a test holds the two together. Classes without a sample
have accuracy NaN here, do not appear there, and count in neither.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def ratios(correct: npt.ArrayLike, n: npt.ArrayLike) -> Vector:
    """(K,) class accuracies from counts: `correct` of `n`; NaN where n is 0."""
    hits, total = np.asarray(correct, dtype=np.float64), np.asarray(n, dtype=np.float64)
    made: Vector = np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0)
    return made


def worst_class(accuracies: npt.ArrayLike) -> int:
    """Index of the class with the lowest accuracy, the first of several; classes at NaN do not compete.

    Raises:
        ValueError: no class has a sample.
    """
    vector = np.asarray(accuracies, dtype=np.float64)
    if np.isnan(vector).all():
        raise ValueError("no class has a sample, so none is the worst")
    return int(np.nanargmin(vector))


def worst_accuracy(accuracies: npt.ArrayLike) -> float:
    """Accuracy of the worst class."""
    vector = np.asarray(accuracies, dtype=np.float64)
    return float(vector[worst_class(vector)])


def worst_by_vote(seeds: Sequence[npt.ArrayLike]) -> tuple[int, int]:
    """The class that is the worst of most seeds, and of how many; of equals the one with the lower mean.

    Args:
        seeds: (S,K) class accuracies of each seed; NaN for a class without samples.

    Raises:
        ValueError: no class has a sample.
    """
    votes = Counter(map(worst_class, seeds))
    vectors = np.array(seeds, dtype=np.float64)

    def mean(label: int) -> float:
        seen = [float(value) for value in vectors[:, label] if not np.isnan(value)]
        return math.fsum(seen) / len(seen)

    voted = min(votes, key=lambda label: (-votes[label], mean(label), label))
    return voted, votes[voted]


def nsd(accuracies: npt.ArrayLike) -> float:
    """Normalized standard deviation of the class accuracies: 0 for equal classes, lower is fairer.

    NSD = sqrt(1/K * sum_k (a_k - m)^2) / m with m = 1/K * sum_k a_k, over the K classes with samples. It does not
    change when all accuracies are scaled, and is at most sqrt(K - 1), where all but one class are at 0.

    Args:
        accuracies: (K,) fractions (or percentages, which give the same); NaN for a class without samples.

    Returns:
        NSD, at least 0; NaN where no class is above 0, or none has samples.

    Source: ABSLD (Zhao et al., NeurIPS 2024) divides the standard deviation of the class accuracies by their mean; with
        the population deviation here (the paper leaves open which), the other is larger by sqrt(K / (K - 1)).
    """
    vector = np.asarray(accuracies, dtype=np.float64)
    vector = vector[~np.isnan(vector)]
    if not vector.any():
        return float("nan")
    if (vector == vector[0]).all():
        return 0.0  # rounding in the mean would leave some 1e-17
    return float(vector.std() / vector.mean())
