"""Fair-ARD: classes that few steps of the attack break are distilled harder.

How many iterates of the attack an image withstands is counted as it runs; the fewer they are on average in a class, the
more the class weighs in the next epoch.

Paper:   Yue et al., NeurIPS 2023
Code:    NISP-official/Fair-ARD @ 910c8cd, Fair-ARD.py
Claim:   ResNet-18, CIFAR-10, worst class under AutoAttack: at most 12.3 points above distillation methods and 5.3 above
         methods for fairness (abstract)
Departs: a class's mean count is over its own images; the release divides by N/K, the same where classes are balanced. A
         class that was not seen keeps its weight. The weights are clamped after they were scaled to mean 1, as in the
         release. As in `ard`, the `paper` preset averages KL over the classes and drops the learning rate at both of
         100 and 150 of 200; the release's second drop has no effect. It names no rule: the last epoch is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.api import (
    Batch,
    Context,
    Losses,
    Method,
    NotNegative,
    Objective,
    Preset,
    Reach,
    Tally,
    Targets,
    Uniform,
    Weights,
    require_range,
)
from methods import settings
from methods.ard import ARD, PAPER


class Withstood(NamedTuple):
    """Adversarial images (B,C,H,W) and how many iterates on the way were classified right, (B,)."""

    adv: Any
    stood: Tensor


@dataclass(frozen=True)
class Counted(Objective):
    """An objective whose attack is watched: kappa counts its iterates from the start to the last but one."""

    base: Objective = ARD()

    def attack_steps(self) -> int:
        """Those of the objective."""
        return self.base.attack_steps()

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Withstood:
        """What the objective finds, and the counts."""
        stood = torch.zeros_like(batch.y)

        def count(model: nn.Module, asked: tuple[Tensor, ...], logits: Tensor) -> None:
            if torch.is_grad_enabled():  # an iterate; what an attack compares with is asked without gradients
                stood.add_(logits.argmax(1) == batch.y)

        with ctx.model.register_forward_hook(count):
            adv = self.base.perturb(ctx, batch, targets, reach)
        return Withstood(adv, stood)

    def losses(self, ctx: Context, batch: Batch, adv: Withstood, targets: Targets) -> Losses:
        """Those of the objective, and the counts."""
        return self.base.losses(ctx, batch, adv.adv, targets)._replace(stood=adv.stood)


@dataclass(frozen=True)
class FairWeights(Uniform):
    """Both parts of the loss weighed by class, against how long the class withstood the attack in the last epoch."""

    beta: NotNegative = 2.0
    """0 for equal weights."""
    low: float = 5 / 6
    high: float = 5 / 2

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        super().__post_init__()
        require_range(self, "low", 0, self.high)

    def init(self, ctx: Context) -> Tensor:
        """(K,) all ones."""
        return torch.ones(ctx.classes, device=next(ctx.model.parameters()).device)

    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: Tensor) -> Weights:
        """w[y]."""
        return Weights(state[batch.y], state[batch.y])

    def end_epoch(self, ctx: Context, state: Tensor, tally: Tally) -> Tensor:
        """w_k = (1 / (kappa_k + 1e-5))^beta, scaled to mean 1, then clamped to [low, high]."""
        seen = tally.count > 0
        kappa = torch.where(seen, tally.stood / tally.count, torch.inf) + 1e-5
        weight = (kappa.amin() / kappa) ** self.beta * seen  # up to the scale; no power overflows
        weight = weight / (weight.sum() / seen.sum())
        return torch.where(seen, weight.clamp(self.low, self.high), state)


METHOD = Method(
    slots={"objective": Counted(ARD()), "budget": FairWeights()},
    on="ard",
    module=__name__,
    teachers=("teacher",),
    presets={
        "cifar10/paper": Preset(replace(PAPER, nesterov=True), {"objective": Counted(ARD(scale=0.1))}),
        **settings.OURS,
    },
)
