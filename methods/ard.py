"""ARD: adversarially robust distillation; what a robust teacher says of the clean image is learned around it.

The label chooses the adversarial image, the teacher's softened distribution on the clean one says what to call it.

Paper:   Goldblum et al., AAAI 2020 (arXiv 1905.09747)
Code:    goldblum/AdversariallyRobustDistillation @ 779ade3, main.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: KL is summed over the classes; the release averages it over B*K, on CIFAR-100 too, and the `paper` presets,
         whose learning rate was tuned at that scale, take that `objective.scale`. The release's second drop of the
         learning rate has no effect (0.01 twice); presets follow the paper and drop at both epochs, 100 and 150 of 200.
         With alpha 1 the clean image is not forwarded; the release forwards it, which moves BatchNorm's statistics. The
         release saves every epoch and names no rule: the last one is kept. The temperature is applied to the teacher's
         distribution, not to its logits, which is the same until a probability underflows (logits 87 apart).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.api import (
    Adversarial,
    Batch,
    Context,
    Inner,
    Losses,
    Method,
    NotNegative,
    Positive,
    Preset,
    Reach,
    Schedule,
    Share,
    Targets,
    cross_entropy,
    kl,
    one_hot,
)
from methods import settings
from methods.rslad import Teacher


def tempered(p: Tensor, temperature: float) -> Tensor:
    """(B,K) softmax(z / t) from p = softmax(z): p^(1/t), normalised; at t = 1 it is p, bit for bit."""
    return p if temperature == 1 else (p.log() / temperature).softmax(1)


class AgainstLabel(Adversarial):
    """An objective that attacks the label, whatever the targets are."""

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Tensor:
        """max CE(S(x'), y)."""
        label = one_hot(batch.y, ctx.classes)
        return self.inner(ctx, lambda adv: cross_entropy(ctx.model(adv), label), batch.x, reach)


@dataclass(frozen=True)
class ARD(AgainstLabel):
    """Clean cross-entropy and tempered divergence from the targets at the adversarial image."""

    temperature: Positive = 30.0
    """t, of teacher and student."""
    alpha: Share = 1.0
    """Share of the teacher; the rest is the label's."""
    scale: NotNegative = 1.0
    """Of the divergence, which is summed over the classes; 1 / K in the release."""
    inner: Inner = Inner(steps=10, start="uniform", mode="train")

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """(1 - alpha) CE(S(x), y) and alpha t^2 KL(p_T^t(x) || p_S^t(x'))."""
        t, logits_adv = self.temperature, ctx.model(adv)
        scale = self.alpha * t**2 * self.scale
        smooth = scale * kl(tempered(targets.at(adv), t), logits_adv / t)
        if self.alpha == 1:
            return Losses(torch.zeros_like(smooth), smooth, None, logits_adv)
        logits_clean = ctx.model(batch.x)
        fit = (1 - self.alpha) * cross_entropy(logits_clean, one_hot(batch.y, ctx.classes))
        return Losses(fit, smooth, logits_clean, logits_adv)


PAPER = Schedule(epochs=200, shape="piecewise", drops=(0.5, 0.75), weight_decay=2e-4, selection="last")

METHOD = Method(
    slots={"objective": ARD(), "targets": Teacher()},
    module=__name__,
    teachers=("teacher",),
    presets={
        "cifar10/paper": Preset(PAPER, {"objective": ARD(scale=0.1)}),
        "cifar100/paper": Preset(replace(PAPER, batch_size=256), {"objective": ARD(scale=0.01)}),
        **settings.OURS,
    },
)
