"""Which wrong classes a targeted attack aims at."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.standing import Standing

MAX_TARGETS = 9
"""Targets of the standard line-up; fewer where there are fewer wrong classes."""


def ranked_targets(standing: Standing, targets: int | None) -> Tensor:
    """(B,T) int64, for each image of the batch the wrong classes of largest logit, largest first.

    It takes a forward pass on the unperturbed images. T is `targets`, or the number of wrong classes if `targets` is
    None or larger. Images that have left get class 0, which means nothing.

    Source: Croce and Hein 2020, section 4.
    """
    with torch.no_grad():
        logits = standing.logits(standing.x)
    wrong = logits.scatter(1, standing.y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    classes = logits.shape[1] - 1
    count = classes if targets is None else min(targets, classes)
    goals = torch.zeros(len(standing.forwards), count, dtype=torch.int64, device=wrong.device)
    goals[standing.rows] = wrong[:, :count]
    return goals
