"""MALT: a targeted APGD that aims at the classes whose borders seem nearest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.attacks.apgd import APGD, Loss
from bench.attacks.base import Passes
from bench.attacks.standing import Standing
from bench.attacks.target_classes import MAX_TARGETS, ranked_targets
from bench.errors import BadOption
from bench.losses import targeted_margin
from bench.norms import Norm, growth


@dataclass(frozen=True)
class MALT(APGD):
    """An APGD that ranks its targets by how far away their borders would be if the network were linear.

    The distance of class k is (z_y - z_k) / |grad z_y - grad z_k| at the unperturbed image, where |.| is the dual of
    the threat model's norm. The paper always takes the Euclidean length. For Linf the dual is the sum of absolute
    entries, which is right for a linear network and ranked better on the networks this was tried on.

    Source: Melamed et al. 2024, "MALT powers up adversarial attacks", section 3.

    Raises:
        BadOption: no target, fewer candidates than targets, or what an APGD refuses.
    """

    loss: Loss = "dlr"
    targets: int = 4
    candidates: int = MAX_TARGETS
    """So many wrong classes of largest logit are ranked; a backward pass each."""

    def __post_init__(self) -> None:
        """Options that make no attack are refused."""
        super().__post_init__()
        if not 1 <= self.targets <= self.candidates:
            raise BadOption(
                f"targets of a MALT is {self.targets}; at least 1 is needed, and no more than its "
                f"{self.candidates} candidates"
            )

    def goals(self, standing: Standing, norm: Norm) -> Tensor:
        """(B,T) the classes whose borders seem nearest, nearest first."""
        candidates = ranked_targets(standing, self.candidates)
        mine = candidates[standing.rows]
        aims = [partial(targeted_margin, goal=goal) for goal in mine.unbind(1)]
        _, values, grads = standing.slopes(standing.x, aims)
        rates = growth(grads.flatten(0, 1), norm).reshape(values.shape)
        nearest = (values / rates.clamp(min=torch.finfo(rates.dtype).tiny)).argsort(dim=1, descending=True, stable=True)
        goals = candidates[:, : self.targets].clone()
        goals[standing.rows] = mine.gather(1, nearest)[:, : self.targets]
        return goals

    def passes(self, classes: int) -> Passes:
        """Those of an APGD, and those of the ranking."""
        forwards, backwards = super().passes(classes)
        return Passes(forwards + 1, backwards + min(self.candidates, classes - 1))
