"""FAT: friendly adversarial training; the search stops soon after it has fooled the network.

An image that is pushed far over the boundary disturbs learning more than it protects. Each image's ascent ends a few
steps after it is first misclassified; an image that holds out goes the whole way.

Paper:   Zhang et al., ICML 2020 (arXiv 2002.11242), early-stopped PGD-K-tau
Code:    zjfheart/Friendly-Adversarial-Training @ 6e461e0, earlystop.py, FAT.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: the release adds noise of deviation 0.001 to every step; here is none. It raises tau after epochs 50 and 90 of
         120, here at the same fractions of the run; it takes stopped images out of the batch, here they go on unseen,
         which is the same in eval mode. Its last halving of the learning rate, at epoch 110, is left out. The `paper`
         preset has its eps 0.031 and step 0.007, and keeps the last epoch, as it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from bench.api import (
    Batch,
    Context,
    Count,
    Inner,
    Method,
    Preset,
    Range,
    Reach,
    Targets,
    cross_entropy,
    per_image,
)
from methods import settings
from methods.combinations import in_company
from methods.pgd_at import PGDAT


@dataclass(frozen=True)
class FAT(PGDAT):
    """Cross-entropy on friendly adversarial images."""

    inner: Inner = Inner(steps=10, start="uniform", mode="eval")
    """K = 10 steps at most."""
    tau: Count = 0
    """Misclassified iterates that are passed by before the search stops; from `inner.steps` on it is PGD-AT's."""
    rises: Annotated[tuple[float, ...], Range(0, 1)] = (50 / 120, 90 / 120)
    """Fractions of the run at which tau goes up by one: epochs 50 and 90 of 120."""

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Tensor:
        """Of the iterates of max CE(S(x'), t), each image's misclassified one number tau + 1, or else the last."""
        tau = self.tau + sum(ctx.epoch / ctx.epochs >= rise for rise in self.rises)
        misses, kept = torch.zeros_like(batch.y), batch.x

        def gain(adv: Tensor) -> Tensor:
            nonlocal misses, kept
            logits = ctx.model(adv)
            kept = torch.where(per_image(misses > tau, adv), kept, adv.detach())
            misses = misses + (logits.argmax(1) != batch.y)
            return cross_entropy(logits, targets.at(adv))

        last = self.inner(ctx, gain, batch.x, reach)
        return torch.where(per_image(misses > tau, last), kept, last)


PAPER = replace(settings.OF_TRADES, epochs=120, drops=(59 / 120, 89 / 120), selection="last")

METHOD = Method(
    slots={"objective": FAT()},
    module=__name__,
    presets={
        "cifar10/paper": Preset(PAPER, settings.BUDGET_OF_TRADES),
        **settings.OURS,
        **in_company("fat"),
    },
)
