"""The only loop of projected gradient ascent, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.norms import LINF, Norm, per_image


def ascend(
    gain: Callable[[Tensor], Tensor],
    x: Tensor,
    eps: Tensor,
    step: Tensor,
    *,
    steps: int,
    start: Tensor,
    norm: Norm = LINF,
) -> Tensor:
    """Climb `gain` inside the ball around each image.

    Args:
        gain: images (B,...) to a value per image (B,); summed before the gradient, so that in eval mode images do
            not influence each other.
        x: images in [0, 1].
        eps: (B,) radius of each image's ball.
        step: (B,) length of each image's step.
        steps: number of steps.
        start: perturbation to start from, shaped as `x`; it is projected first.
        norm: geometry of the ball and of the steepest step.

    Returns:
        Images in [0, 1], each within eps of x. Detached.

    Source: Madry et al. 2018, section 2.1. The box is enforced between the steps, outside the graph: a clamp inside
    it has zero gradient at pixels that are exactly 0 or 1 and makes the attack blind there.
    """
    adv = (x + norm.project(start, eps)).clamp(0, 1)
    stride = per_image(step, x)
    for _ in range(steps):
        adv.requires_grad_()
        (grad,) = torch.autograd.grad(gain(adv).sum(), adv)
        adv = adv.detach() + stride * norm.steepest(grad)
        adv = (x + norm.project(adv - x, eps)).clamp(0, 1)
    return adv.detach()
