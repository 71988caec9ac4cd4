"""BAT: balance adversarial training; the pair of iterates on either side of the decision boundary is what is learned.

Classes differ in how easily they are attacked and in which class the attack ends: the attack stops around the boundary,
and predictions there are drawn towards the uniform distribution.

Paper:   Sun et al., 2022 (arXiv 2209.07534)
Code:    silvercherry/Improving-Robust-Fairness-via-Balance-Adversarial-Training @ 9bcee67, train.py, train_mode
Claim:   worst-class accuracy 5 to 10 points above other methods' on CIFAR-10, CIFAR-100 and ImageNette (abstract)
Departs: x_fa is tau steps past the first misclassified iterate; the release counts iterates seen misclassified, so that
         an image which recovers goes on: `objective.as_released=true`. Both images are read off one attack, in the
         release off two. An image never seen misclassified gives its final iterate, which nobody looks at, for both,
         as in the release; one wrong from the start gives the clean image for x_lc, there the start 0.001 away. The
         paper's uniform constraint on the attack is, as in the release, a term of the outer loss, the same for all
         classes. The release has no rule of selection and trains on all images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from bench.api import (
    Adversarial,
    Batch,
    Context,
    Count,
    Inner,
    Losses,
    Method,
    NotNegative,
    Preset,
    Reach,
    Targets,
    cross_entropy,
    kl,
    per_image,
    switched,
)
from methods import settings


def _entropy(logits: Tensor) -> Tensor:
    return cross_entropy(logits, logits.softmax(1))


class Around(NamedTuple):
    """Two iterates of one attack, (B,C,H,W) each."""

    first_adv: Tensor
    """x_fa, tau steps past the first misclassification."""
    last_clean: Tensor
    """x_lc, the last before it."""


@dataclass(frozen=True)
class BAT(Adversarial):
    """Cross-entropy before the boundary, a smoothness penalty beyond it, entropy on both sides."""

    beta: NotNegative = 6.0
    """Weight of the smoothness penalty."""
    tau: Count = 1
    """Steps past the first misclassification."""
    as_released: bool = False
    """Count tau in further iterates seen misclassified instead of steps."""
    inner: Inner = Inner(steps=10, start="gaussian", mode="eval")

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Around:
        """max KL(p(x) || p(x')), p(x) fixed; what is kept are iterates on the way."""
        with torch.no_grad(), switched(ctx.model, self.inner.mode):
            clean = ctx.model(batch.x).softmax(1)
        first_adv = last_clean = before = batch.x
        past = torch.full_like(batch.y, -1)  # misclassification makes it 0, every step from there on adds 1

        def gain(adv: Tensor) -> Tensor:
            nonlocal first_adv, last_clean, before, past
            logits, here = ctx.model(adv), adv.detach()
            wrong = logits.argmax(1) != batch.y
            last_clean = torch.where(per_image((past < 0) & wrong, here), before, last_clean)
            further = (wrong if self.as_released else wrong | (past >= 0)) & (past < self.tau)
            past, before = past + further, here
            first_adv = torch.where(per_image(further & (past == self.tau), here), here, first_adv)
            return kl(clean, logits)

        final = self.inner(ctx, gain, batch.x, reach)
        reached, crossed = per_image(past == self.tau, final), per_image(past >= 0, final)
        return Around(torch.where(reached, first_adv, final), torch.where(crossed, last_clean, final))

    def losses(self, ctx: Context, batch: Batch, adv: Around, targets: Targets) -> Losses:
        """CE(S(x_lc), t) and beta KL(p(x) || p(x_fa)) + KL(p(x_lc) || u) + KL(p(x_fa) || u), u uniform."""
        logits_lc, logits_fa, logits_clean = ctx.model(adv.last_clean), ctx.model(adv.first_adv), ctx.model(batch.x)
        # KL(p || u) = log K - H(p), which stays finite where a probability underflows
        uneven = 2 * math.log(ctx.classes) - _entropy(logits_lc) - _entropy(logits_fa)
        smooth = self.beta * kl(logits_clean.softmax(1), logits_fa) + uneven
        return Losses(cross_entropy(logits_lc, targets.at(adv.last_clean)), smooth, logits_clean, logits_fa)


PAPER = replace(settings.OF_TRADES, epochs=200, drops=(0.37, 0.445, 0.495), selection="last")
"""Learning rate cut at epochs 75, 90 and 100 of 200."""

METHOD = Method(
    slots={"objective": BAT()},
    module=__name__,
    presets={
        "cifar10/paper": Preset(PAPER, settings.BUDGET_OF_TRADES),
        **settings.OURS,
    },
)
