"""CFA: class-wise calibrated fair adversarial training.

What a class could bear in the last epoch sets how far its images move and how much its smoothness counts in this one;
of the weights, those are averaged that left no class behind.

Paper:   Wei et al., CVPR 2023 (arXiv 2303.14460)
Code:    PKU-ML/CFA @ 071f333, train.py, attack.py
Claim:   CIFAR-10, PreActResNet-18, AutoAttack and, in brackets, clean accuracy, average/worst class, best checkpoint,
         mean of five runs: AT+CFA 50.1/24.4 (80.8/64.6), TRADES+CFA 50.1/26.5 (80.4/66.2), FAT+CFA 49.6/20.9
         (82.1/64.7) (Table 1)
Departs: t_k is hits over images of class k; the release divides K hits by all images, which differs where classes
         do not have the same size. Until `begin` TRADES keeps its own scale; in the release it is divided by 1 + beta
         from the start. The release's class-wise radius and trade are off unless asked for, its averaging begins at
         once with decay 0.88 and threshold 0.24, it pads crops by reflection and selects on the test split from half
         of the run on. The training images' accuracy is of the mode that the loss is in, train, as in the release.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import Batch, Context, Losses, Method, NotNegative, Preset, Reach, Share, Tally, Uniform, Weights
from methods import settings
from methods.combinations import in_company
from methods.fawa import FAWA


@dataclass(frozen=True)
class CFA(Uniform):
    """Radius and trade-off of a class from its robust accuracy t in the epoch before; state: t, (K,) in [0, 1]."""

    margin: NotNegative = 0.5
    """lambda_1: 0.5 with AT, 0.3 with TRADES, 0.7 with FAT."""
    trade: NotNegative = 0.5
    """lambda_2."""
    beta: NotNegative = 0.0
    """beta of the objective, which `smooth` has in it already; 0 where there is nothing to trade."""
    begin: Share = 10 / 200
    """Share of the run before the first calibrated epoch; 10 of 200 epochs."""

    def init(self, ctx: Context) -> Tensor:
        """(K,) zeros, which nobody reads: there is no epoch before the first."""
        return torch.zeros(ctx.classes, device=next(ctx.model.parameters()).device)

    def calibrated(self, ctx: Context) -> bool:
        """Whether this epoch goes by the one before."""
        return ctx.epoch > 0 and ctx.epoch / ctx.epochs >= self.begin

    def reach(self, ctx: Context, batch: Batch, state: Tensor) -> Reach:
        """eps_k = (lambda_1 + t_k) eps; the step remains a fraction of eps."""
        base = super().reach(ctx, batch, state)
        return base._replace(eps=(self.margin + state)[batch.y] * base.eps) if self.calibrated(ctx) else base

    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: Tensor) -> Weights:
        """1 / (1 + b_y) and, as `smooth` is beta KL, b_y / beta / (1 + b_y), with b_k = (lambda_2 + t_k) beta."""
        if self.beta == 0 or not self.calibrated(ctx):
            return super().weigh(ctx, batch, losses, state)
        share = (self.trade + state)[batch.y]
        whole = 1 + share * self.beta
        return Weights(1 / whole, share / whole)

    def end_epoch(self, ctx: Context, state: Tensor, tally: Tally) -> Tensor:
        """t_k: share of the class's adversarial training images that were classified right."""
        return tally.hits_adv / tally.count_adv.clamp(min=1)


METHOD = Method(
    slots={"budget": CFA()},
    brings={"average": FAWA(decay=0.85, threshold=0.2, begin=0.25, judged=True)},
    on="pgd-at",
    module=__name__,
    presets={
        "cifar10/paper": Preset(settings.FAIR),
        **settings.OURS,
        **in_company("cfa", budget=CFA()),
    },
)
