"""AdaIAD: AdaAD with introspection; the student also listens to itself where the teacher is unsure of the label.

Images are found as in AdaAD, the teacher is asked about them, and from some epoch on the student's own clean
prediction is added by how far the teacher is from the label.

Paper:   Huang et al., CVPR 2023
Code:    boyellow/AdaAD @ 9e5c6e5, main.py (AdaAD_with_IAD1)
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: the paper's formula could not be read, so the release's holds: the teacher's term at full weight
         (`objective.as_released=false` weights it by the trust, as the paper of IAD does) and temperature 30, where IAD
         has 1. KL is summed over the classes by both. The release's clean cross-entropy has weight 0 and is left out,
         with its further train-mode forwards. Radius, step and selection as in AdaAD.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bench.api import Batch, Context, Inner, Losses, Method, Positive, Preset, Reach, Targets, constant
from methods import settings
from methods.adaad import AdaAD, TeacherEverywhere
from methods.iad_1 import IAD1


@dataclass(frozen=True)
class AdaIAD(IAD1):
    """Divergence from the teacher at the adversarial image, and from the student's own clean prediction."""

    temperature: Positive = 30.0
    as_released: bool = True
    inner: Inner = Inner(steps=10, start="gaussian", mode="eval")

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Tensor:
        """max KL(p_T(x') || p_S(x')), with the gradient through both networks."""
        return AdaAD(inner=self.inner).perturb(ctx, batch, targets, reach)

    def losses(self, ctx: Context, batch: Batch, adv: Tensor, targets: Targets) -> Losses:
        """t^2 KL(p_T^t(x') || p_S^t(x')) and (1 - a) KL(p_S(x) || p_S(x')), a the trust."""
        said = targets.at(adv).detach()
        return super().losses(ctx, batch, adv, Targets(said, constant(said)))


METHOD = Method(
    slots={"objective": AdaIAD(), "targets": TeacherEverywhere()},
    module=__name__,
    teachers=("teacher",),
    presets={
        **dict.fromkeys(settings.CIFAR, Preset(settings.LONG)),
        **settings.OURS,
    },
)
