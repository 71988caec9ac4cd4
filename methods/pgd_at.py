"""PGD-AT: adversarial training on the strongest image that projected gradient ascent finds.

Only the worst case within the ball is learned: min over weights of the mean over images of max CE(S(x'), y).

Paper:   Madry et al., ICLR 2018 (arXiv 1706.06083); the setting is Rice et al., ICML 2020 (arXiv 2002.11569)
Code:    locuslab/robust_overfitting @ c47a25c, train_cifar.py
Claim:   CIFAR-10, PreActResNet-18, robust accuracy under PGD-10, best and last epoch: 53.49 and 45.59
         (clean 82.92 and 84.93), from the authors' experiment logs in the repository
Departs: the release selects on the test split, this one on a held-out split of the training data; it forwards the
         adversarial images once more, and after the step the clean ones, in train mode, which moves BatchNorm's
         statistics
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
    Preset,
    Reach,
    Targets,
    cross_entropy,
)
from methods import settings


@dataclass(frozen=True)
class PGDAT(Adversarial):
    """Cross-entropy on the adversarial images."""

    inner: Inner = Inner(steps=10, start="uniform", mode="train")
    """Ten steps of 2/255 from a uniform start; the released loop attacks in train mode."""

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Tensor:
        """max CE(S(x'), t), t the label or what stands in its place."""
        return self.inner(ctx, lambda adv: cross_entropy(ctx.model(adv), targets.at(adv)), batch.x, reach)

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """CE(S(x'), t)."""
        logits = ctx.model(adv)
        fit = cross_entropy(logits, targets.at(adv))
        return Losses(fit, torch.zeros_like(fit), None, logits)


METHOD = Method(
    slots={"objective": PGDAT()},
    module=__name__,
    presets={
        **dict.fromkeys(settings.CIFAR, Preset(replace(settings.LONG, normalize=True))),
        **settings.OURS,
    },
)
