"""FGSM-RS: one long step from a random start trains as robustly as ten short ones, while it lasts.

A single signed gradient step from a uniform start in the ball stands in for projected ascent. Such training may
collapse: within an epoch it is no longer robust to more than one step. The weights from before are kept then.

Paper:   Wong et al., ICLR 2020 (arXiv 2001.03994)
Code:    locuslab/fast_adversarial @ 1d94c4e, CIFAR10/train_fgsm.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: the release's guard attacks the epoch's first training batch with PGD-5, compares with the epoch before and
         ends the training; here PGD-10 on a held-out split is compared with the best so far, training goes on, and
         only what is kept stands still until robustness is back. The learning rate rises linearly over the first half
         and falls along a half cosine (the release: linearly). Weights are fp32 (the release: half precision).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import Context, Inner, Method, Preset, Schedule, Share, Stateless, Tally, Uniform, blend
from methods import settings
from methods.pgd_at import PGDAT


@dataclass(frozen=True)
class Guard(Stateless):
    """Keeps the weights of the last epoch whose robustness had not collapsed."""

    drop: Share = 0.2
    """By how much held-out PGD-10 accuracy may fall below the best so far; at 1 the last weights are always kept."""
    judged: bool = True

    def init(self, ctx: Context) -> Tensor:
        """() the best robust accuracy so far, in [0, 1]: none."""
        return torch.zeros((), device=next(ctx.model.parameters()).device)

    def end_epoch(self, ctx: Context, state: Tensor, tally: Tally) -> Tensor:
        """Keep the current weights unless A < best - drop; best <- max(best, A), A their held-out accuracy."""
        held = ctx.validate(ctx.model)
        accuracy = held.hits_adv.sum() / held.count_adv.sum()
        if not bool(accuracy < state - self.drop):
            blend(ctx.averaged, ctx.model, 0.0)
        return torch.maximum(state, accuracy)


METHOD = Method(
    slots={"objective": PGDAT(inner=Inner(steps=1, start="uniform", mode="train")), "budget": Uniform(step=1.25)},
    brings={"average": Guard()},
    module=__name__,
    presets={
        "cifar10/paper": Preset(
            Schedule(epochs=15, lr=0.2, shape="one-cycle", rise=0.5, normalize=True, selection="last")
        ),
        **settings.OURS,
    },
)
