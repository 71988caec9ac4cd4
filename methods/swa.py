"""SWA: stochastic weight averaging; the equal average of the weights after each epoch.

The average of what training passes through lies in a flatter place than any of it, which softens robust overfitting.

Paper:   Izmailov et al., UAI 2018 (arXiv 1803.05407); for adversarial training Chen et al., ICLR 2021
         (openreview qZzy5urZw9)
Code:    VITA-Group/Alleviate-Robust-Overfitting @ 4066275, main_adv.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: BatchNorm statistics are averaged with the weights, not re-estimated by a pass over the clean training images
         after every epoch. The average begins at the same fraction of the run as the release's epoch 55 of 200; until
         then it is the trained weights. Chen et al. add distillation from two teachers, which is not part of this.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import Context, Method, Preset, Schedule, Share, Stateless, Tally, blend
from methods import settings


@dataclass(frozen=True)
class SWA(Stateless):
    """theta_avg <- (n theta_avg + theta) / (n + 1), after every epoch."""

    begin: Share = 55 / 200
    """Fraction of the run before the first epoch that is averaged; epoch 55 of 200."""
    judged: bool = True

    def init(self, ctx: Context) -> Tensor:
        """() n, the epochs averaged so far: none."""
        return torch.zeros((), dtype=torch.int64, device=next(ctx.model.parameters()).device)

    def end_epoch(self, ctx: Context, state: Tensor, tally: Tally) -> Tensor:
        """Take the epoch's weights in; a plain copy while n is 0."""
        n = int(state)
        blend(ctx.averaged, ctx.model, n / (n + 1))
        return state + 1 if ctx.epoch / ctx.epochs >= self.begin else state


PAPER = Preset(Schedule(epochs=200, shape="piecewise", drops=(0.25, 0.75), normalize=True))
"""Of Chen et al.; the release has one for all data sets."""

METHOD = Method(
    slots={"average": SWA()},
    on="pgd-at",
    module=__name__,
    presets={
        **dict.fromkeys((*settings.CIFAR, "tiny-imagenet/paper"), PAPER),
        **settings.OURS,
    },
)
