"""The judge: what becomes of one chunk of images under one trial.

The attack only proposes images. Here they are held against the budget and classified again in fp32, and that decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bench.attacks.base import Attributed
from bench.attacks.trial import Trial
from bench.errors import BadData, BadModel, BadOption, OutOfBudget
from bench.evaluation.meter import Bfloat16, Meter
from bench.evaluation.random_models import Expectation, Voting, seeded
from bench.losses import kl
from bench.norms import norm
from bench.outcomes import FIRST_OF_LINEUP, SURVIVED, WRONG_UNATTACKED, Outcomes
from bench.randomness import Streams

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


Keep = Callable[[Trial, npt.NDArray[np.uint32], Tensor], None]
"""Takes of a trial some samples (B,) and their perturbations (B,C,H,W), float32 on the CPU."""


def ignored(*_: object) -> None:
    """Take no notice: what hears of a case where nobody wants to know."""


@dataclass(frozen=True)
class Case:
    """One trial of one chunk.

    Attributes:
        model: frozen and in eval mode; it decides.
        chunk: the images.
        trial: the attack, None for none.
        search: the same network as the attacks see it, made faster; None for `model` itself.
        tick: hears the estimated share that is done, in [0, 1].
        notice: hears a line about a model that looks wrong.
        keep: takes the adversarial images.
    """

    model: nn.Module
    chunk: Chunk
    trial: Trial
    search: nn.Module | None = None
    tick: Callable[[float], None] = ignored
    notice: Callable[[str], None] = ignored
    keep: Keep = ignored

    def part(self, rows: slice) -> Case:
        """The case of some of its images, which reports its share as one of the whole."""
        x, y, sample, classes = self.chunk
        some, total = Chunk(x[rows], y[rows], sample[rows], classes), len(y)
        return replace(self, chunk=some, tick=lambda share: self.tick((rows.start + share * len(some.y)) / total))

    @property
    def decides(self) -> nn.Module:
        """What classifies: the model, or the majority of its answers."""
        return Voting(self.model, self.trial.votes) if self.trial.votes > 1 else self.model


def judge(case: Case) -> Outcomes:
    """Attack what is classified correctly and classify it again; see `evaluate`."""
    plain = case.trial.eot == case.trial.votes == 1
    with nullcontext() if plain else seeded(case.trial.seed, int(case.chunk.sample[0])):
        return _judged(case)


def _judged(case: Case) -> Outcomes:
    started = time.perf_counter()
    chunk, trial, decides = case.chunk, case.trial, case.decides
    check_pixels(chunk)
    logits = logits_of(decides, chunk.x, chunk.classes)
    if looks_like_probabilities(logits):
        case.notice("the model seems to return probabilities; attacks need the logits before the softmax to be trusted")
    right = (logits.argmax(1) == chunk.y).nonzero()[:, 0]
    judged, broken_by = logits.clone(), torch.where(logits.argmax(1) == chunk.y, SURVIVED, WRONG_UNATTACKED)
    forwards, backwards = torch.full_like(chunk.y, trial.votes), torch.zeros_like(chunk.y)
    if trial.attack is not None and len(right):
        attacked = Chunk(chunk.x[right], chunk.y[right], chunk.sample[right.cpu().numpy()], chunk.classes)
        answer = searched(replace(case, chunk=attacked))
        judged[right] = logits_of(decides, answer.adv, chunk.classes)
        broken_by[right] = torch.where(judged[right].argmax(1) == attacked.y, SURVIVED, FIRST_OF_LINEUP + answer.by)
        forwards[right] += trial.votes + trial.eot * answer.forwards
        backwards[right] += trial.eot * answer.backwards
        case.keep(trial, attacked.sample, (answer.adv - attacked.x).cpu())
    predicted = judged.argmax(1)  # of equal logits the softmax may round another one up
    confidence = judged.softmax(1).gather(1, predicted[:, None])[:, 0]
    return Outcomes(
        sample=chunk.sample,
        label=chunk.y.cpu().numpy(),
        predicted=predicted.cpu().numpy(),
        confidence=confidence.cpu().numpy(),
        broken_by=broken_by.cpu().numpy(),
        divergence=divergence(logits, judged).cpu().numpy(),
        forwards=forwards.cpu().numpy(),
        backwards=backwards.cpu().numpy(),
        seconds=time.perf_counter() - started,
    )


class Answer(NamedTuple):
    """What an attack made of the images that it was given.

    Attributes:
        adv: (B,C,H,W) within the budget.
        by: (B,) int64 position in the line-up that a break is credited to.
        forwards: (B,) int64 passes of each image.
        backwards: (B,) int64 likewise.
    """

    adv: Tensor
    by: Tensor
    forwards: Tensor
    backwards: Tensor


def searched(case: Case) -> Answer:
    """What the attack of a case makes of its images, which are all right unattacked."""
    chunk, trial = case.chunk, case.trial
    _, channels, height, width = chunk.x.shape
    passes = trial.attack.forecast(chunk.classes, (channels, height, width)).forwards if trial.attack else 0
    expected = len(chunk.y) * passes or math.inf
    search = case.model if case.search is None else case.search
    meter = metered(search, case.model, trial, lambda forwards: case.tick(min(1.0, forwards / expected)))
    answer = attacked(meter, chunk, trial)
    if blind := int(meter.blind):
        case.notice(
            f"{trial.name}: {blind} of {meter.backwards} gradients were NaN or infinite and showed the attack no "
            "way; its figures are too high, mend the model"
        )
    return Answer(
        answer.adv,
        answer.by,
        shares(answer.forwards, meter.forwards, chunk.y),
        shares(answer.backwards, meter.backwards, chunk.y),
    )


def metered(search: nn.Module, model: nn.Module, trial: Trial, tick: Callable[[int], None]) -> Meter:
    """The model as the attack sees it: in the trial's precision, in expectation if it is random, and counted."""
    if trial.eot > 1:
        search, model = Expectation(search, trial.eot), Voting(model, trial.votes)
    if trial.precision == "bf16":
        return Meter(Bfloat16(search), tick, exact=model)
    return Meter(search, tick)


def divergence(clean: Tensor, judged: Tensor) -> Tensor:
    """(B,) KL(softmax(clean) || softmax(judged)) of logits (B,K), in nats; 0 where nothing changed."""
    return kl(clean.softmax(1), judged).clamp(0, torch.finfo(torch.float32).max)


def shares(counted: Tensor | None, total: int, y: Tensor) -> Tensor:
    """(B,) int64 passes of each image: as the attack counted them, or else equal shares of all."""
    if counted is not None:
        return counted
    each, rest = divmod(total, len(y))
    return each + (torch.arange(len(y), device=y.device) < rest).to(torch.int64)


def attacked(meter: Meter, chunk: Chunk, trial: Trial) -> Attributed:
    """What the attack makes of the images; `by` is the position in its line-up that a break is credited to.

    A break that no attack of a line-up claims, because it saw the model in another precision, is the last one's.
    """
    if trial.attack is None:
        raise BadOption(f"trial {trial.name!r} has no attack")
    streams = Streams(trial.seed, torch.from_numpy(chunk.sample.astype(np.int64)).to(chunk.x.device))
    try:
        with torch.enable_grad():
            answer = trial.attack(
                meter, chunk.x.clone(), chunk.y, eps=float(trial.eps), norm=norm(trial.norm), streams=streams
            )
    except RuntimeError as problem:
        if "does not require grad" not in str(problem):
            raise
        raise BadModel(
            f"the model passes no gradient to its pixels, which {trial.name!r} needs; "
            "take torch.no_grad, detach and numpy out of its forward"
        ) from problem
    if not isinstance(answer, Attributed):
        answer = Attributed(answer, torch.zeros_like(chunk.y))
    check_budget(trial, chunk, answer.adv)
    last = len(trial.lineup) - 1
    return answer._replace(adv=answer.adv.detach().to(chunk.x), by=answer.by.where(answer.by >= 0, last))


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
