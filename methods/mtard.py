"""MTARD: multi-teacher adversarial robustness distillation; a robust and a natural teacher, balanced step by step.

Of the natural one at clean and the robust one at adversarial images, that whose loss has fallen less gains weight.

Paper:   Zhao et al., ECCV 2022
Code:    zhaoshiji123/MTARD @ a46fbc2, mtard/mtard_resnet18_cifar10.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: KL is summed over the classes; the release averages it over B*K and multiplies by 10 on CIFAR-100, a tenth of
         the sum on both: `objective.scale=0.1`, as in the `paper` presets. The release names no rule of selection; that
         of B-MTARD, whose temperatures are left out, is taken: clean and robust accuracy alike, held-out split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from bench.api import (
    Batch,
    Context,
    Inner,
    Losses,
    Method,
    NotNegative,
    Preset,
    Share,
    State,
    Stateless,
    Targets,
    Uniform,
    Weights,
    kl,
)
from methods import ard, rslad, settings


@dataclass(frozen=True)
class TwoTeachers(Stateless):
    """Each teacher where it is strong; the robust one never sees the clean image."""

    @torch.no_grad()
    def __call__(self, ctx: Context, batch: Batch, state: State) -> Targets:
        """The natural teacher's distribution at x, the robust one's at x'."""
        clean = ctx.teacher("natural")(batch.x).float().softmax(1)
        return Targets(clean, lambda adv: ctx.teacher()(adv).float().softmax(1))


@dataclass(frozen=True)
class MTARD(ard.AgainstLabel):
    """Divergence from the targets at the clean and at the adversarial image."""

    scale: NotNegative = 1.0
    """Of both divergences, which the paper sums over the classes; 0.1 in the release."""
    inner: Inner = Inner(steps=10, start="gaussian", mode="eval")

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """KL(p_N(x) || p_S(x)) and KL(p_T(x') || p_S(x')), the teachers without a graph."""
        logits_adv, logits_clean = ctx.model(adv), ctx.model(batch.x)
        fit, smooth = kl(targets.clean, logits_clean), kl(targets.at(adv).detach(), logits_adv)
        return Losses(self.scale * fit, self.scale * smooth, logits_clean, logits_adv)


class BalanceState(NamedTuple):
    """(2,) each, clean and adversarial: mean loss of the first step, 0 before it; weights, which sum to 1."""

    first: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Balance(Uniform):
    """Weights of the two parts that follow how far each has fallen since the first step; they sum to 1."""

    rate: Share = 0.025
    """r, cut tenfold at each drop of the learning rate."""

    def init(self, ctx: Context) -> BalanceState:
        """Equal weights."""
        even = torch.full((2,), 0.5, device=next(ctx.model.parameters()).device)
        return BalanceState(0 * even, even)

    def end_step(self, ctx: Context, state: BalanceState, losses: Losses) -> BalanceState:
        """w <- w - r (w - l / sum l), l = L / L of the first step, from the losses before they are weighed."""
        now = torch.stack([losses.fit, losses.smooth]).detach().float().mean(1)
        first = torch.where(state.first > 0, state.first, now)
        fallen = (now / first.clamp(min=1e-12)).clamp(min=1e-12)
        w = state.weights[0] - self.rate * 0.1**ctx.drops * (state.weights[0] - fallen[0] / fallen.sum())
        return BalanceState(first, torch.stack([w, 1 - w]))

    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: BalanceState) -> Weights:
        """The weights that this step's losses lead to, the same for every image and without a graph."""
        return Weights(*(w.expand_as(losses.fit) for w in self.end_step(ctx, state, losses).weights))


PAPER = Preset(replace(rslad.PAPER, selection="best-mean-clean-robust"), {"objective": MTARD(scale=0.1)})
METHOD = Method(
    slots={"objective": MTARD(), "targets": TwoTeachers(), "budget": Balance()},
    module=__name__,
    teachers=("teacher", "natural"),
    presets={
        **dict.fromkeys(settings.CIFAR, PAPER),
        **settings.OURS,
    },
)
