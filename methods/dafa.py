"""DAFA: distance-aware fair adversarial training.

Once, when a class has shown what it is taken for, each pair of classes trades weight and radius: from the easier to
the harder one, the more the more alike they are.

Paper:   Lee et al., ICLR 2024 (arXiv 2401.12532)
Code:    rucy74/DAFA @ c60ba83, train.py, utils.py, losses.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: on PGD-AT (`pgd-at+dafa`) radius, step and weight are those of the class, as with TRADES; the release takes a
         second step and projects onto the unweighted ball there, which undoes the class's radius. A weight below 0,
         which a large strength could give, is taken as 0. No epochs are averaged and the last one is kept. The release
         trains on all of the training split, this one holds 2 % out. Nesterov momentum is on, as the release's
         inverted flag has it. Earlier commits take P_i(j) P_j(j) from the easier class too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from bench.api import (
    Batch,
    Context,
    Losses,
    Method,
    NotNegative,
    Preset,
    Reach,
    Schedule,
    Share,
    Tally,
    Uniform,
    Weights,
)
from methods import settings


@dataclass(frozen=True)
class DAFA(Uniform):
    """Radius, step and weight of a class by its similarity to others; state: w, (K,), at least 0."""

    strength: NotNegative = 1.0
    """lambda: 1 on CIFAR-10, 1.5 on CIFAR-100."""
    begin: Share = 70 / 110
    """Share of the run after which w is computed, once; epoch 70 of 110."""

    def init(self, ctx: Context) -> Tensor:
        """Every class has weight 1."""
        return torch.ones(ctx.classes, device=next(ctx.model.parameters()).device)

    def reach(self, ctx: Context, batch: Batch, state: Tensor) -> Reach:
        """Radius w_y eps, and a step that is scaled with it."""
        base, scale = super().reach(ctx, batch, state), state[batch.y]
        return Reach(scale * base.eps, scale * base.step)

    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: Tensor) -> Weights:
        """w_y for the fit; the divergence counts 1."""
        return Weights(state[batch.y], torch.ones_like(losses.smooth))

    def end_epoch(self, ctx: Context, state: Tensor, tally: Tally) -> Tensor:
        """w from what the adversarial images of each class were taken for, at the end of the epoch that passes `begin`.

        An epoch's end is the first to pass it if the one before did not, so nothing has to be remembered.
        """
        passed, before = (ctx.epoch + 1) / ctx.epochs >= self.begin, ctx.epoch / ctx.epochs >= self.begin
        if not passed or (before and ctx.epoch > 0):
            return state
        return self.weights(tally.prob_adv / tally.count_adv.clamp(min=1)[:, None])

    def weights(self, taken: Tensor) -> Tensor:
        """(K,) w, from P (K,K), row i the mean adversarial softmax of class i; a class without images trades nothing.

        w_i = 1 + lambda sum_{j != i} (P_i(j) P_j(j) if P_i(i) < P_j(j) else -P_j(i) P_i(i))
        """
        sure = taken.diagonal()
        won = taken * sure
        traded = torch.where(sure[:, None] < sure, won, -won.T).fill_diagonal_(0)
        return (1 + self.strength * traded.sum(1)).clamp(min=0)


def _paper(strength: float) -> Preset:
    # the release cuts at its epochs 100 and 105, counted from 1
    schedule = Schedule(epochs=110, shape="piecewise", drops=(99 / 110, 104 / 110), nesterov=True, selection="last")
    return Preset(replace(schedule, eps=Fraction("0.031")), {"budget": DAFA(step=0.007 / 0.031, strength=strength)})


METHOD = Method(
    slots={"budget": DAFA()},
    on="trades",
    module=__name__,
    presets={
        "cifar10/paper": _paper(1.0),
        "cifar100/paper": _paper(1.5),
        **settings.OURS,
    },
)
