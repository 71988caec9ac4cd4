"""MART: the images that the network gets wrong when clean are the ones whose smoothness counts.

The adversarial fit asks for a margin over the strongest other class, and the penalty of TRADES is weighted by how
little the clean image is believed to be of its class.

Paper:   Wang et al., ICLR 2020 (openreview rklOg6EFwS)
Code:    YisenWang/MART @ 2d83e17, mart.py
Claim:   CIFAR-10, WideResNet-34-10, AutoAttack: MART-AWP 54.23 (AWP's official README); no figure of MART alone is
         shown: the paper's tables could not be read at their source
Departs: -log(1 - max p) is computed from the logits and has no bound; the release adds 1e-4 inside the logarithm,
         which bounds it at 9.2: `objective.floor=1e-4`. Its weight is 1e-7 larger and its divergence has 1e-12 inside
         a logarithm; neither is here. The step is 2/255 at 8/255 unless the preset says otherwise; the `paper` preset
         is the release's ResNet-18, eps 0.031 and step 0.007 (its WideResNet: 90 epochs, lr 0.1, decay 7e-4, beta 6).
         The release keeps every epoch and shows the test split; here the best robust one on a held-out split is kept.
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
    Share,
    Targets,
    cross_entropy,
    kl,
)
from methods import settings


@dataclass(frozen=True)
class MART(Adversarial):
    """Boosted cross-entropy on the adversarial images and a smoothness penalty weighted by clean doubt."""

    beta: NotNegative = 5.0
    """lambda in the paper."""
    floor: Share = 0.0
    """Added to 1 - max p inside the logarithm; 1e-4 in the release."""
    inner: Inner = Inner(steps=10, start="gaussian", mode="eval")

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Tensor:
        """max CE(S(x'), t)."""
        return self.inner(ctx, lambda adv: cross_entropy(ctx.model(adv), targets.at(adv)), batch.x, reach)

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """BCE(x') and beta * KL(p(x) || p(x')) * (1 - p(x)_y), with gradients through the weight too.

        BCE(x') = CE(S(x'), t) - log(1 - max_{k != y} p(x')_k).
        """
        logits_clean, logits_adv = ctx.model(batch.x), ctx.model(adv)
        p = logits_clean.softmax(1)
        doubt = 1 - p.gather(1, batch.y[:, None])[:, 0]
        fit = cross_entropy(logits_adv, targets.at(adv)) + self.boost(logits_adv, batch.y)
        return Losses(fit, self.beta * kl(p, logits_adv) * doubt, logits_clean, logits_adv)

    def boost(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) -log(1 + floor - max_{k != y} p_k) in nats: small where no other class is believed."""
        log_p = logits.log_softmax(1)
        rival = log_p.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
        # 1 - p_rival is what the other classes sum to; their logarithm is finite where the difference rounds to 0
        rest = log_p.scatter(1, rival, -torch.inf).logsumexp(1)
        return -torch.logaddexp(rest, torch.full_like(rest, self.floor).log())


PAPER = replace(settings.OF_TRADES, epochs=120, lr=0.01, drops=(74 / 120, 89 / 120, 99 / 120), weight_decay=3.5e-3)

METHOD = Method(
    slots={"objective": MART()},
    module=__name__,
    presets={
        "cifar10/paper": Preset(PAPER, settings.BUDGET_OF_TRADES),
        **settings.OURS,
    },
)
