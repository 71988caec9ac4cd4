"""A model under examination, and what is measured of it: each thing when it is first asked for, and once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.ascent import ascend, gradient
from bench.attacks.base import Attack
from bench.attacks.pgd import LOSSES, PGD_SAT, Loss
from bench.attacks.trial import Trial
from bench.data.images import Images
from bench.errors import BadModel, OutOfBudget
from bench.evaluation.answer import logits_of
from bench.evaluation.attacked import attacked
from bench.evaluation.chunk import Chunk, check_pixels
from bench.evaluation.meter import Meter
from bench.evaluation.random_models import FEW, STEADY, Expectation, Voting, unsteadiness
from bench.norms import Norm
from bench.outcomes import Outcomes
from bench.randomness import Streams
from bench.soundness.measured import AttackResult, Course, Flaws, NotRun
from bench.soundness.sampling import in_turns, part

WALK = 40
"""Steps of the walk that is recorded: twice as many as the usual PGD takes."""
SHOWN = 4
"""For each image that is attacked, so many are shown to the model without attack."""


@dataclass(frozen=True)
class Effort:
    """How much work the checks may do.

    Attributes:
        images: at most so many images are attacked.
        one_in: and of the images that are classified correctly no more than one in so many.
        points: random perturbations that are tried per image.
        queries: that the black-box attack may make.
        own: passes that an attack from the evaluation may take when it is run once more.
    """

    images: int
    one_in: int
    points: int
    queries: int
    own: int


class Scaled(nn.Module):
    """A model with its logits divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        """Ask `model`, and divide what it answers."""
        super().__init__()
        self.model, self.temperature = model, temperature
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) the divided logits."""
        logits: Tensor = self.model(x)
        return logits / self.temperature


@dataclass(frozen=True, eq=False)
class Subject:
    """A model under examination.

    It is shown some of the images, about equally many of each class (`shown`), and attacked on a part of those that it
    classifies correctly (`attacked`). Attacks on a model whose answers are random see the mean of several answers, and
    a vote decides, if it was evaluated like that; if it was not, it is not attacked at all.

    Shapes: M images are shown, S are attacked, B are those of a call.

    Attributes:
        model: frozen and in eval mode.
        images: all that it is evaluated on.
        norm: geometry of the threat.
        eps: radius of the threat.
        seed: of the subset and of all randomness.
        device: where the model is.
        effort: how much work may be done.
        batch_size: images in memory at a time.
        runs: what attacks did to it on those images, or the error of one that left its budget.
        recorded_clean: hits and number of images of its clean accuracy by its own record; None if it has none.
        eot: attacks see the mean of so many answers; 1 for a model that is not random.
        votes: so many answers are asked for to decide; 1 likewise.
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
    _results: dict[tuple[Attack, Fraction, float], AttackResult] = field(default_factory=dict, init=False)

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
        """How many images may be attacked where `of` are at hand."""
        return max(1, min(self.effort.images, int(of / self.effort.one_in)))

    @cached_property
    def shown(self) -> Chunk:
        """The images that the model is shown: in turns one of each class."""
        rows = in_turns(self.images, self.seed)[: SHOWN * self.affordable(len(self.images))]
        x, y = self.images.batch(rows, self.device)
        chunk = Chunk(x, y, self.images.sample[rows], self.images.classes)
        check_pixels(chunk)
        return chunk

    @cached_property
    def clean(self) -> Tensor:
        """(M,K) the model's logits of the shown images."""
        return self.logits(self.shown.x)

    @cached_property
    def unsteadiness(self) -> float:
        """Largest difference between answers to the same images, relative to the largest logit."""
        return unsteadiness(lambda x: self.logits(x, self.meter), self.shown.x[:FEW])

    @property
    def random(self) -> bool:
        """Whether its answers to the same images differ."""
        return self.unsteadiness > STEADY

    @cached_property
    def attacked(self) -> Chunk:
        """The images that are attacked; the model classifies them correctly.

        Raises:
            NotRun: none is classified correctly, or the answers are random.
        """
        if self.random and self.eot == 1:
            raise NotRun("the model's answers are random; evaluate it in expectation and by vote")
        right = (self.clean.argmax(1) == self.shown.y).nonzero()[:, 0]
        if not len(right):
            raise NotRun(f"none of {len(self.shown.y)} images is classified correctly without attack")
        share = len(right) / len(self.shown.y)
        return part(self.shown, right[: self.affordable(share * len(self.images))])

    def of_threat(self, trial: Trial) -> bool:
        """Whether a trial attacked in the norm and radius that are examined."""
        return trial.attack is not None and (trial.norm, trial.eps) == (self.norm.name, self.eps)

    @cached_property
    def streams(self) -> Streams:
        """Randomness of the attacked images."""
        samples = torch.from_numpy(self.attacked.sample.astype(np.int64)).to(self.device)
        return Streams(self.seed, samples).fork("soundness")

    def logits(self, x: Tensor, model: nn.Module | None = None, *, batch_size: int | None = None) -> Tensor:
        """(B,K) what the model answers to some images (B,C,H,W)."""
        parts = torch.split(x, batch_size or self.batch_size)
        return torch.cat([logits_of(model or self.decides, some, self.images.classes) for some in parts])

    def batches(self) -> Iterator[Tensor]:
        """Positions of the attacked images, `batch_size` at a time."""
        yield from torch.split(torch.arange(len(self.attacked.y), device=self.device), self.batch_size)

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
    def random_start(self) -> Tensor:
        """(S,C,H,W) a random start of each attacked image."""
        noise = self.norm.noise(self.streams.fork("start"), self.attacked.x, self.radius)
        return (self.attacked.x + noise).clamp(0, 1)

    @cached_property
    def flaws(self) -> Flaws:
        """Whose gradient is useless: that of either loss, at the image or at its random start."""
        places = self.attacked.x, self.random_start
        zero = torch.zeros_like(self.attacked.y, dtype=torch.bool)
        nan = zero.clone()
        for rows in self.batches():
            for place in places:
                for loss in self.losses:
                    grad = self.slope(place[rows], self.attacked.y[rows], loss).flatten(1)
                    zero[rows] |= (grad == 0).all(1)
                    nan[rows] |= ~grad.isfinite().all(1)
        return Flaws(zero, nan)

    @property
    def radius(self) -> Tensor:
        """(S,) eps."""
        return torch.full(self.attacked.y.shape, float(self.eps), device=self.device)

    @cached_property
    def course(self) -> Course:
        """A walk like PGD's, which also goes on with images that are broken."""
        start = self.norm.noise(self.streams.fork("course"), self.attacked.x, self.radius)
        parts = [self._walk(rows, start[rows]) for rows in self.batches()]
        return Course(*(torch.cat(column, 1) for column in zip(*parts, strict=True)))

    def _walk(self, rows: Tensor, start: Tensor) -> Course:
        """The walk of some of the attacked images."""
        x, y, radius = self.attacked.x[rows], self.attacked.y[rows], self.radius[rows]
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
        """(S,) bool, whether any of the random perturbations of size eps breaks the image."""
        own, broken = self.streams.fork("noise"), torch.zeros_like(self.attacked.y, dtype=torch.bool)
        for point in range(self.effort.points):
            direction = self.norm.steepest(own.normal(tuple(self.attacked.x.shape[1:]), point))
            adv = (self.attacked.x + float(self.eps) * direction).clamp(0, 1)
            broken |= self.logits(adv).argmax(1) != self.attacked.y
        return broken

    def tried(self, chunk: Chunk, trial: Trial, temperature: float = 1.0) -> AttackResult:
        """Run an attack on some images, and verify that it kept to its budget.

        Args:
            chunk: the images.
            trial: the attack.
            temperature: the attack sees the logits divided by it.

        Raises:
            OutOfBudget: it left its ball or the box.
        """
        meter = Meter(Scaled(self.search, temperature) if temperature != 1 else self.search)
        rows = torch.split(torch.arange(len(chunk.y), device=self.device), self.batch_size)
        adv = torch.cat([attacked(meter, part(chunk, some), trial).adv for some in rows])
        logits = self.logits(adv)
        return AttackResult(adv, logits, logits.argmax(1) != chunk.y)

    def result_of(self, attack: Attack, *, eps: Fraction | None = None, temperature: float = 1.0) -> AttackResult:
        """What an attack does to the attacked images; it is run the first time this is asked for."""
        attack, eps = attack.fitted(self.images.classes), self.eps if eps is None else eps
        key = attack, eps, temperature
        if key not in self._results:
            trial = Trial(repr(attack), attack, self.norm.name, eps, self.seed)
            self._results[key] = self.tried(self.attacked, trial, temperature)
        return self._results[key]


@contextmanager
def interruption_named() -> Iterator[None]:
    """Turn torch's complaint that no gradient reaches the pixels into an error that says so."""
    try:
        yield
    except RuntimeError as problem:
        if not re.search("does not require grad|not have been used", str(problem)):
            raise
        raise BadModel("the model passes no gradient to its pixels") from problem
