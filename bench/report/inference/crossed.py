"""Means over seeds and images, where both could have been others: two-way random effects, without replication.

A figure of S networks on n images (an accuracy, a class's, an NSD) is S values and how much every image moves each of
them, its influence: for an accuracy (x_si - a_s) / n. What two methods differ by is such a figure too: seeds are blocks
where both have the same ones, images always are.

Of the variance of the mean over seeds, `seeds` and `images` are what shows between seeds and between images; `rest`,
what is left of either, is in both. What seeds show is known from S of them only, and has Student's t of S - 1 degrees
of freedom; what images show beyond the rest is known from n. The half-width of an interval is the root of the sum of
the squares of the two (Howe). Satterthwaite's degrees of freedom, which stand in its place elsewhere, are far too many
where a few seeds happen to agree: with three, intervals at 95 % cover 92 %, and those at 99.9 % cover 98.5 %.

Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007), on variances where two factors are
    crossed; Howe, Approximate confidence limits on the mean of X + Y where X and Y are two tabled independent random
    variables, J. American Statistical Association 69 (1974); Bouthillier et al., Accounting for variance in machine
    learning benchmarks, MLSys 2021; Miller, Adding error bars to evals (2024); Smyth, Linear models and empirical Bayes
    methods for assessing differential expression in microarray experiments, Statistical Applications in Genetics and
    Molecular Biology 3 (2004), on variances that lean on their kin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[np.float64]

Question = Literal["checkpoints", "images", "method"]
"""What is asked about: these checkpoints (images random), the method on these images (seeds random), the method (both
random)."""

FEWEST_SEEDS = 3
"""Seeds of either side without which nothing is said of a method."""
_MOST_FREEDOM = 10.0
"""Degrees of freedom of the sum of the components with two seeds, at most. Two seeds tell next to nothing of how much
seeds differ, and Student's t of one degree of freedom as much: with that, nothing would ever be seen. On the digits
study's own seeds, two against two, 2 % of all checks then find one side worse."""


@dataclass(frozen=True)
class Figures:
    """J figures of S networks on the same n images.

    Attributes:
        seeds: (S,J) the figures of each network.
        images: (S,J,n) influence of each image on each: with the mean 0, in the figure's unit.
    """

    seeds: Array
    images: Array

    def __sub__(self, other: Figures) -> Figures:
        """The differences, network by network."""
        return Figures(self.seeds - other.seeds, self.images - other.images)

    def __neg__(self) -> Figures:
        """The figures with the other sign."""
        return Figures(-self.seeds, -self.images)


@dataclass(frozen=True)
class Estimate:
    """Means with standard errors; all of one shape.

    Attributes:
        value: the estimates.
        terms: what their variances are the sums of, each with its degrees of freedom.
    """

    value: Array
    terms: tuple[tuple[Array, Array], ...]

    @property
    def error(self) -> Array:
        """Standard errors."""
        return np.sqrt(sum((variance for variance, _ in self.terms), np.zeros_like(self.value)))

    def half(self, alpha: npt.ArrayLike = 0.05) -> Array:
        """Half the widths of the intervals, with half of `alpha` at either end."""
        share = 1 - np.asarray(alpha, dtype=np.float64) / 2
        squares = (variance * quantile(freedom, share) ** 2 for variance, freedom in self.terms)
        return np.sqrt(sum(squares, np.zeros_like(self.value)))

    def interval(self, alpha: npt.ArrayLike = 0.05) -> tuple[Array, Array]:
        """Lower and upper ends."""
        half = self.half(alpha)
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Components:
    """What the variance of a mean over seeds and images is made of; all of one shape.

    Attributes:
        value: the mean.
        images: what shows between images, and `images_freedom`, its degrees of freedom.
        seeds: what shows between seeds, and `seeds_freedom`; 0 and 0 for single networks.
        rest: what is in both.
        networks: of the side that has fewest.
    """

    value: Array
    images: Array
    images_freedom: Array
    seeds: Array
    seeds_freedom: Array
    rest: Array
    networks: int

    def estimate(self, question: Question) -> Estimate:
        """The mean with the error that the question asks for; of single networks only images tell of it."""
        of_images, of_seeds = (self.images, self.images_freedom), (self.seeds, np.maximum(self.seeds_freedom, 1))
        if question == "checkpoints" or self.networks == 1:
            return Estimate(self.value, (of_images,))
        if question == "images":
            return Estimate(self.value, (of_seeds,))
        if self.networks < FEWEST_SEEDS:
            return Estimate(self.value, (self._of_two(),))
        beyond = np.maximum(self.images - self.rest, 0)
        return Estimate(self.value, ((beyond, self.images_freedom), (self.seeds, self.seeds_freedom)))

    def leaning(self, kin: npt.NDArray[np.bool_]) -> Components:
        """With figures of kin, such as classes, whose seeds tell of each other: twice the degrees of freedom.

        What seeds show of a figure is the mean of its own and of what all its kin show together, in proportion to their
        images; or its own where that is more, so that a figure whose seeds really differ more is not made to look
        certain. With two seeds or fewer all stays as it is.

        Args:
            kin: (J,) which figures these are.
        """
        if self.networks < FEWEST_SEEDS or not kin.any():
            return self
        together = self.images * self.seeds[kin].sum() / self.images[kin].sum()
        seeds = np.where(kin, np.maximum(self.seeds, (self.seeds + together) / 2), self.seeds)
        return replace(self, seeds=seeds, seeds_freedom=np.where(kin, 2, 1) * self.seeds_freedom)

    def _of_two(self) -> tuple[Array, Array]:
        """The variance at two seeds, at least either component, with Satterthwaite's degrees of freedom, bounded."""
        variance = np.maximum(self.seeds + self.images - self.rest, np.maximum(self.seeds, self.images))
        spread = (
            self.seeds**2 / self.seeds_freedom
            + self.images**2 / self.images_freedom
            + self.rest**2 / (self.seeds_freedom * self.images_freedom)
        )
        freedom = np.divide(variance**2, spread, out=np.array(self.images_freedom), where=spread > 0)
        return variance, np.maximum(np.minimum(freedom, _MOST_FREEDOM), self.seeds_freedom)


def components(parts: Sequence[Figures], counts: npt.ArrayLike) -> Components:
    """The components of a sum of figures over groups of networks: one group of paired differences, or b and minus a.

    Half a discordant sample of either sign is added to the variance between images, so that a figure that no image
    moves keeps an error.

    Args:
        parts: figures of each group; within a group all networks are exchangeable, between groups independent but for
            the images.
        counts: (J,) images behind each figure, of which there are counts - 1 degrees of freedom.

    Source of the half samples: Agresti and Min, Simple improved confidence intervals for comparing matched
        proportions, Statistics in Medicine 24 (2005).
    """
    n = np.asarray(counts, dtype=np.float64)
    correction = n / np.maximum(n - 1, 1)
    value = np.sum([part.seeds.mean(axis=0) for part in parts], axis=0)
    moved = image_means(parts)
    fewest = min(len(part.seeds) for part in parts)
    images = correction * (moved**2).sum(axis=-1) + 1 / (fewest * n**2)
    seeds, rest, spread = (np.zeros_like(value) for _ in range(3))
    for part in parts:
        size = len(part.seeds)
        if size == 1:
            continue
        own = part.seeds.var(axis=0, ddof=1) / size
        seeds += own
        spread += own**2 / (size - 1)
        left = part.images - part.images.mean(axis=0)
        rest += correction * (left**2).sum(axis=(0, -1)) / (size * (size - 1))
    freedom = np.divide(seeds**2, spread, out=np.full_like(value, max(fewest - 1, 0)), where=spread > 0)
    return Components(value, images, np.maximum(n - 1, 1), seeds, freedom, rest, fewest)


def image_means(parts: Sequence[Figures]) -> Array:
    """(J,n) how much each image moves the sum over groups of the means over networks."""
    moved: Array = np.sum([part.images.mean(axis=0) for part in parts], axis=0)
    return moved


def accuracy(correct: npt.NDArray[np.bool_]) -> Figures:
    """The accuracy of S networks on n images, (S,n): one figure."""
    x = correct.astype(np.float64)
    mean = x.mean(axis=1, keepdims=True)
    return Figures(mean, ((x - mean) / x.shape[1])[:, None, :])


def class_accuracies(correct: npt.NDArray[np.bool_], members: npt.NDArray[np.bool_]) -> Figures:
    """The accuracies of J classes: (S,n) and (J,n), which image is of which class; every class has images."""
    x = correct.astype(np.float64)
    counts = members.sum(axis=1)
    means = x @ members.T / counts
    moved = np.where(members, x[:, None, :] - means[:, :, None], 0.0) / counts[:, None]
    return Figures(means, moved)


def quantile(freedom: npt.ArrayLike, share: npt.ArrayLike) -> Array:
    """Quantile of Student's t."""
    at = np.asarray(share, dtype=np.float64)
    made: Array = stdtrit(np.asarray(freedom, dtype=np.float64), at)
    return made
