"""The only loop of projected gradient ascent, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.norms import LINF, Norm, per_image


def gradient(value: Tensor, adv: Tensor, *, again: bool = False) -> Tensor:
    """(B,...) the gradient of each image's value (B,) at its own pixels; `again` keeps the graph for a further call.

    The gradient of the sum of the values is taken. In eval mode the images do not influence each other, so that each
    gets its own.
    """
    (grad,) = torch.autograd.grad(value, adv, torch.ones_like(value), retain_graph=again)
    return grad


def ascend(
    gain: Callable[[Tensor], Tensor],
    x: Tensor,
    eps: Tensor,
    step: Tensor,
    *,
    steps: int,
    start: Tensor,
    norm: Norm = LINF,
    leave: Callable[[Tensor], Tensor | None] = lambda adv: None,
) -> Tensor:
    """Climb `gain` inside the ball around each image.

    Args:
        gain: what is climbed, from images (B,...) to a value per image (B,).
        x: images in [0, 1].
        eps: (B,) radius of each image's ball.
        step: (B,) length of each image's step.
        steps: number of steps.
        start: perturbation to start from, shaped as `x`; it is projected first.
        norm: geometry of the ball and of the steepest step.
        leave: is called with every iterate after `gain`; it answers which rows go on, None for all.

    Returns:
        The last iterate of those that have not left: images in [0, 1], each within eps of x. Detached.

    Source: Madry et al. 2018, section 2.1. The box is enforced between the steps, outside the graph: a clamp inside
    it has zero gradient at pixels that are exactly 0 or 1 and makes the attack blind there.
    """
    adv = (x + norm.project(start, eps)).clamp(0, 1)
    stride = per_image(step, x)
    for _ in range(steps):
        adv = adv.detach().requires_grad_()
        grad = gradient(gain(adv), adv)
        adv = adv.detach()
        rows = leave(adv)
        if rows is not None:
            x, eps, stride, adv, grad = x[rows], eps[rows], stride[rows], adv[rows], grad[rows]
            if not len(rows):
                break
        adv = adv + stride * norm.steepest(grad)
        adv = (x + norm.project(adv - x, eps)).clamp(0, 1)
    return adv.detach()
