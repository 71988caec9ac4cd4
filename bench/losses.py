"""Losses per image, never reduced: logits (B,K) and a target (B,K) or labels (B,) give (B,).

The label is a distribution wherever a method may soften it, and stays a class index in the margins, which are
about one true class.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import BadModel


def one_hot(y: Tensor, classes: int) -> Tensor:
    """(B,) class indices as (B,K) float distributions."""
    return F.one_hot(y, classes).to(torch.float32)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(B,) -sum_k t_k log p_k in nats.

    Args:
        logits: (B,K).
        target: (B,K) distributions.
    """
    return -(target * logits.log_softmax(1)).sum(1)


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """(B,) KL(target || softmax(logits)) in nats, summed over classes; 0 log 0 is 0.

    Gradients flow into `target` too where it carries them (TRADES does not detach it).
    """
    positive = target.clamp(min=torch.finfo(target.dtype).tiny)  # log 0 has no gradient, even times 0
    return (torch.xlogy(target, positive) - target * logits.log_softmax(1)).sum(1)


def rival(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) largest logit of any class but the true one."""
    return logits.scatter(1, y[:, None], -torch.inf).amax(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) max_{k != y} z_k - z_y: positive exactly where the image is misclassified.

    Source: Carlini and Wagner 2017, f_6 without the confidence offset.
    """
    return rival(logits, y) - logits.gather(1, y[:, None])[:, 0]


def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) max_{k != y} p_k - p_y of the softmax, between -1 and 1.

    Source: Xie et al. 2024, "Towards million-scale adversarial robustness evaluation with stronger individual
    attacks", the loss of PMA.
    """
    return margin(logits.softmax(1), y)


def _largest(logits: Tensor, count: int, loss: str) -> Tensor:
    """(B,count) the largest logits in falling order, for a loss that needs so many classes."""
    if (classes := logits.shape[1]) < count:
        raise BadModel(f"the {loss} loss needs at least {count} classes, the model has {classes}; use the margin loss")
    return logits.topk(count, dim=1).values


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) difference of logits ratio, margin over z_(1) - z_(3); invariant to shift and scale of the logits.

    Source: Croce and Hein 2020 (AutoAttack), eq. 6.

    Raises:
        BadModel: fewer than 3 classes.
    """
    top = _largest(logits, 3, "dlr")
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_margin(logits: Tensor, y: Tensor, goal: Tensor) -> Tensor:
    """(B,) z_goal - z_y: positive where the class `goal` (B,) is above the true one."""
    return (logits.gather(1, goal[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def targeted_dlr(logits: Tensor, y: Tensor, goal: Tensor) -> Tensor:
    """(B,) difference of logits ratio towards a class: targeted margin over z_(1) - (z_(3) + z_(4)) / 2.

    Source: Croce and Hein 2020 (AutoAttack), eq. 7.

    Raises:
        BadModel: fewer than 4 classes.
    """
    top = _largest(logits, 4, "targeted dlr")
    return targeted_margin(logits, y, goal) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)
