"""TRADES: a clean fit plus a penalty on how far the prediction moves inside the ball.

Accuracy and robustness are traded by beta: CE(S(x), y) + beta * KL(p(x) || p(x')).

Paper:   Zhang et al., ICML 2019 (arXiv 1901.08573)
Code:    yaodongyu/TRADES @ 6e8e11b, trades.py, train_trades_cifar10.py
Claim:   CIFAR-10, WideResNet-34-10, eps 0.031: clean 84.92, AutoAttack 53.08 (RobustBench, Zhang2019Theoretically)
Departs: the step is 2/255 at 8/255 (a quarter of eps) unless the preset says otherwise; the `paper` preset has the
         release's eps 0.031 and step 0.007. The release drops the learning rate for its last two epochs, 75 and
         76; its later drops are never reached. It reports the last epoch. It forwards the clean images twice in
         train mode, which moves BatchNorm's statistics once more. Every `paper` preset trains on 98 % of the data.
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
    Preset,
    Reach,
    Targets,
    cross_entropy,
    kl,
    switched,
)
from methods import settings
from methods.combinations import in_company


@dataclass(frozen=True)
class TRADES(Adversarial):
    """Clean cross-entropy and a smoothness penalty."""

    beta: NotNegative = 6.0
    """1/lambda in the paper."""
    inner: Inner = Inner(steps=10, start="gaussian", mode="eval")

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Tensor:
        """max KL(p(x) || p(x')), p(x) fixed and of the mode that the attack is in."""
        with torch.no_grad(), switched(ctx.model, self.inner.mode):
            clean = ctx.model(batch.x).softmax(1)
        return self.inner(ctx, lambda adv: kl(clean, ctx.model(adv)), batch.x, reach)

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """CE(S(x), t) and beta * KL(p(x) || p(x')), with gradients through both branches of the penalty."""
        logits_clean, logits_adv = ctx.model(batch.x), ctx.model(adv)
        smooth = self.beta * kl(logits_clean.softmax(1), logits_adv)
        return Losses(cross_entropy(logits_clean, targets.clean), smooth, logits_clean, logits_adv)


PAPER = replace(settings.OF_TRADES, epochs=76, drops=(74 / 76,), selection="last")

METHOD = Method(
    slots={"objective": TRADES()},
    module=__name__,
    presets={
        "cifar10/paper": Preset(PAPER, settings.BUDGET_OF_TRADES),
        **settings.OURS,
        **in_company("trades"),
    },
)
