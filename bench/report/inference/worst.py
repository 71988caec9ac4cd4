"""The worst class: the lowest of K accuracies is too low in a sample, and the name of the class may be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.report.inference.crossed import Components, Estimate, Figures, Question, components
from bench.report.inference.proportion import wilson

Array = npt.NDArray[np.float64]


def interval(hits: npt.ArrayLike, counts: npt.ArrayLike, alpha: float = 0.05) -> tuple[float, float]:
    """Interval of the accuracy of the worst class of one network, whichever it is; images random.

    [min_k L_k, min_k U_k] of Wilson's ends: the true worst class alone can put the lower end too high, so it needs
    alpha / 2; any class can put the upper end too low, so they share it: alpha / (2 K).

    Args:
        hits: (K,) samples of each class classified correctly.
        counts: (K,) samples of each class, above 0.
        alpha: one minus the coverage.
    """
    n = np.asarray(counts, dtype=np.float64)
    low, _ = wilson(hits, n, alpha)
    _, high = wilson(hits, n, alpha / len(n))
    return float(low.min()), float(high.min())


def how_often_worst(hits: npt.ArrayLike, counts: npt.ArrayLike, *, draws: int = 4000) -> Array:
    """(K,) how often each class would be the worst of the true accuracies, as far as the counts tell; sums to 1.

    Accuracies are drawn from Beta(hits + 1/2, misses + 1/2), what Jeffreys' prior makes of the counts; the draws are
    the same every time.
    """
    right, n = np.asarray(hits, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    drawn = np.random.default_rng(0).beta(right + 0.5, n - right + 0.5, (draws, len(n)))
    return np.bincount(drawn.argmin(axis=1), minlength=len(n)) / draws


@dataclass(frozen=True)
class Difference:
    """By how much the worst class of b is better than the worst class of a.

    The worst class is that of the class accuracies averaged over seeds. The difference is the smallest over j of the
    largest over k of b_j - a_k. Where the true worst classes are j* and k*, the upper end is too low only if one of the
    K differences b_j - a_k* lies above its own, the lower too high only if one of b_j* - a_k lies below: each of the
    2 K gets alpha / (2 K).

    Attributes:
        pairs: (K,K) of b_j - a_k.
    """

    pairs: Estimate

    @property
    def value(self) -> float:
        """The difference of the two classes that are the worst in the sample."""
        return float(self.pairs.value.max(axis=1).min())

    def interval(self, alpha: float) -> tuple[float, float]:
        """Lower and upper end, of which both hold with 1 - alpha at least."""
        low, high = self.pairs.interval(alpha / len(self.pairs.value))
        return float(low.max(axis=1).min()), float(high.max(axis=1).min())

    def named(self) -> Estimate:
        """The difference of these two classes alone."""
        b = int(self.pairs.value.max(axis=1).argmin())
        a = int(self.pairs.value[b].argmax())
        terms = tuple(
            (variance[b, a], np.broadcast_to(free, variance.shape)[b, a]) for variance, free in self.pairs.terms
        )
        return Estimate(self.pairs.value[b, a], terms)


def difference(
    candidate: Figures, baseline: Figures, counts: npt.ArrayLike, question: Question, *, paired: bool
) -> Difference:
    """The difference of the worst classes of two entries.

    Args:
        candidate: (S,K) class accuracies of b, with influences.
        baseline: (S',K) those of a.
        counts: (K,) images of each class.
        question: what may vary.
        paired: whether the seeds are the same and stand in the same order.
    """
    groups = [candidate - baseline] if paired else [candidate, -baseline]
    same = components(groups, counts)
    return Difference(_pairs(candidate, baseline, counts, same, paired=paired).estimate(question))


def _pairs(b: Figures, a: Figures, counts: npt.ArrayLike, same: Components, *, paired: bool) -> Components:
    """(K,K) components of b_j - a_k: different classes have different images, and share the seeds where paired."""
    one, other = components([b], counts), components([a], counts)

    def crossed(left: Array, right: Array, diagonal: Array) -> Array:
        table = left[:, None] + right[None, :]
        np.fill_diagonal(table, diagonal)
        return table

    seeds = crossed(one.seeds, other.seeds, same.seeds)
    if paired and len(b.seeds) > 1:
        seeds = (b.seeds[:, :, None] - a.seeds[:, None, :]).var(axis=0, ddof=1) / len(b.seeds)
    return Components(
        value=b.seeds.mean(axis=0)[:, None] - a.seeds.mean(axis=0)[None, :],
        images=crossed(one.images, other.images, same.images),
        images_freedom=np.minimum(one.images_freedom[:, None], other.images_freedom[None, :]),
        seeds=seeds,
        seeds_freedom=np.full_like(seeds, same.seeds_freedom.min()),
        rest=crossed(one.rest, other.rest, same.rest),
        networks=same.networks,
    )
