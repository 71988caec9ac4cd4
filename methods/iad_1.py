"""IAD-I: introspective distillation on ARD; the teacher is trusted as far as it is right about the adversarial image.

What the teacher says of the clean image counts by how sure it is of the label at the student's adversarial image; for
the rest the student listens to what it says of the clean image itself.

Paper:   Zhu et al., ICLR 2022 (arXiv 2106.04928)
Code:    ZFancy/IAD @ a8091a8, IAD-I.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: the teacher's term is weighted by the trust, as in the paper; in the release it keeps full weight and the
         student's own is added: `objective.as_released=true`. KL is summed over the classes by both. The release's
         second drop of the learning rate has no effect (0.01 twice); presets follow the paper and drop at both epochs,
         100 and 150 of 200. The release's clean cross-entropy has weight 0 and is left out; a further train-mode
         forward of the clean image, which moves BatchNorm's statistics, too. It selects on the
         test split, presets on a held-out one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.api import (
    Batch,
    Context,
    Inner,
    Losses,
    Method,
    NotNegative,
    Positive,
    Preset,
    Share,
    Targets,
    kl,
)
from methods import ard, settings
from methods.adaad import TeacherEverywhere
from methods.ard import AgainstLabel, tempered


def trust(ctx: Context, batch: Batch, said: Tensor, beta: float, begin: float) -> Tensor:
    """(B,) a = p_T(x')_y^beta in [0, 1], from p_T(x') (B,K); 1 until the share `begin` of the epochs is over."""
    right = said.detach().gather(1, batch.y[:, None])[:, 0]
    return right**beta if ctx.epoch >= round(begin * ctx.epochs) else torch.ones_like(right)


def introspection(logits_clean: Tensor, logits_adv: Tensor) -> Tensor:
    """(B,) KL(p_S(x) || p_S(x')), with gradients through both branches."""
    return kl(logits_clean.softmax(1), logits_adv)


@dataclass(frozen=True)
class IAD1(AgainstLabel):
    """Divergence from the teacher where it is trusted, from the student's own clean prediction where it is not."""

    temperature: Positive = 1.0
    """t, of teacher and student in the teacher's term."""
    beta: NotNegative = 0.1
    """Exponent of the trust; at 0 the teacher is always trusted."""
    begin: Share = 60 / 200
    """Share of the run in which the teacher is trusted unasked; 60 epochs of 200."""
    as_released: bool = False
    """The teacher's term at full weight, whatever the trust."""
    inner: Inner = Inner(steps=10, start="uniform", mode="train")

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """a t^2 KL(p_T^t(x) || p_S^t(x')) and (1 - a) KL(p_S(x) || p_S(x')), a the trust."""
        logits_adv, logits_clean = ctx.model(adv), ctx.model(batch.x)
        t, a = self.temperature, trust(ctx, batch, targets.at(adv), self.beta, self.begin)
        taught = t**2 * kl(tempered(targets.clean, t), logits_adv / t)
        own = introspection(logits_clean, logits_adv)
        return Losses(taught if self.as_released else a * taught, (1 - a) * own, logits_clean, logits_adv)


PAPER = replace(ard.PAPER, selection="best-robust")

METHOD = Method(
    slots={"objective": IAD1(), "targets": TeacherEverywhere()},
    module=__name__,
    teachers=("teacher",),
    presets={
        **dict.fromkeys(settings.CIFAR, Preset(PAPER)),
        **settings.OURS,
    },
)
