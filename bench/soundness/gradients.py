"""Checks of the model's gradient: whether attacks that follow it can find their way."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.errors import BadModel
from bench.losses import margin
from bench.soundness.check import Finding, beyond, check, judgement
from bench.soundness.measured import NotRun
from bench.soundness.subject import Subject

RARE, COMMON = 0.001, 0.01
"""If more than these shares of the images have a useless gradient, there is a warning, or the check fails."""
PROBED = 32
"""Images whose gradient is compared with differences."""
DIRECTIONS = 16
"""Random directions for each."""
REACH = 1 / 8
"""How far each difference reaches to either side, as a share of eps: half a step of the usual PGD."""


@check("zero-gradient", COMMON)
def zero_gradient(subject: Subject) -> Finding:
    """Does every image have a gradient that is not zero everywhere?

    The value is the share of images where that of the cross-entropy or of the DLR is zero, at the image or at a random
    start. It fails above 1 % and warns above 0.1 %, each if that is more than chance would give.

    Source: AutoAttack's flag (checks.py), which looks at the DLR alone; Pintor et al. 2022, indicator 1.
    """
    return useless(subject.flaws.zero, "zero")


@check("nan-gradient", COMMON)
def nan_gradient(subject: Subject) -> Finding:
    """Does every image have a gradient of finite numbers?

    It is measured and judged like zero gradients.

    Source: Athalye et al. 2018, section 3 (numerical instability); Pintor et al. 2022.
    """
    return useless(subject.flaws.nan, "NaN or infinite")


def useless(flawed: Tensor, kind: str) -> Finding:
    """Judge how many images have a useless gradient."""
    n, count = len(flawed), int(flawed.sum())
    verdict = judgement(fail=beyond(count, n, COMMON), warn=beyond(count, n, RARE))
    return Finding(verdict, count / n, n, f"{count} of {n} images have a gradient that is {kind}")


@check("finite-difference", 0.5)
def finite_difference(subject: Subject) -> Finding:
    """Does the gradient foretell how the margin changes along random directions?

    Each image is moved to a random start. From there the margin is measured an eighth of eps to either side along 16
    random directions, and the differences are compared with those that the gradient foretells, by the cosine between
    the two. The value is the median cosine over the images. It fails below the threshold: the graph is interrupted, or
    the gradient is shattered.

    Source: Athalye et al. 2018, section 3 (shattered gradients); Pintor et al. 2022.
    """
    n = min(PROBED, len(subject.attacked.y))
    y, reach = subject.attacked.y[:n], REACH * subject.radius[:n, None, None, None]
    room = reach.clamp(max=0.05)
    x = subject.random_start[:n].clamp(room, 1 - room)  # off the border of the box, where a model may clamp its pixels
    try:
        grad = subject.slope(x, y, "margin")
    except BadModel as problem:
        return Finding("fail", 0, n, f"{problem}; take torch.no_grad, detach and numpy out of its forward")
    said, seen = [], []
    streams = subject.streams.select(torch.arange(n, device=x.device)).fork("directions")
    for k in range(DIRECTIONS):
        step = reach * subject.norm.steepest(streams.normal(tuple(x.shape[1:]), k))
        ahead, back = (margin(subject.logits(place, subject.search), y) for place in (x + step, x - step))
        seen.append((ahead - back) / 2)
        said.append((grad * step).flatten(1).sum(1))
    cosine = torch.nn.functional.cosine_similarity(torch.stack(said, 1), torch.stack(seen, 1), dim=1, eps=1e-30)
    if not cosine.isfinite().all():
        raise NotRun("the gradient is not finite")
    value = float(cosine.median())
    detail = f"median cosine over {n} images; a quarter of them lies below {float(cosine.quantile(0.25)):.2f}"
    return Finding(judgement(fail=value < 0.5), value, n, detail)
