"""What a soundness check is: a question about a model, what was measured, and how that is judged.

Counts of images are judged by exact tests, so that bad luck with a few images raises no false alarm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from bench.errors import BenchError
from bench.soundness.measured import NotRun
from bench.soundness.subject import Subject
from bench.verdict import Judgement, Verdict


class Finding(NamedTuple):
    """What a check measured."""

    verdict: Judgement
    value: float | None
    n: int
    """Images it was measured on."""
    detail: str
    """One line for a person."""


def judgement(*, fail: bool = False, warn: bool = False) -> Judgement:
    """The graver one of what is true; "pass" if neither is."""
    return "fail" if fail else "warn" if warn else "pass"


@dataclass(frozen=True)
class Check:
    """A question about a model under examination.

    Attributes:
        name: as it is stored and shown.
        asks: the question, in a line.
        threshold: what its value is held against; None for one that only reports.
        find: measures and judges.
        version: raised when its meaning changes.
    """

    name: str
    asks: str
    threshold: float | None
    find: Callable[[Subject], Finding]
    version: int = 1

    def __call__(self, subject: Subject) -> Verdict:
        """The verdict; "not-run" and the reason where there can be none."""
        try:
            finding = self.find(subject)
        except torch.OutOfMemoryError:
            finding = Finding("not-run", None, 0, "out of memory; give a smaller batch size")
        except (NotRun, BenchError) as reason:
            finding = Finding("not-run", None, 0, " ".join(str(reason).split()))
        return Verdict(
            self.name, finding.value, self.threshold, finding.verdict, finding.n, finding.detail, self.version
        )


def check(name: str, threshold: float | None = None) -> Callable[[Callable[[Subject], Finding]], Check]:
    """A decorator that makes a check of a function; the question is the first line of its docstring."""

    def made(find: Callable[[Subject], Finding]) -> Check:
        asks = (find.__doc__ or "").strip().splitlines()[0]
        return Check(name, asks, threshold, find)

    return made


RISK = 0.01
"""A count speaks against a model only if chance alone would lead to it less often than this."""


def tail(count: int, n: int, share: float) -> float:
    """Probability of `count` or more among n, each with probability `share`."""
    below = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count))
    return max(0.0, 1 - below)


def beyond(count: int, n: int, share: float) -> bool:
    """Whether `count` of n images are so many that the true share must exceed `share`: 3 of 64 are more than 0.5 %."""
    return count > n * share and tail(count, n, share) < RISK


def outweighs(more: int, less: int) -> bool:
    """Whether `more` exceeds `less` by too much for a fair coin: 7 to 0 does, or 14 to 3 (a sign test)."""
    return more > less and tail(more, more + less, 0.5) < RISK
