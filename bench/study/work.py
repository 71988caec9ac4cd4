"""The units of work of a study, as pure functions of values that pickle: any process may run any of them.

A worker never opens the database: it returns a checkpoint's file or a chunk's outcomes, and the driver stores them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from bench.attacks.trial import Trial
from bench.data.source import Source
from bench.evaluation.adversarials import Keeper
from bench.evaluation.evaluate import evaluate
from bench.evaluation.judge import ignored
from bench.evaluation.network import Network
from bench.evaluation.patience import USUAL, patience
from bench.outcomes import Outcomes
from bench.soundness.examination import Examination
from bench.study.pool import WAITS, Tell
from bench.training.fit import fit
from bench.training.method import Plan
from bench.training.run import Parent, prepare
from bench.verdict import Verdict

Stop = Callable[[], bool]
"""Asks whether to save and leave."""


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
    saves: ClassVar[bool] = True

    @property
    def doing(self) -> str:
        """What is shown while it runs."""
        return "training"

    def run(self, report: Tell, stop: Stop) -> Path:
        """Train, or go on, or find it done."""
        run = prepare(self.plan, self.source.images(), self.model, self.seed, dict(self.teachers))
        fit(
            run,
            self.path,
            device=self.device,
            stop=stop,
            report=lambda done, total: report(done / total),
            waits=lambda: report(WAITS),
        )
        return self.path


@dataclass(frozen=True)
class Judging:
    """Attack some rows of a data set once; the result is their outcomes, and what the evaluator had to say."""

    network: Network
    source: Source
    trial: Trial
    rows: tuple[int, ...]
    device: str
    keep: Keeper | None = None
    timeout: int = USUAL
    saves: ClassVar[bool] = False

    @property
    def doing(self) -> str:
        """What is shown while it runs."""
        return self.trial.name

    def run(self, report: Tell, stop: Stop) -> tuple[Outcomes, list[str]]:
        """Attack and judge."""
        images = self.source.images().select(np.array(self.rows))
        said: list[str] = []
        with patience(self.timeout, f"the model under {self.trial.name!r}") as heard:

            def tell(trial: Trial, samples: float, total: int) -> None:
                heard()
                report(samples / total)

            parts = evaluate(
                self.network.module(),
                images,
                [self.trial],
                batch_size=len(images),
                device=self.device,
                report=tell,
                notice=said.append,
                keep=self.keep or ignored,
            )
            ((_, outcomes),) = list(parts)
        return outcomes, said


@dataclass(frozen=True)
class Checking:
    """Ask whether the figures of a network should be believed; the result is the verdicts."""

    network: Network
    source: Source
    asked: Examination
    batch_size: int
    device: str
    timeout: int = USUAL
    saves: ClassVar[bool] = False

    @property
    def doing(self) -> str:
        """What is shown while it runs."""
        return "soundness checks"

    def run(self, report: Tell, stop: Stop) -> list[Verdict]:
        """Run the checks."""
        module, images, verdicts = self.network.module(), self.source.images(), []
        with patience(self.timeout, "the model under the soundness checks") as heard:
            for verdict in self.asked.verdicts(module, images, batch_size=self.batch_size, device=self.device):
                heard()
                verdicts.append(verdict)
        return verdicts
