"""FAWA: fairness-aware weight averaging; an epoch enters the average if no class was left behind in it.

The worst class's robustness swings from epoch to epoch. Weights are averaged over those epochs only at whose end the
worst class of a held-out split is robust enough.

Paper:   Wei et al., CVPR 2023 (arXiv 2303.14460), the averaging of CFA
Code:    PKU-ML/CFA @ 071f333, train.py
Claim:   CIFAR-10, PreActResNet-18, AutoAttack average / worst class: AT 46.7 / 20.1, AT+FAWA 49.3 / 23.1 (the paper's
         Table 1 and ablation; mean of five runs)
Departs: the release's defaults are decay 0.88, threshold 0.24 and no epoch before which nothing is averaged:
         `average.decay=0.88`, `average.threshold=0.24`, `average.begin=0`. Until the first acceptance the average is
         the trained weights (the release: an untrained network). The release selects on the test split. Its crop pads
         by reflection.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import Context, Method, Preset, Share, Stateless, Tally, blend
from methods import settings


@dataclass(frozen=True)
class FAWA(Stateless):
    """theta_avg <- decay theta_avg + (1 - decay) theta, after every epoch whose worst class is robust enough."""

    decay: Share = 0.85
    """alpha in the paper."""
    threshold: Share = 0.2
    """delta: the least held-out PGD-10 accuracy of the worst class, in [0, 1]."""
    begin: Share = 50 / 200
    """Fraction of the run before the first epoch that may be averaged; epoch 50 of 200."""
    judged: bool = True

    def init(self, ctx: Context) -> Tensor:
        """() the epochs accepted so far: none."""
        return torch.zeros((), dtype=torch.int64, device=next(ctx.model.parameters()).device)

    def end_epoch(self, ctx: Context, state: Tensor, tally: Tally) -> Tensor:
        """Blend if min_k A_k >= delta, A_k the held-out accuracy of class k; a plain copy until one was accepted."""
        fair = ctx.epoch / ctx.epochs >= self.begin and bool(worst(ctx.validate(ctx.model)) >= self.threshold)
        begun = bool(state > 0)
        if fair or not begun:
            blend(ctx.averaged, ctx.model, self.decay if begun else 0.0)
        return state + fair


def worst(held: Tally) -> Tensor:
    """() the least adversarial accuracy of a class, in [0, 1], of the classes that were seen."""
    return (held.hits_adv / held.count_adv)[held.count_adv > 0].min()


METHOD = Method(
    slots={"average": FAWA()},
    on="pgd-at",
    module=__name__,
    presets={
        "cifar10/paper": Preset(settings.FAIR),
        "*/short": Preset(settings.SHORT),
        # Eleven images a class: 0.3 is four of them. A fifth of the paper's epochs: 0.85 ** 5 is about 0.5.
        "digits/digits": Preset(settings.DIGITS, {"average": FAWA(decay=0.5, threshold=0.3)}),
    },
)
