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

from bench.attacks.trial import Trial
from bench.evaluation.answer import logits_of, looks_like_probabilities
from bench.evaluation.attacked import attacked
from bench.evaluation.chunk import Chunk, check_pixels
from bench.evaluation.meter import Bfloat16, Meter
from bench.evaluation.random_models import Expectation, Voting, seeded
from bench.evaluation.unchanged import unchanged
from bench.losses import kl
from bench.outcomes import FIRST_OF_LINEUP, SURVIVED, WRONG_UNATTACKED, Outcomes

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
        some = Chunk(chunk.x[right], chunk.y[right], chunk.sample[right.cpu().numpy()], chunk.classes)
        answer = searched(replace(case, chunk=some))
        judged[right] = logits_of(decides, answer.adv, chunk.classes)
        broken_by[right] = torch.where(judged[right].argmax(1) == some.y, SURVIVED, FIRST_OF_LINEUP + answer.by)
        forwards[right] += trial.votes + trial.eot * answer.forwards
        backwards[right] += trial.eot * answer.backwards
        case.keep(trial, some.sample, (answer.adv - some.x).cpu())
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
    with unchanged(dict.fromkeys((case.model, search)), chunk, trial):
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
