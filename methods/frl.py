"""FRL: fair robust learning by reweighing and by wider margins.

A robust network is trained on. A class that errs much more than all do, on held-out images, counts more from then on,
by one multiplier for clean and one for boundary errors, and is attacked further out.

Paper:   Xu et al., ICML 2021 (arXiv 2010.06121)
Code:    hannxu123/fair_robust @ a80547d, frlrw.py, frlrmrw.py, utils_frl.py, utils_frl2.py
Claim:   no figure of the authors is shown: their tables could not be read at their source. CFA's Table 1, CIFAR-10,
         PreActResNet-18, best checkpoint, average/worst class: AutoAttack 45.9/25.4, clean 82.8/71.4
Departs: multipliers move after each epoch, by the harness's PGD-10; in the release before each, the first too, by
         PGD-20. The step is a quarter of each image's own radius, in the release of the batch's largest. The release
         writes K = 10 into its weights and halves `rate` in its last epoch. `budget.remargin=0 budget.slack=0.1` is
         its reweighing alone. beta 1.5 comes with the presets: `trades+frl` keeps that of `trades`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from bench.api import Batch, Context, Losses, Method, Preset, Range, Reach, Schedule, Share, Tally, Uniform, Weights
from methods import settings
from methods.trades import TRADES


class Multipliers(NamedTuple):
    """One for each class, (K,) each, 0 at first."""

    clean: Tensor
    boundary: Tensor
    margin: Tensor
    """Half the logarithm of radius over eps, before it is clipped; of any sign."""


@dataclass(frozen=True)
class FRL(Uniform):
    """Weights and radii of the classes from multipliers of their excess errors."""

    rate: Share = 0.05
    """alpha_1: how fast the multiplier of clean errors moves; that of boundary errors moves twice as fast."""
    remargin: Annotated[float, Range(0, 10)] = 0.2
    """alpha_2: how fast the radii move; 0 to leave them."""
    slack: Annotated[float, Range(-1, 1)] = 0.07
    """tau: excess of a class's error rate over everyone's that is put up with."""
    most: Annotated[float, Range(1e-6, 1)] = 0.5
    """Largest sum of the multipliers of one kind."""
    radii: Annotated[tuple[float, float], Range(0)] = (0.98, 3.0)
    """Least and largest radius over eps."""

    def init(self, ctx: Context) -> Multipliers:
        """No class has been found wanting: TRADES."""
        zero = torch.zeros(ctx.classes, device=next(ctx.model.parameters()).device)
        return Multipliers(zero, zero.clone(), zero.clone())

    def reach(self, ctx: Context, batch: Batch, state: Multipliers) -> Reach:
        """Radius eps exp(2 l2_y), clipped, and a step in proportion."""
        base, wide = super().reach(ctx, batch, state), (2 * state.margin).exp().clamp(*self.radii)[batch.y]
        return Reach(wide * base.eps, wide * base.step)

    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: Multipliers) -> Weights:
        """w_y B / sum_i w_{y_i}, w = 1/K + l - mean(l), of l0 for the fit and of l1 for the divergence."""
        # K w, whose factor K falls out of the quotient, is exactly 1 where there are no multipliers
        fit, smooth = ((1 + ctx.classes * each - each.sum())[batch.y] for each in (state.clean, state.boundary))
        return Weights(fit / fit.mean().clamp(min=1e-12), smooth / smooth.mean().clamp(min=1e-12))

    def end_epoch(self, ctx: Context, state: Multipliers, tally: Tally) -> Multipliers:
        """Each multiplier moves with its class's excess error, clean or on the boundary, beyond the slack."""
        held = ctx.validate(ctx.model)
        boundary = self.excess(held.hits_clean - held.hits_adv, held.count)
        clean = state.clean + self.rate * self.excess(held.count - held.hits_clean, held.count)
        between = state.boundary + 2 * self.rate * boundary
        return Multipliers(self.capped(clean), self.capped(between), state.margin + self.remargin * boundary)

    def excess(self, errors: Tensor, count: Tensor) -> Tensor:
        """(K,) error rate of a class less that of all images less the slack; 0 for a class without images."""
        gap = errors / count.clamp(min=1) - errors.sum() / count.sum().clamp(min=1) - self.slack
        return torch.where(count > 0, gap, torch.zeros_like(gap))

    def capped(self, multiplier: Tensor) -> Tensor:
        """(K,) at least 0, and scaled down where the sum is more than may be."""
        positive = multiplier.clamp(min=0)
        return positive * (self.most / positive.sum().clamp(min=self.most))


SCHEDULES = {
    "cifar10/paper": Schedule(epochs=40, shape="piecewise", drops=(), lr=0.001, holdout=0.06, selection="last"),
    "*/short": replace(settings.SHORT, epochs=15, lr=0.01),
    "digits/digits": replace(settings.DIGITS, epochs=15, lr=0.05),
}

METHOD = Method(
    slots={"budget": FRL()},
    on="trades",
    module=__name__,
    teachers=("start",),
    presets={key: Preset(schedule, {"objective": TRADES(beta=1.5)}) for key, schedule in SCHEDULES.items()},
)
