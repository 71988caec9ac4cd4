"""FAAL: fairness-aware adversarial learning; each batch is weighed by the worst distribution over its classes.

Two epochs of fine-tuning make a robust network fairer: between the attack and the step, the class weights that hurt
most within a ball around equal ones are found, and the loss is taken under them.

Paper:   Zhang et al., CVPR 2024 (arXiv 2402.17729)
Code:    TrustAI/FAAL @ b20ee9d, ft_prn.py, FAAL.py
Claim:   CIFAR-10, PreActResNet-18 from PGD-AT, cross-entropy loss, r 0.5: AutoAttack 45.51, of the worst class 31.1
         (the authors' logs in the repository)
Departs: the maximised sum runs over the images of the batch, as in the release, so that class k enters with its count
         times its mean margin, the sum of its margins; an absent class thereby enters with 0, and the margin of -1 that
         the release gives it never counts. The release solves a cone programme per batch, here its dual in one
         variable is solved. It forwards the clean images in train mode even where only adversarial ones are learned,
         which moves BatchNorm's statistics once more, and with AWP it climbs the loss without class weights. It
         selects on 2,560 test images, here by the same sum of average and worst class on a held-out split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.api import (
    BadRecipe,
    Batch,
    Context,
    Inner,
    Losses,
    Method,
    NotNegative,
    Preset,
    Schedule,
    State,
    Uniform,
    Weights,
    one_hot,
    probability_margin,
)
from methods import settings
from methods.pgd_at import PGDAT

LARGEST = 700.0
"""Of log(1 + a): a is up to 1e304, within float64."""
SECTIONS, ROUNDS = 128, 9
"""The interval of log(1 + a) is cut so finely and so often: to 700 / 128^9, below the rounding of float64."""


def worst_distribution(gain: Tensor, radius: float) -> Tensor:
    """(K,) float64 K q, q maximising sum_k q_k g_k over the simplex where KL(u || q) <= radius, u uniform.

    Stationarity gives q_k proportional to 1 / (1 + a (max g - g_k)); the divergence grows with a >= 0 and is searched
    for the radius, all on the device of `gain` (K,). Equal gains, or radius 0, give all ones.
    """
    fall = gain.amax() - gain.double()
    fall = fall / fall.amax().clamp(min=torch.finfo(torch.float64).tiny)
    low, width = fall.new_zeros(()), LARGEST
    ticks = torch.arange(SECTIONS, dtype=torch.float64, device=gain.device) / SECTIONS
    for _ in range(ROUNDS):
        at = low + width * ticks
        slope = at.expm1()[:, None] * fall
        divergence = slope.log1p().mean(1) + torch.log1p(-(slope / (1 + slope)).mean(1))
        low = torch.where(divergence.clamp(min=0) < radius, at, low).amax()
        width /= SECTIONS
    density = 1 / (1 + low.expm1() * fall)
    return density / density.mean()


@dataclass(frozen=True)
class FAAL(Uniform):
    """Images weighed by class, for the worst distribution over the classes of the batch."""

    radius: NotNegative = 0.5
    """r, of the ball around equal weights, in nats."""

    @torch.no_grad()
    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: State) -> Weights:
        """K q[y], q the worst distribution for the margins max_{k != y} p_k - p_y at the adversarial images."""
        if losses.logits_adv is None:
            raise BadRecipe("faal weighs by adversarial margins; this objective looks at no adversarial images")
        margins = probability_margin(losses.logits_adv.double(), batch.y)
        gain = (margins[:, None] * one_hot(batch.y, ctx.classes)).sum(0)
        weight = worst_distribution(gain, self.radius)[batch.y].to(losses.fit.dtype)
        return Weights(weight, weight)


PAPER = Schedule(epochs=2, lr=0.01, shape="piecewise", drops=(0.5,), selection="best-robust-plus-worst")
OBJECTIVE = {"objective": PGDAT(inner=Inner(steps=10, start="uniform", mode="eval"))}

METHOD = Method(
    slots={"budget": FAAL()},
    on="pgd-at",
    module=__name__,
    teachers=("start",),
    presets={
        "cifar10/paper": Preset(replace(PAPER, normalize=True), OBJECTIVE),
        "*/short": Preset(PAPER, OBJECTIVE),
        "digits/digits": Preset(
            replace(settings.DIGITS, epochs=10, lr=0.01, shape="piecewise", drops=(0.5,)), OBJECTIVE
        ),
    },
)
