"""Judging one chunk of images: attack, hold what comes back against the budget, classify it again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bench.attacks.attack import Attributed
from bench.attacks.suite import Trial
from bench.errors import BadData, BadModel, BadOption, OutOfBudget
from bench.metering import Bfloat16, Meter
from bench.norms import norm
from bench.outcomes import FIRST_OF_LINEUP, SURVIVED, WRONG_UNATTACKED, Outcomes
from bench.streams import Streams

RELATIVE_SLACK, ABSOLUTE_SLACK = 1e-5, 1e-7
"""Rounding that a perturbation may exceed its radius by."""


class Chunk(NamedTuple):
    """Images that are judged together.

    Attributes:
        x: (B,C,H,W) in [0, 1].
        y: (B,) int64.
        sample: (B,) row of each in its data set's split.
        classes: K.
    """

    x: Tensor
    y: Tensor
    sample: npt.NDArray[np.uint32]
    classes: int


def judge(
    model: nn.Module,
    chunk: Chunk,
    trial: Trial,
    *,
    tick: Callable[[float], None] = lambda share: None,
    notice: Callable[[str], None] = lambda line: None,
) -> Outcomes:
    """Attack what is classified correctly and classify it again; see `evaluate`.

    Args:
        model: frozen and in eval mode.
        chunk: the images.
        trial: the attack, None for none.
        tick: hears the estimated share that is done, in [0, 1].
        notice: hears a line about a model that looks wrong.
    """
    started = time.perf_counter()
    check_pixels(chunk)
    expected = 0

    def hear(forwards: int) -> None:
        if expected:
            tick(min(1.0, (forwards - len(chunk.x)) / expected))

    meter = Meter(model, hear)
    logits = logits_of(meter, chunk.x, chunk.classes)
    if looks_like_probabilities(logits):
        notice("the model seems to return probabilities; attacks need the logits before the softmax to be trusted")
    confidence, predicted = logits.softmax(1).max(1)
    broken_by = torch.where(predicted == chunk.y, SURVIVED, WRONG_UNATTACKED)
    right = (predicted == chunk.y).nonzero()[:, 0]
    if trial.attack is not None and len(right):
        expected = len(right) * trial.attack.passes(chunk.classes).forwards
        target = Chunk(chunk.x[right], chunk.y[right], chunk.sample[right.cpu().numpy()], chunk.classes)
        adv, by = attacked(meter, target, trial)
        if blind := int(meter.blind):
            notice(
                f"{trial.name}: {blind} of {meter.backwards} gradients were NaN or infinite and showed the attack no "
                "way; its figures are too high, mend the model"
            )
        confidence[right], predicted[right] = logits_of(meter, adv, chunk.classes).softmax(1).max(1)
        broken_by[right] = torch.where(predicted[right] == target.y, SURVIVED, FIRST_OF_LINEUP + by)
    return Outcomes(
        sample=chunk.sample,
        label=chunk.y.cpu().numpy(),
        predicted=predicted.cpu().numpy(),
        confidence=confidence.cpu().numpy(),
        broken_by=broken_by.cpu().numpy(),
        forwards=meter.forwards,
        backwards=meter.backwards,
        seconds=time.perf_counter() - started,
    )


def attacked(model: nn.Module, chunk: Chunk, trial: Trial) -> tuple[Tensor, Tensor]:
    """What the attack makes of the images, and (B,) the position in its line-up that a break is credited to.

    A break that no attack of a line-up claims, because it saw the model in another precision, is the last one's.
    """
    if trial.attack is None:
        raise BadOption(f"trial {trial.name!r} has no attack")
    seen = Bfloat16(model) if trial.precision == "bf16" else model
    streams = Streams(trial.seed, torch.from_numpy(chunk.sample.astype(np.int64)).to(chunk.x.device))
    try:
        with torch.enable_grad():
            answer = trial.attack(
                seen, chunk.x.clone(), chunk.y, eps=float(trial.eps), norm=norm(trial.norm), streams=streams
            )
    except RuntimeError as problem:
        if "does not require grad" not in str(problem):
            raise
        raise BadModel(
            f"the model passes no gradient to its pixels, which {trial.name!r} needs; "
            "take torch.no_grad, detach and numpy out of its forward"
        ) from problem
    last = len(trial.lineup) - 1
    adv, by = answer if isinstance(answer, Attributed) else (answer, torch.zeros_like(chunk.y))
    check_budget(trial, chunk, adv)
    return adv.detach().to(chunk.x), by.where(by >= 0, last)


@torch.no_grad()
def logits_of(model: nn.Module, x: Tensor, classes: int) -> Tensor:
    """(B,K) float32 logits of the images.

    Raises:
        BadModel: the model fails, or returns something else.
    """
    try:
        logits = model(x)
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:
        raise BadModel(
            f"the model fails on images of shape {tuple(x.shape)} with {type(problem).__name__}: {problem}; "
            "it must take (B,C,H,W) pixels in [0,1]"
        ) from problem
    if not isinstance(logits, Tensor):
        raise BadModel(f"the model returns {type(logits).__name__}; it must return logits, a tensor (B,{classes})")
    if logits.shape != (len(x), classes):
        raise BadModel(
            f"the model returns shape {tuple(logits.shape)} for {len(x)} images; the data set has {classes} classes, "
            f"so logits of shape {(len(x), classes)} are needed"
        )
    logits = logits.float()
    if not logits.isfinite().all():
        bad = int((~logits.isfinite().all(1)).sum())
        raise BadModel(f"the model returns NaN or infinite logits for {bad} of {len(x)} images; mend it or its weights")
    return logits


def looks_like_probabilities(logits: Tensor) -> bool:
    """Whether every row is a distribution."""
    return bool((logits >= -1e-5).all() and ((logits.sum(1) - 1).abs() < 1e-4).all())


def check_pixels(chunk: Chunk) -> None:
    """Pixels must be numbers in [0, 1].

    Raises:
        BadData: one is not.
    """
    inside = ((chunk.x >= 0) & (chunk.x <= 1)).flatten(1).all(1)  # False for NaN
    if not inside.all():
        row = int((~inside).nonzero()[0, 0])
        x = chunk.x[row]
        raise BadData(
            f"sample {chunk.sample[row]} has pixels from {float(x.min()):.4g} to {float(x.max()):.4g}; "
            "images must be numbers in [0, 1], normalisation belongs inside the model"
        )


def check_budget(trial: Trial, chunk: Chunk, adv: object) -> None:
    """What an attack returned must be finite images in the ball and in [0, 1].

    Raises:
        OutOfBudget: it is not; names the attack, the first such sample and by how much.
    """
    who, what = f"attack {trial.name!r}", "mend the attack or leave it out"
    if not isinstance(adv, Tensor) or adv.shape != chunk.x.shape:
        came = tuple(adv.shape) if isinstance(adv, Tensor) else type(adv).__name__
        raise OutOfBudget(f"{who} returned {came} for images of shape {tuple(chunk.x.shape)}; {what}")
    finite = adv.isfinite().flatten(1).all(1)
    if not finite.all():
        row = int((~finite).nonzero()[0, 0])
        raise OutOfBudget(
            f"{who} returned a pixel that is no number for sample {chunk.sample[row]} (is the model's gradient finite "
            f"there?); {what}"
        )
    low, high = adv.flatten(1).amin(1), adv.flatten(1).amax(1)
    boxed = (low >= -ABSOLUTE_SLACK) & (high <= 1 + ABSOLUTE_SLACK)
    if not boxed.all():
        row = int((~boxed).nonzero()[0, 0])
        raise OutOfBudget(
            f"{who} returned pixels from {float(low[row]):.6g} to {float(high[row]):.6g} for sample "
            f"{chunk.sample[row]}; images lie in [0, 1]; {what}"
        )
    eps = float(trial.eps)
    size = norm(trial.norm).size(adv.detach().double() - chunk.x.double())
    within = size <= eps * (1 + RELATIVE_SLACK) + ABSOLUTE_SLACK
    if not within.all():
        row = int((~within).nonzero()[0, 0])
        raise OutOfBudget(
            f"{who} moved sample {chunk.sample[row]} by {float(size[row]):.8g} in {trial.norm}, but eps is {eps:.8g}; "
            f"{what}"
        )
