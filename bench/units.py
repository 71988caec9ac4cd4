"""The units of work of a study, as pure functions of values that pickle: any process may run any of them.

A worker never opens the database: it returns a checkpoint's file or a chunk's outcomes, and the driver stores them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import nn

from bench.attacks.suite import Trial
from bench.checkpoint import read
from bench.data import Images, load
from bench.errors import BadCheckpoint
from bench.evaluate import evaluate
from bench.examining import Examination
from bench.fit import fit
from bench.method import Plan
from bench.outcomes import Outcomes
from bench.runs import Parent, prepare
from bench.soundness.examine import ALLOWED, STANDARD
from bench.verdicts import Verdict

Report = Callable[[float], None]
"""Told which fraction of a unit is done."""


@dataclass(frozen=True)
class Source:
    """Images by name, so that they need not be sent to a worker.

    Attributes:
        name: what `bench.data.load` understands.
        split: of it.
        revision: on the Hub; "" for the card's own.
        n: size of a stratified subset; 0 for all.
        seed: of the subset.
    """

    name: str
    split: str
    revision: str = ""
    n: int = 0
    seed: int = 0

    def images(self) -> Images:
        """The images, loaded once per process."""
        return _images(self)


@lru_cache(maxsize=4)
def _images(source: Source) -> Images:
    images = load(source.name, source.split, revision=source.revision or None)
    return images.take(source.n, source.seed) if source.n else images


@lru_cache(maxsize=2)
def _network(path: Path, checkpoint_id: str) -> nn.Module:
    checkpoint = read(path)
    if checkpoint.checkpoint_id != checkpoint_id:
        raise BadCheckpoint(f"{path} holds {checkpoint.checkpoint_id}, not {checkpoint_id}; run the same command again")
    return checkpoint.network()


@dataclass(frozen=True)
class Training:
    """Train a plan; the result is the checkpoint's file."""

    plan: Plan
    source: Source
    model: str
    seed: int
    teachers: tuple[tuple[str, Parent], ...]
    path: Path
    device: str

    @property
    def doing(self) -> str:
        """What is shown while it runs."""
        return "training"

    def run(self, report: Report, stop: Callable[[], bool]) -> Path:
        """Train, or go on, or find it done."""
        run = prepare(self.plan, self.source.images(), self.model, self.seed, dict(self.teachers))
        fit(run, self.path, device=self.device, stop=stop, report=lambda done, total: report(done / total))
        return self.path

    def cost(self) -> float:
        """Forecast in forward passes of one image; a backward pass counts as one."""
        return training_cost(self.plan, len(self.source.images()))


@dataclass(frozen=True)
class Judging:
    """Attack some rows of a data set once; the result is their outcomes, and what the evaluator had to say."""

    path: Path
    checkpoint_id: str
    source: Source
    trial: Trial
    rows: tuple[int, ...]
    device: str

    @property
    def doing(self) -> str:
        """What is shown while it runs."""
        return self.trial.name

    def run(self, report: Report, stop: Callable[[], bool]) -> tuple[Outcomes, list[str]]:
        """Attack and judge."""
        images = self.source.images().select(np.array(self.rows))
        said: list[str] = []
        parts = evaluate(
            _network(self.path, self.checkpoint_id),
            images,
            [self.trial],
            batch_size=len(images),
            device=self.device,
            report=lambda trial, samples, total: report(samples / total),
            notice=said.append,
        )
        ((_, outcomes),) = list(parts)
        return outcomes, said


@dataclass(frozen=True)
class Checking:
    """Ask whether the figures of a network should be believed; the result is the verdicts."""

    path: Path
    checkpoint_id: str
    source: Source
    asked: Examination
    batch_size: int
    device: str

    @property
    def doing(self) -> str:
        """What is shown while it runs."""
        return "soundness checks"

    def run(self, report: Report, stop: Callable[[], bool]) -> list[Verdict]:
        """Run the checks."""
        network, images = _network(self.path, self.checkpoint_id), self.source.images()
        return list(self.asked.verdicts(network, images, batch_size=self.batch_size, device=self.device))

    def cost(self) -> float:
        """Forecast: what they may cost, a share of the standard attack on all images."""
        return ALLOWED * STANDARD * len(self.source.images())


def training_cost(plan: Plan, images: int) -> float:
    """Forecast of a training on so many images, in forward passes of one image; a backward pass counts as one."""
    steps = getattr(getattr(plan.recipe.objective, "inner", None), "steps", 0)
    return 2.0 * (steps + 2) * plan.schedule.epochs * images
