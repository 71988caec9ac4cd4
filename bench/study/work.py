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

from bench.attacks.trial import Trial
from bench.data.source import Source
from bench.errors import BadCheckpoint
from bench.evaluation.evaluate import evaluate
from bench.outcomes import Outcomes
from bench.soundness.examination import Examination
from bench.soundness.run import ALLOWED, STANDARD
from bench.training.checkpoint import read
from bench.training.fit import fit
from bench.training.method import Plan
from bench.training.recipe import passes_per_image
from bench.training.run import Parent, prepare
from bench.verdict import Verdict

Report = Callable[[float], None]
"""Told which fraction of a unit is done."""


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
    return float(passes_per_image(plan.recipe) * plan.schedule.epochs * images)
