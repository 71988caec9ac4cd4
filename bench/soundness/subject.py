"""A model under examination: the images it is asked about, and what was measured of it, each thing once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bench.attacks.ascent import ascend, gradient
from bench.attacks.base import Attack
from bench.attacks.pgd import LOSSES, PGD_SAT, Loss
from bench.attacks.trial import Trial
from bench.data.images import Images
from bench.errors import BadModel, OutOfBudget
from bench.evaluation.judge import Chunk, attacked, check_pixels, logits_of
from bench.evaluation.meter import Meter
from bench.evaluation.random_models import FEW, STEADY, Expectation, Voting, unsteadiness
from bench.norms import Norm
from bench.outcomes import Outcomes
from bench.randomness import Streams

WALK = 40
"""Steps of the walk whose course is recorded: twice those of the customary PGD."""
LOOKED = 4
"""How many times as many images are only looked at as are attacked."""


class NotRun(Exception):  # no error: the message says why there is nothing to measure
    """A check cannot be run on this model."""


@dataclass(frozen=True)
class Effort:
    """How much is spent.

    Attributes:
        images: attacked at most; all of them are classified correctly without attack.
        one_in: of so many images that are classified correctly one may be attacked.
        points: random perturbations per image.
        queries: of the black-box attack.
        own: passes that running an attack under test once more may take.
    """

    images: int
    one_in: int
    points: int
    queries: int
    own: int


class Found(NamedTuple):
    """What an attack made of some images."""

    adv: Tensor
    """(B,C,H,W)."""
    logits: Tensor
    """(B,K) the model's answer to them."""
    broken: Tensor
    """(B,) bool."""


class Course(NamedTuple):
    """A walk that nobody leaves, iterate by iterate."""

    loss: Tensor
    """(steps + 1, B) cross-entropy."""
    broken: Tensor
    """(steps + 1, B) bool."""


class Flaws(NamedTuple):
    """Whose gradient is of no use to an attack, of either loss, at the image or near it; (B,) bool each."""

    zero: Tensor
    nan: Tensor


class Scaled(nn.Module):
    """A model with its logits divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        """See `model`."""
        super().__init__()
        self.model, self.temperature = model, temperature
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K)."""
        logits: Tensor = self.model(x)
        return logits / self.temperature


@dataclass(frozen=True, eq=False)
class Subject:
    """A model under examination.

    It is asked about a stratified subset of the images (`looked`), and attacked on some of those that it classifies
    correctly (`chunk`). If its answers are random, attacks see their expectation and it is judged by vote, provided
    that it was evaluated so; else nothing is measured by attacks.

    Attributes:
        model: frozen and in eval mode.
        images: all that it is evaluated on.
        norm: geometry of the threat.
        eps: radius of the threat.
        seed: of the subset and of all randomness.
        device: where the model is.
        effort: how much may be spent.
        batch_size: images in memory at a time.
        runs: what attacks did to it on those images, or the error of one that left its budget.
        recorded_clean: hits and number of images of its clean accuracy by its own record; None if it has none.
        eot: answers whose mean the attacks see; 1 for the plain model.
        votes: answers that decide.
    """

    model: nn.Module
    images: Images
    norm: Norm
    eps: Fraction
    seed: int
    device: str
    effort: Effort
    batch_size: int
    runs: Mapping[Trial, Outcomes | OutOfBudget]
    recorded_clean: tuple[int, int] | None
    eot: int = 1
    votes: int = 1
    _found: dict[tuple[Attack, Fraction, float], Found] = field(default_factory=dict, init=False)

    @cached_property
    def meter(self) -> Meter:
        """The model, counting its passes."""
        return Meter(self.model)

    @cached_property
    def search(self) -> nn.Module:
        """The model as attacks see it."""
        return Expectation(self.meter, self.eot) if self.eot > 1 else self.meter

    @cached_property
    def decides(self) -> nn.Module:
        """The model as it is judged."""
        return Voting(self.meter, self.votes) if self.votes > 1 else self.meter

    @property
    def passes(self) -> int:
        """Forward and backward passes spent so far."""
        return self.meter.forwards + self.meter.backwards

    def affordable(self, of: float) -> int:
        """How many of so many images may be attacked."""
        return max(1, min(self.effort.images, int(of / self.effort.one_in)))

    @cached_property
    def looked(self) -> Chunk:
        """A stratified subset, in turns one image of each class."""
        rows = in_turns(self.images, self.seed)[: LOOKED * self.affordable(len(self.images))]
        x, y = self.images.batch(rows, self.device)
        chunk = Chunk(x, y, self.images.sample[rows], self.images.classes)
        check_pixels(chunk)
        return chunk

    @cached_property
    def clean(self) -> Tensor:
        """(M,K) logits of what it is asked about."""
        return self.logits(self.looked.x)

    @cached_property
    def unsteadiness(self) -> float:
        """Largest difference between answers to the same images, relative to the largest logit."""
        return unsteadiness(lambda x: self.logits(x, self.meter), self.looked.x[:FEW])

    @property
    def random(self) -> bool:
        """Whether its answers to the same images differ."""
        return self.unsteadiness > STEADY

    @cached_property
    def chunk(self) -> Chunk:
        """The attacked images.

        Raises:
            NotRun: none is classified correctly, or the answers are random.
        """
        if self.random and self.eot == 1:
            raise NotRun("the model's answers are random; evaluate it in expectation and by vote")
        right = (self.clean.argmax(1) == self.looked.y).nonzero()[:, 0]
        if not len(right):
            raise NotRun(f"none of {len(self.looked.y)} images is classified correctly without attack")
        share = len(right) / len(self.looked.y)
        return part(self.looked, right[: self.affordable(share * len(self.images))])

    def of_threat(self, trial: Trial) -> bool:
        """Whether a trial attacked within the threat model that is examined."""
        return trial.attack is not None and (trial.norm, trial.eps) == (self.norm.name, self.eps)

    @cached_property
    def streams(self) -> Streams:
        """Randomness of the attacked images."""
        samples = torch.from_numpy(self.chunk.sample.astype(np.int64)).to(self.device)
        return Streams(self.seed, samples).fork("soundness")

    def logits(self, x: Tensor, model: nn.Module | None = None, *, batch_size: int | None = None) -> Tensor:
        """(B,K) what the model answers to some images (B,C,H,W)."""
        parts = torch.split(x, batch_size or self.batch_size)
        return torch.cat([logits_of(model or self.decides, some, self.images.classes) for some in parts])

    def batches(self) -> Iterator[Tensor]:
        """Positions of the attacked images, as many at a time as may be in memory."""
        yield from torch.split(torch.arange(len(self.chunk.y), device=self.device), self.batch_size)

    def slope(self, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        """(B,C,H,W) gradient of a loss at some images.

        Raises:
            BadModel: there is none.
        """
        x = x.detach().requires_grad_()
        with interruption_named():
            return gradient(LOSSES[loss](self.search(x), y), x)

    @property
    def losses(self) -> tuple[Loss, Loss]:
        """The two that attacks follow: the cross-entropy, and one that does not saturate."""
        return "cross_entropy", "dlr" if self.images.classes > 3 else "margin"

    @cached_property
    def near(self) -> Tensor:
        """(S,C,H,W) a random start of each attacked image."""
        noise = self.norm.noise(self.streams.fork("start"), self.chunk.x, self.radius)
        return (self.chunk.x + noise).clamp(0, 1)

    @cached_property
    def flaws(self) -> Flaws:
        """Useless gradients, of both losses, at the images and at a random start."""
        places = self.chunk.x, self.near
        zero = torch.zeros_like(self.chunk.y, dtype=torch.bool)
        nan = zero.clone()
        for rows in self.batches():
            for place in places:
                for loss in self.losses:
                    grad = self.slope(place[rows], self.chunk.y[rows], loss).flatten(1)
                    zero[rows] |= (grad == 0).all(1)
                    nan[rows] |= ~grad.isfinite().all(1)
        return Flaws(zero, nan)

    @property
    def radius(self) -> Tensor:
        """(S,) eps."""
        return torch.full(self.chunk.y.shape, float(self.eps), device=self.device)

    @cached_property
    def course(self) -> Course:
        """A walk like PGD's, which goes on with broken images."""
        start = self.norm.noise(self.streams.fork("course"), self.chunk.x, self.radius)
        parts = [self._walk(rows, start[rows]) for rows in self.batches()]
        return Course(*(torch.cat(column, 1) for column in zip(*parts, strict=True)))

    def _walk(self, rows: Tensor, start: Tensor) -> Course:
        """The course of some images."""
        x, y, radius = self.chunk.x[rows], self.chunk.y[rows], self.radius[rows]
        loss, broken = [], []

        def gain(adv: Tensor) -> Tensor:
            logits = self.search(adv)
            value = LOSSES["cross_entropy"](logits, y)
            loss.append(value.detach())
            broken.append(logits.argmax(1) != y)
            return value

        with interruption_named():
            last = ascend(gain, x, radius, PGD_SAT.stride * radius, steps=WALK, start=start, norm=self.norm)
        with torch.no_grad():
            gain(last)
        return Course(torch.stack(loss), torch.stack(broken))

    @cached_property
    def noise(self) -> Tensor:
        """(S,) bool, who is broken by a random perturbation of size eps."""
        own, broken = self.streams.fork("noise"), torch.zeros_like(self.chunk.y, dtype=torch.bool)
        for point in range(self.effort.points):
            direction = self.norm.steepest(own.normal(tuple(self.chunk.x.shape[1:]), point))
            adv = (self.chunk.x + float(self.eps) * direction).clamp(0, 1)
            broken |= self.logits(adv).argmax(1) != self.chunk.y
        return broken

    def tried(self, chunk: Chunk, trial: Trial, temperature: float = 1.0) -> Found:
        """What an attack makes of some images, its budget verified.

        Args:
            chunk: the images.
            trial: the attack.
            temperature: that the logits are divided by as the attack sees them.

        Raises:
            OutOfBudget: it left its ball or the box.
        """
        meter = Meter(Scaled(self.search, temperature) if temperature != 1 else self.search)
        rows = torch.split(torch.arange(len(chunk.y), device=self.device), self.batch_size)
        adv = torch.cat([attacked(meter, part(chunk, some), trial).adv for some in rows])
        logits = self.logits(adv)
        return Found(adv, logits, logits.argmax(1) != chunk.y)

    def found(self, attack: Attack, *, eps: Fraction | None = None, temperature: float = 1.0) -> Found:
        """What an attack makes of the attacked images; computed once."""
        attack, eps = attack.fitted(self.images.classes), self.eps if eps is None else eps
        key = attack, eps, temperature
        if key not in self._found:
            trial = Trial(repr(attack), attack, self.norm.name, eps, self.seed)
            self._found[key] = self.tried(self.chunk, trial, temperature)
        return self._found[key]


@contextmanager
def interruption_named() -> Iterator[None]:
    """What torch says of pixels that no gradient reaches, as an error of the model."""
    try:
        yield
    except RuntimeError as problem:
        if not re.search("does not require grad|not have been used", str(problem)):
            raise
        raise BadModel("the model passes no gradient to its pixels") from problem


def part(chunk: Chunk, rows: Tensor) -> Chunk:
    """Some images of a chunk."""
    return Chunk(chunk.x[rows], chunk.y[rows], chunk.sample[rows.cpu().numpy()], chunk.classes)


def in_turns(images: Images, seed: int) -> npt.NDArray[np.intp]:
    """(N,) rows of all images in an order of which every beginning is stratified: in turns one image of each class."""
    samples = torch.from_numpy(images.sample.astype(np.int64))
    order = Streams(seed, samples).fork("soundness").uniform(()).argsort(stable=True).numpy()
    labels = images.labels[order]
    turn = np.zeros(len(order), np.intp)
    for k in np.unique(labels):
        mine = labels == k
        turn[mine] = np.arange(mine.sum())
    return order[np.argsort(turn, kind="stable")]
