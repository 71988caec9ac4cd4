"""What an evaluation will cost, predicted from what attacks say of themselves and mended by what was measured.

Costs are counted in forward passes of one image through the model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.ascent import gradient
from bench.attacks.prepare import own_randomness, prepared
from bench.attacks.trial import Trial
from bench.data.images import Images
from bench.errors import BadModel
from bench.evaluation.judge import logits_of
from bench.outcomes import Outcomes

SURVIVAL = 0.6
"""Share of the images that are right without attack and that an attack is assumed to work on to its end, before any
attack has said how many there are."""
WARMING = (4, 16, 64)
"""Images in the first passes of a measurement; the very first are slow whatever the model."""
PROBE_SECONDS = 0.05
"""A measurement that takes so long is believed."""


class Known(NamedTuple):
    """What one trial did so far."""

    judged: int = 0
    correct: int = 0
    forwards: int = 0
    backwards: int = 0


@dataclass
class Forecast:
    """What it costs to judge one network.

    Attributes:
        classes: K.
        backward: cost of a backward pass.
        right: share of the images that are right unattacked, where the clean trial has not told yet.
        known: what is known of each trial.
    """

    classes: int
    backward: float = 1.0
    right: float = 1.0
    known: dict[Trial, Known] = field(default_factory=dict)

    def learn(self, trial: Trial, news: Known) -> None:
        """Take note of samples that were judged."""
        before = self.known.get(trial, Known())
        self.known[trial] = Known(*(a + b for a, b in zip(before, news, strict=True)))

    def judged(self, trial: Trial) -> int:
        """How many samples of a trial it knows of."""
        return self.known.get(trial, Known()).judged

    def per_image(self, trial: Trial) -> float:
        """What the next images of a trial will cost each: as much as its last ones, or what the attack says."""
        known = self.known.get(trial, Known())
        if known.judged and known.forwards:
            return self.cost(known) / known.judged
        return self.told(trial, self.standing(trial))

    def most(self, trial: Trial) -> float:
        """What an image costs on average if none falls that is right unattacked."""
        return self.told(trial, self.unattacked())

    def told(self, trial: Trial, share: float) -> float:
        """What an image costs by what the attack says of itself, if it works on such a share to its end."""
        if trial.attack is None:
            return trial.votes
        passes = trial.attack.passes(self.classes)
        return 2 * trial.votes + share * trial.eot * (passes.forwards + self.backward * passes.backwards)

    def standing(self, trial: Trial) -> float:
        """Share of the images that an attack will have to work on to its end.

        They are at most those that stand after another attack of the same budget.
        """
        rivals = [
            known.correct / known.judged
            for other, known in self.known.items()
            if known.judged and (other.norm, other.eps) == (trial.norm, trial.eps)
        ]
        return min(rivals) if rivals else SURVIVAL * self.unattacked()

    def unattacked(self) -> float:
        """Share of the images that are right unattacked."""
        clean = [known for other, known in self.known.items() if other.attack is None and known.judged]
        return min((known.correct / known.judged for known in clean), default=self.right)

    def cost(self, known: Known) -> float:
        """What samples that were judged have cost."""
        return known.forwards + self.backward * known.backwards


def known_of(outcomes: Outcomes) -> Known:
    """What outcomes tell a forecast."""
    passes = (int(column.sum(dtype=np.int64)) for column in (outcomes.forwards, outcomes.backwards))
    return Known(len(outcomes), int(outcomes.correct.sum()), *passes)


class Pace(NamedTuple):
    """How fast a model is.

    Attributes:
        forward: seconds per forward pass of one image.
        backward: seconds per backward pass; 0 where the model passes no gradient.
        correct: share of the images it was measured on that are classified correctly.
    """

    forward: float
    backward: float
    correct: float


def measured(model: nn.Module, images: Images, most: int, device: str) -> Pace | None:
    """The speed of a model, from a few passes of images from all over the data set; None where it cannot be had.

    What is wrong with a model or with its images is for the judge to say, who sees them all.

    It takes less than a second, or a few passes of 16 images where these take longer.

    Args:
        model: pixels to logits; its modes and flags stay as they are.
        images: what it will be evaluated on.
        most: images that are passed at a time when it is evaluated.
        device: where to compute; the model is moved there.
    """
    model = model.to(device)
    try:
        with prepared(model), own_randomness():
            for size in (*(few for few in WARMING if few < len(images)), min(most, len(images))):
                x, y = images.batch(np.linspace(0, len(images) - 1, size).astype(np.intp), device=device)
                first = _timed(model, x, y, images.classes)
                if size * (first.forward + first.backward) > PROBE_SECONDS and size > WARMING[0]:
                    break
            return min(first, *(_timed(model, x, y, images.classes) for _ in range(2)))
    except (BadModel, torch.OutOfMemoryError):
        return None


def _timed(model: nn.Module, x: Tensor, y: Tensor, classes: int) -> Pace:
    begun = _now(x)
    logits = logits_of(model, x, classes)
    between = _now(x)
    _gradient(model, x)
    forward, both = (between - begun) / len(x), (_now(x) - between) / len(x)
    return Pace(forward, max(0.0, both - forward), float((logits.argmax(1) == y).double().mean()))


def _gradient(model: nn.Module, x: Tensor) -> None:
    """A pass forward and backward; nothing where the model passes no gradient, as the attacks will say."""
    leaf = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            gradient(model(leaf).sum(1), leaf)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return


def _now(x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
