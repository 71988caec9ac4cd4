"""Margins: how much of each figure a candidate may lose before it counts, and what an interval says of that.

Source: Schuirmann, A comparison of the two one-sided tests procedure and the power approach for assessing the
    equivalence of average bioavailability, J. Pharmacokinetics and Biopharmaceutics 15 (1987); Piaggio et al.,
    Reporting of noninferiority and equivalence randomized trials, JAMA 308 (2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.errors import BadOption
from bench.report.changes import Change, Kind

Word = Literal["worse", "not worse", "better", "inconclusive", "incomparable"]


@dataclass(frozen=True)
class Margins:
    """What may be lost: fractions of the samples, and the NSD as it is.

    Attributes:
        accuracy: of the accuracy.
        each_class: of the accuracy of every class.
        worst_class: of the accuracy of the worst class.
        nsd: what the NSD may rise by.

    Raises:
        BadOption: one is negative, not below 1, or no number.
    """

    accuracy: float = 0.01
    each_class: float = 0.05
    worst_class: float = 0.03
    nsd: float = 0.02

    def __post_init__(self) -> None:
        """A margin that is none is refused where it comes in."""
        for name, value in vars(self).items():
            if not 0 <= value < 1:
                what = "a rise" if name == "nsd" else "a fraction of the samples (in points: below 100)"
                raise BadOption(
                    f"the margin of {name.replace('_', ' ')} is {value:g}; it is {what}, at least 0 and below 1"
                )

    def of(self, kind: Kind) -> float:
        """The margin of one kind of figure."""
        by_kind: dict[Kind, float] = {
            "accuracy": self.accuracy,
            "class": self.each_class,
            "worst class": self.worst_class,
            "NSD": self.nsd,
        }
        return by_kind[kind]


def judged(change: Change, margin: float) -> Word:
    """What the intervals of one figure say.

    worse: surely lower, by the interval that holds for all figures at once, and by more than the margin as far as can
    be seen. better: surely higher, likewise. not worse: surely not lower by the margin, by this figure's own interval,
    as all figures must be not worse for the candidate to be (an intersection of tests needs no correction; Berger,
    Multiparameter hypothesis testing and acceptance sampling, Technometrics 24, 1982). inconclusive: none of these.
    """
    seen = change.sense * change.difference
    low, high = sorted(change.sense * end for end in change.interval)
    if high < 0 and seen < -margin:
        return "worse"
    if low > 0:
        return "better"
    return "not worse" if min(change.sense * end for end in change.single) > -margin else "inconclusive"


def together(words: list[Word]) -> Word:
    """The verdict on a candidate from those on its figures."""
    if not words:
        return "incomparable"
    order: tuple[Word, ...] = ("worse", "inconclusive", "better", "not worse")
    return next(word for word in order if word in words)
