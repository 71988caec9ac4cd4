"""Changes: by how much each figure of a candidate differs from a baseline's, with intervals, all attacks in one family.

Under every attack the figures are the accuracy, that of each class, that of the worst class, and the NSD. The level
of the family is shared equally among these four kinds; within a kind it is shared by max-T (`inference.family`), which
takes from attacks that break the same images little, and for the worst class by Bonferroni.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.report.inference import fairness, worst
from bench.report.inference.crossed import (
    Estimate,
    Figures,
    Question,
    accuracy,
    class_accuracies,
    components,
    image_means,
)
from bench.report.inference.family import FLIPS, level_of_each
from bench.report.inference.paired import tango
from bench.report.trials import Side, Trials

Kind = Literal["accuracy", "class", "worst class", "NSD"]

POWER = 0.8
"""Of what a check is said to have been able to see."""
_FEWEST_OF_A_CLASS = 2
_FEWEST_CLASSES = 2
Array = npt.NDArray[np.float64]
Ends = tuple[float, float]


@dataclass(frozen=True)
class Change:
    """One figure of both under one attack.

    Attributes:
        kind: what the figure is.
        name: the class, or the worst class of either, baseline's first; "" for the other kinds.
        baseline: the baseline's figure, mean over seeds.
        candidate: the candidate's.
        interval: of the difference, candidate minus baseline, all figures of the check at once.
        single: of the difference, this figure alone, with the level at each end instead of at both together.
        error: standard error of the difference; of the worst class that of the two classes named.
        needed: how many errors the difference must lie from 0 to be called one, and how many more for it to be called
            one with the power POWER.
    """

    kind: Kind
    name: str
    baseline: float
    candidate: float
    difference: float
    interval: Ends
    single: Ends
    error: float
    needed: Ends

    @property
    def sense(self) -> int:
        """1 where a higher figure is better, -1 where a lower one is."""
        return -1 if self.kind == "NSD" else 1

    def visible(self, margin: float) -> float:
        """The smallest loss, in the figure's unit, that would have been called worse with the power POWER."""
        certain, more = self.needed
        return self.error * more + max(self.error * certain, margin)


@dataclass(frozen=True)
class _Measured:
    """The figures of one meeting before the family's level is known."""

    trials: Trials
    kinds: tuple[Kind, ...]
    names: tuple[str, ...]
    baseline: Figures
    candidate: Figures
    counts: Array
    members: npt.NDArray[np.bool_]
    """(K,n) which image is of which class, of the classes that have rows"""

    @property
    def parts(self) -> list[Figures]:
        """What `components` takes."""
        return [self.candidate - self.baseline] if self.trials.paired else [self.candidate, -self.baseline]

    def rows(self, kind: Kind) -> list[int]:
        """Where the figures of a kind are."""
        return [place for place, one in enumerate(self.kinds) if one == kind]


def changes(met: Sequence[Trials], question: Question, alpha: float, *, flips: int = FLIPS) -> list[tuple[Change, ...]]:
    """Every figure under every attack, (len(met),) in the order given: accuracy, worst class, NSD, then the classes.

    Args:
        met: data and attacks.
        question: what may vary.
        alpha: one minus the probability that all intervals hold at once; in (0, 1).
        flips: how many draws `inference.family.level_of_each` makes.

    A class with fewer than two images has no row; nor has the NSD where a network is right about nothing, or where
    there are fewer than two classes.
    """
    measured = [_measured(one) for one in met]
    kinds: list[Kind] = sorted({kind for one in measured for kind in one.kinds})
    share = alpha / (len(kinds) + 1)  # the worst class is one more
    levels = {kind: level_of_each(_blocks(measured, kind), share, flips=flips) for kind in kinds}
    return [_changes(one, question, alpha, levels, share / len(met)) for one in measured]


def _blocks(measured: Sequence[_Measured], kind: Kind) -> list[Array]:
    """How much each image moves each figure of a kind, one block for every data set."""
    together: defaultdict[str, list[Array]] = defaultdict(list)
    for one in measured:
        rows = one.rows(kind)
        if rows:
            together[one.trials.setting.dataset_id].append(image_means(one.parts)[rows])
    return [np.concatenate(blocks) for blocks in together.values()]


def _measured(trials: Trials) -> _Measured:
    present, sizes = np.unique(trials.labels, return_counts=True)
    classes = present[sizes >= _FEWEST_OF_A_CLASS]
    members = trials.labels == classes[:, None]
    counts = members.sum(axis=1).astype(np.float64)

    def figures(side: Side) -> list[Figures]:
        by_class = class_accuracies(side.correct, members)
        made = [accuracy(side.correct), by_class]
        return [*made, fairness.figures(by_class, counts)] if len(classes) >= _FEWEST_CLASSES else made

    one, other = figures(trials.baseline), figures(trials.candidate)
    kinds: list[Kind] = ["accuracy", *(["class"] * len(classes))]  # type: ignore[list-item]  # a literal, repeated
    names = ["", *(trials.setting.class_names[label] for label in classes)]
    sizes_of = [np.array([trials.labels.size], dtype=np.float64), counts]
    if all(len(side) > 2 and np.isfinite(side[2].seeds).all() for side in (one, other)):
        kinds.append("NSD")
        names.append("")
        sizes_of.append(sizes_of[0])
    first, second = (_joined(side[: len(sizes_of)]) for side in (one, other))
    return _Measured(trials, tuple(kinds), tuple(names), first, second, np.concatenate(sizes_of), members)


def _joined(parts: Sequence[Figures]) -> Figures:
    return Figures(
        np.concatenate([part.seeds for part in parts], axis=1), np.concatenate([part.images for part in parts], axis=1)
    )


def _changes(
    measured: _Measured, question: Question, alpha: float, levels: dict[Kind, float], for_worst: float
) -> tuple[Change, ...]:
    found = _estimate(measured, question)
    level = np.array([levels[kind] for kind in measured.kinds])
    ends = _ends(measured, found)
    (low, high), (single_low, single_high) = ends(level), ends(np.full_like(level, 2 * alpha))
    needed = _needed(found, level)
    one, other = measured.baseline.seeds.mean(axis=0), measured.candidate.seeds.mean(axis=0)
    rows = [
        Change(
            kind,
            name,
            float(one[at]),
            float(other[at]),
            float(found.value[at]),
            _possible(kind, low[at], high[at]),
            _possible(kind, single_low[at], single_high[at]),
            float(found.error[at]),
            (float(needed[0][at]), float(needed[1][at])),
        )
        for at, (kind, name) in enumerate(zip(measured.kinds, measured.names, strict=True))
    ]
    worst_class = _worst(measured, question, alpha, for_worst) if measured.rows("class") else []
    order: tuple[Kind, ...] = ("accuracy", "worst class", "NSD", "class")
    return tuple(sorted([*rows, *worst_class], key=lambda row: order.index(row.kind)))


def _estimate(measured: _Measured, question: Question) -> Estimate:
    """All figures; where seeds and images vary, the classes lean on each other."""
    found = components(measured.parts, measured.counts)
    if question == "method":
        found = found.leaning(np.array([kind == "class" for kind in measured.kinds]))
    return found.estimate(question)


def _ends(measured: _Measured, found: Estimate) -> Callable[[Array], tuple[Array, Array]]:
    """Intervals by level: by Student's t, and of counts of a single pair of checkpoints by Tango."""
    trials = measured.trials
    if not (trials.paired and trials.seeds == 1):
        return found.interval
    counted = [place for place, kind in enumerate(measured.kinds) if kind != "NSD"]
    moved = trials.candidate.correct[0].astype(np.int64) - trials.baseline.correct[0]
    members = np.concatenate([np.ones((1, trials.labels.size), dtype=np.bool_), measured.members])

    def ends(level: Array) -> tuple[Array, Array]:
        low, high = found.interval(level)
        low[counted], high[counted] = tango(
            (members & (moved < 0)).sum(axis=1),
            (members & (moved > 0)).sum(axis=1),
            members.sum(axis=1),
            level[counted],
        )
        return low, high

    return ends


def _possible(kind: Kind, low: float, high: float) -> Ends:
    """An interval without what no difference of accuracies can be."""
    return (float(low), float(high)) if kind == "NSD" else (max(float(low), -1.0), min(float(high), 1.0))


def _needed(found: Estimate, level: npt.ArrayLike) -> tuple[Array, Array]:
    """How many errors from 0 is surely off it, and how many more are that with the power POWER."""
    return found.half(level) / found.error, found.half(2 * (1 - POWER)) / found.error


def _worst(measured: _Measured, question: Question, alpha: float, level: float) -> list[Change]:
    rows = measured.rows("class")
    counts = measured.counts[rows]
    one, other = (
        Figures(side.seeds[:, rows], side.images[:, rows]) for side in (measured.baseline, measured.candidate)
    )
    paired = measured.trials.paired
    found = worst.difference(other, one, counts, question, paired=paired)
    interval, single = found.interval(level), found.interval(2 * alpha)
    named = found.named()
    needed = _needed(named, level / len(rows))
    names = [measured.names[rows[int(side.seeds.mean(axis=0).argmin())]] for side in (one, other)]
    return [
        Change(
            "worst class",
            " ".join(dict.fromkeys(names)),
            float(one.seeds.mean(axis=0).min()),
            float(other.seeds.mean(axis=0).min()),
            found.value,
            _possible("worst class", *interval),
            _possible("worst class", *single),
            float(named.error),
            (float(needed[0]), float(needed[1])),
        )
    ]
