"""WAT: worst-class adversarial training by a no-regret weighing of the classes.

After each epoch a class's loss on held-out images is added to its account, and classes are weighed by the exponential
of their accounts (Hedge); the mean over all classes is one more player, so that the rest is not given up.

Paper:   Li and Liu, AAAI 2023 (arXiv 2302.04025)
Code:    boqili/WAT @ 62d1184, worst_class_adversarial_train.py
Claim:   no figure is shown: the paper's tables could not be read at their source
Departs: the held-out images are attacked by the harness's PGD-10 on the cross-entropy, the release climbs the KL. Costs
         are divided by the images there are; the release divides by whole batches, 3072 for 3000 on CIFAR-10. In both,
         the weights sum to K + 1 in the first epoch, which is exactly twice TRADES, and to K afterwards. Its
         validation split is held out of training here too: 6 %, 300 images a class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from bench.api import Batch, Context, Losses, Method, NotNegative, Preset, Tally, Uniform, Weights
from methods import settings


class Accounts(NamedTuple):
    """Of the K classes and, last, of their mean, (K+1,) each."""

    costs: Tensor
    """Sum over the epochs of c, in nats."""
    weights: Tensor
    """v, at least 0."""


@dataclass(frozen=True)
class WAT(Uniform):
    """Class weights by Hedge over held-out losses."""

    eta: NotNegative = 0.1
    """Learning rate of the weights, per nat."""
    beta: NotNegative = 6.0
    """Of the divergence in a cost; that of the objective."""

    def init(self, ctx: Context) -> Accounts:
        """Empty accounts, all weights 1."""
        one = torch.ones(ctx.classes + 1, device=next(ctx.model.parameters()).device)
        return Accounts(torch.zeros_like(one), one)

    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: Accounts) -> Weights:
        """v_y + v_{K+1}, for both parts: the sum of v_k times the class's loss and of v_{K+1} times everyone's."""
        weight = (state.weights[:-1] + state.weights[-1])[batch.y]
        return Weights(weight, weight)

    def end_epoch(self, ctx: Context, state: Accounts, tally: Tally) -> Accounts:
        """v = K softmax(eta sum_t c_t), c the held-out CE(S(x), y) + beta KL(p(x) || p(x'))."""
        costs = state.costs + self.cost(ctx.validate(ctx.model))
        return Accounts(costs, ctx.classes * (self.eta * costs).softmax(0))

    def cost(self, held: Tally) -> Tensor:
        """(K+1,) mean cost of each class and of all images, in nats; 0 for a class of which there is no image."""
        fit, smooth = means(held.ce_clean, held.count_clean), means(held.divergence, held.count_adv)
        return fit + self.beta * smooth


def means(sums: Tensor, count: Tensor) -> Tensor:
    """(K+1,) means per class and, last, over all images, from sums and counts (K,)."""
    return torch.cat([sums, sums.sum()[None]]) / torch.cat([count, count.sum()[None]]).clamp(min=1)


PAPER = Preset(
    # the release cuts at its epochs 75, 90 and 100, counted from 1
    replace(settings.OF_TRADES, epochs=100, drops=(0.74, 0.89, 0.99), holdout=0.06, selection="last"),
    {"budget": WAT(step=0.007 / 0.031)},
)

METHOD = Method(
    slots={"budget": WAT()},
    on="trades",
    module=__name__,
    presets={
        **dict.fromkeys(settings.CIFAR, PAPER),
        **settings.OURS,
    },
)
