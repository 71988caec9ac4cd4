"""AdaAD: adaptive adversarial distillation; the teacher is asked at the adversarial image, while it is being found too.

The attack looks for the image on which student and teacher disagree most, through both networks, and the student
then learns what the teacher says there.

Paper:   Huang et al., CVPR 2023
Code:    boyellow/AdaAD @ 9e5c6e5, AT_helper.py, main.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: KL is summed over the classes; the release averages it over B*K on CIFAR-10 and sums it on CIFAR-100, ten
         times the effective scale, and so do the `paper` presets by `objective.scale`. eps is 8/255 and the step 2/255,
         as in the release's main CIFAR-10 command; its script's defaults are 16/255 and 4/255. With alpha 1 the clean
         image is not forwarded; the release forwards it, which moves BatchNorm's statistics. It selects on the test
         split, presets on a held-out one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import Batch, Context, Losses, Method, Preset, Share, State, Stateless, Targets, kl
from methods import settings
from methods.rslad import RSLAD


@dataclass(frozen=True)
class TeacherEverywhere(Stateless):
    """The teacher's distribution on whatever image it is asked about, temperature 1."""

    def __call__(self, ctx: Context, batch: Batch, state: State) -> Targets:
        """p_T(x), and p_T(x') with a graph to x' where x' carries one, as in the attack."""

        def at(adv: Tensor) -> Tensor:
            soft: Tensor = ctx.teacher()(adv).float().softmax(1)
            return soft

        with torch.no_grad():
            return Targets(at(batch.x), at)


@dataclass(frozen=True)
class AdaAD(RSLAD):
    """RSLAD's objective; asked for targets that follow x', the attack goes through the teacher too."""

    alpha: Share = 1.0
    """Share of the adversarial term; nothing is left for the clean one unless it is below 1."""

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """(1 - alpha) KL(p_T(x) || p_S(x)) and alpha KL(p_T(x') || p_S(x')); the teacher carries no graph."""
        logits_adv = ctx.model(adv)
        smooth = self.alpha * self.scale * kl(targets.at(adv).detach(), logits_adv)
        if self.alpha == 1:
            return Losses(torch.zeros_like(smooth), smooth, None, logits_adv)
        logits_clean = ctx.model(batch.x)
        fit = (1 - self.alpha) * self.scale * kl(targets.clean, logits_clean)
        return Losses(fit, smooth, logits_clean, logits_adv)


METHOD = Method(
    slots={"objective": AdaAD(), "targets": TeacherEverywhere()},
    module=__name__,
    teachers=("teacher",),
    presets={
        "cifar10/paper": Preset(settings.LONG, {"objective": AdaAD(scale=0.1)}),
        "cifar100/paper": Preset(settings.LONG),
        **settings.OURS,
    },
)
