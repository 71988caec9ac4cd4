"""Natural training: empirical risk on clean images.

The floor of every robust board and the ceiling of its clean column: nothing is done against an adversary.

Paper:   standard practice; the setting is AdaAD's natural baseline (Huang et al., CVPR 2023)
Code:    boyellow/AdaAD @ 9e5c6e5, Plain_Clean
Claim:   none
Departs: the presets hold 2 % of the training data out (the digits' a tenth)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.api import Batch, Context, Losses, Method, Objective, Preset, Reach, Targets, cross_entropy
from methods import settings


@dataclass(frozen=True)
class Natural(Objective):
    """Cross-entropy on the clean images."""

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Tensor:
        """No perturbation."""
        return batch.x

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """CE(S(x), y)."""
        logits = ctx.model(batch.x)
        fit = cross_entropy(logits, targets.clean)
        return Losses(fit, torch.zeros_like(fit), logits, None)


METHOD = Method(
    slots={"objective": Natural()},
    module=__name__,
    presets={
        "cifar10/paper": Preset(replace(settings.LONG, selection="last")),
        **settings.OURS,
    },
)
