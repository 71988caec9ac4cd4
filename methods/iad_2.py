"""IAD-II: introspective distillation on AKD2; label, robust teacher and standard-trained teacher share the loss.

Half of it is the robust teacher's, and goes to the student's own clean prediction where that teacher is not sure of the
label at the adversarial image.

Paper:   Zhu et al., ICLR 2022 (arXiv 2106.04928)
Code:    ZFancy/IAD @ a8091a8, IAD-II.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: the release's second drop of the learning rate has no effect (0.01 twice); presets follow the paper and drop at
         both epochs, 100 and 150 of 200. The clean image is forwarded from the first epoch on, in the release only once
         introspection begins. The release selects on the test split, presets on a held-out one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import (
    Batch,
    Context,
    Inner,
    Losses,
    Method,
    NotNegative,
    Preset,
    Share,
    Targets,
    cross_entropy,
    kl,
    one_hot,
    require_range,
)
from methods import settings
from methods.adaad import TeacherEverywhere
from methods.ard import AgainstLabel
from methods.iad_1 import PAPER, introspection, trust


@dataclass(frozen=True)
class IAD2(AgainstLabel):
    """Cross-entropy and divergences from two teachers and from the student's own clean prediction."""

    robust: float = 0.5
    """alpha_1: share of the robust teacher and of introspection together."""
    natural: Share = 0.25
    """alpha_2: share of the standard-trained teacher; the rest is the label's."""
    beta: NotNegative = 0.1
    """Exponent of the trust; at 0 the teacher is always trusted, which is AKD2."""
    begin: Share = 40 / 200
    """Share of the run in which the teacher is trusted unasked; 40 epochs of 200."""
    inner: Inner = Inner(steps=10, start="uniform", mode="train")

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        super().__post_init__()
        require_range(self, "robust", 0, 1 - self.natural)

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """What label and teachers say at x', and introspection; with a the trust and T' the standard-trained teacher.

        (1 - a1 - a2) CE(S(x'), y) + a1 a KL(p_T(x') || p_S(x')) + a2 KL(p_T'(x') || p_S(x')), and
        a1 (1 - a) KL(p_S(x) || p_S(x')).
        """
        logits_adv, logits_clean = ctx.model(adv), ctx.model(batch.x)
        with torch.no_grad():
            said, standard = targets.at(adv), ctx.teacher("natural")(adv).float().softmax(1)
        a = trust(ctx, batch, said, self.beta, self.begin)
        fit = (1 - self.robust - self.natural) * cross_entropy(logits_adv, one_hot(batch.y, ctx.classes))
        fit = fit + self.robust * a * kl(said, logits_adv) + self.natural * kl(standard, logits_adv)
        own = self.robust * (1 - a) * introspection(logits_clean, logits_adv)
        return Losses(fit, own, logits_clean, logits_adv)


METHOD = Method(
    slots={"objective": IAD2(), "targets": TeacherEverywhere()},
    module=__name__,
    teachers=("teacher", "natural"),
    presets={
        **dict.fromkeys(settings.CIFAR, Preset(PAPER)),
        **settings.OURS,
    },
)
