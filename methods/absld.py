"""ABSLD: anti-bias soft-label distillation.

Hard classes hear a sharper teacher, easy classes a softer one; after each epoch the class temperatures move against
the class risks, so that the student's robustness evens out over the classes.

Paper:   Zhao et al., NeurIPS 2024 (arXiv 2312.05508)
Code:    zhaoshiji123/ABSLD @ 7407c3a, resnet18_absld_cifar10.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: clean and adversarial temperatures are separate, as in the paper; in the release both targets become
         z / (T_adv * T_clean), because its two tempered tensors share storage: `targets.as_released=true`. KL and scale
         as in RSLAD, `objective.scale=0.1` for the release. Class risks are means over the class's images where the
         release has sums (equal up to a factor that cancels when classes are balanced). The release selects on the
         test split and stops at its first save, an undefined name. It has no script for CIFAR-100 and Tiny-ImageNet:
         those presets are its CIFAR-10 setting, with a tenth of the sum over the classes by choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from bench.api import Batch, Context, Method, NotNegative, Preset, Stateless, Tally, Targets, constant, require_range
from methods import settings
from methods.rslad import PAPER, RSLAD


class Temperatures(NamedTuple):
    """Of the teacher, (K,) each."""

    clean: Tensor
    adv: Tensor


@dataclass(frozen=True)
class BalancedTeacher(Stateless):
    """The teacher's distribution on the clean image, tempered by the image's class."""

    rate: NotNegative = 0.1
    """How far the extreme class moves in an epoch; cut tenfold at each learning-rate drop."""
    low: float = 0.5
    high: float = 5.0
    as_released: bool = False
    """Divide both logits by the product of the two temperatures."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        super().__post_init__()
        require_range(self, "low", 1e-6, self.high)

    def init(self, ctx: Context) -> Temperatures:
        """All temperatures are 1: the first epoch is RSLAD's."""
        one = torch.ones(ctx.classes, device=next(ctx.model.parameters()).device)
        return Temperatures(one, one.clone())

    @torch.no_grad()
    def __call__(self, ctx: Context, batch: Batch, state: Temperatures) -> Targets:
        """softmax(z_T(x) / T[y]) with the clean and with the adversarial temperature."""
        logits = ctx.teacher()(batch.x).float()
        clean, adv = state.clean[batch.y], state.adv[batch.y]
        if self.as_released:
            clean = adv = clean * adv
        soft = (logits / adv[:, None]).softmax(1)
        return Targets((logits / clean[:, None]).softmax(1), constant(soft))

    def end_epoch(self, ctx: Context, state: Temperatures, tally: Tally) -> Temperatures:
        """Move both vectors against the class's risks on clean and on adversarial images."""
        rate = self.rate * 0.1**ctx.drops
        return Temperatures(
            self.sharpen(state.clean, tally.risk_clean(), rate), self.sharpen(state.adv, tally.risk_adv(), rate)
        )

    def sharpen(self, temperature: Tensor, risk: Tensor, rate: float) -> Tensor:
        """(K,) lower where the risk is above the mean of the classes, higher where below."""
        gap = risk - risk.mean()
        return (temperature - rate * gap / gap.abs().max().clamp(min=1e-12)).clamp(self.low, self.high)


METHOD = Method(
    slots={"targets": BalancedTeacher()},
    on="rslad",
    module=__name__,
    teachers=("teacher",),
    presets={
        **dict.fromkeys(
            (*settings.CIFAR, "tiny-imagenet/paper"),
            Preset(replace(PAPER, selection="best-robust-plus-worst"), {"objective": RSLAD(scale=0.1)}),
        ),
        **settings.OURS,
    },
)
