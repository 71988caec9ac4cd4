"""Which epoch's weights are kept: rules over class vectors of a held-out split, never over the test set.

A new rule is one line of `RULES`; a schedule, `evenbench select` and the epochs kept on disk go by that table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.errors import UnknownName

Vector = npt.NDArray[np.float64]

LAST = "last"
"""The rule that needs no held-out split."""

RULES: Mapping[str, Callable[[int, Vector, Vector, Vector], float]] = MappingProxyType(
    {
        LAST: lambda epoch, n, clean, adv: epoch,
        "best-robust": lambda epoch, n, clean, adv: adv.sum() / n.sum(),
        "best-robust-plus-worst": lambda epoch, n, clean, adv: adv.sum() / n.sum() + (adv / n).min(),
        "best-mean-clean-robust": lambda epoch, n, clean, adv: (clean.sum() + adv.sum()) / (2 * n.sum()),
    }
)
"""Score of an epoch from its number and from images, clean hits and robust hits per class, (K,); the highest is kept.

Source: best robust accuracy (Rice et al. 2020); average plus worst class (CFA, Wei et al. 2023, section 5.1);
mean of clean and robust (B-MTARD, released selection).
"""


def score(rule: str, epoch: int, n: Vector, clean: Vector, adv: Vector) -> float:
    """How good an epoch is under a rule.

    Args:
        rule: name of the rule.
        epoch: number of the epoch.
        n: (K,) held-out images per class.
        clean: (K,) of them classified correctly.
        adv: (K,) of them classified correctly under attack.

    Raises:
        UnknownName: no such rule.
    """
    if rule not in RULES:
        raise UnknownName.among("selection rule", rule, RULES)
    return float(RULES[rule](epoch, n, clean, adv))


def held_out(history: list[dict[str, Any]]) -> dict[int, tuple[Vector, Vector, Vector]]:
    """By epoch that was validated: held-out images, clean hits and robust hits per class, (K,) each."""
    return {
        int(row["epoch"]): (
            np.array(row["n"], float),
            np.array(row["hits_clean"], float),
            np.array(row["hits_adv"], float),
        )
        for row in history
        if row["split"] == "valid"
    }


def best_epoch(history: list[dict[str, Any]], rule: str) -> int:
    """The epoch that a selection rule keeps; the earliest of equals."""
    scores = {epoch: score(rule, epoch, *vectors) for epoch, vectors in held_out(history).items()}
    if rule == LAST or not scores:  # the newest epoch may not have been validated
        return max(int(row["epoch"]) for row in history)
    return int(max(scores, key=lambda epoch: (scores[epoch], -epoch)))
