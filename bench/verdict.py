"""Verdicts of soundness checks: whether a checkpoint's figures should be believed. No torch, no numpy.

Checks are computed by the making half, kept by the store and shown beside every figure by the reading half; this is
the value that passes between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Judgement = Literal["pass", "warn", "fail", "not-run"]
"""What a check says: fail marks the row on every board, warn is only listed, not-run could not be computed."""


@dataclass(frozen=True)
class Verdict:
    """What one soundness check found.

    Attributes:
        name: of the check, such as "logit-scale".
        value: what was measured; None when nothing was.
        threshold: what it was held against; None when the check has none.
        verdict: pass, warn, fail or not-run.
        n: samples it was measured on.
        detail: one line for a person.
        version: of the check; raised when its meaning changes.

    Raises:
        ValueError: no such verdict, a number that is not finite, or a detail of more than one line.
    """

    name: str
    value: float | None
    threshold: float | None
    verdict: Judgement
    n: int
    detail: str
    version: int = 1

    def __post_init__(self) -> None:
        """A verdict that cannot be stored or shown is a fault of the check."""
        if self.verdict not in get_args(Judgement):
            raise ValueError(f"check {self.name!r} says {self.verdict!r}; wanted one of {get_args(Judgement)}")
        if not all(number is None or math.isfinite(number) for number in (self.value, self.threshold)):
            raise ValueError(
                f"check {self.name!r} measured {self.value} against {self.threshold}; use None for neither"
            )
        if len(self.detail.splitlines()) > 1:
            raise ValueError(f"check {self.name!r} has a detail of more than one line")
