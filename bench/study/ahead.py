"""What is still ahead of a run, in passes of one image and in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.attacks.trial import Trial
from bench.soundness.run import ALLOWED, STANDARD
from bench.study.plan import Cell, Lesson
from bench.study.progress import Forecast, Pace, Task
from bench.study.work import Checking, Judging, Training
from bench.training.recipe import passes_per_image

SURE = 0.01
"""Share of a unit that tells how long the rest takes."""


@dataclass(eq=False)
class Flight:
    """A unit of work on its way.

    Attributes:
        cell: what it is for.
        unit: what is to be done.
        share: how much of it is done.
        begun: when a worker began it, by the monotonic clock; None while none has.
    """

    cell: Cell
    unit: Training | Judging | Checking
    share: float = 0.0
    begun: float | None = None

    def hear(self, share: float) -> None:
        """Take note of how far it is."""
        self.begun, self.share = self.begun or time.monotonic(), share

    @property
    def seconds(self) -> float:
        """How long a worker has been at it."""
        return time.monotonic() - self.begun if self.begun else 0.0

    @property
    def label(self) -> str:
        """What it is, in words."""
        return f"{self.cell.label}: {self.unit.doing}"


@dataclass
class Ahead:
    """Foresees how long a run will take, from what was done in it.

    Attributes:
        classes: K.
        forecasts: how many passes it takes to judge each network, by label of its cell.
        truth: what came of the attacks' own words, on all networks; see `Forecast`.
        pace: how long a pass takes.
        spent: seconds of all workers in this run, of what has ended.
    """

    classes: int
    forecasts: dict[str, Forecast] = field(default_factory=dict)
    truth: dict[Trial, tuple[float, float]] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    spent: float = 0.0

    def forecast(self, cell: Cell) -> Forecast:
        """Of the passes that judge a cell's network."""
        return self.forecasts.setdefault(cell.label, Forecast(self.classes, self.truth))

    def ended(self, flight: Flight) -> None:
        """Take note of a unit that is done; of a chunk, after the forecast has learned of it."""
        self.pace.learn(self.task(flight), flight.seconds)
        self.spent += flight.seconds

    def task(self, flight: Flight) -> Task:
        """What a unit is, and how many passes it takes."""
        cell, unit = flight.cell, flight.unit
        if isinstance(unit, Judging):
            return self.judging(cell, unit.trial, len(unit.rows))
        if isinstance(unit, Training) and cell.lesson:
            return training(cell.lesson)
        return checking(len(unit.source.images()))

    def judging(self, cell: Cell, trial: Trial, images: int) -> Task:
        """A trial of so many images."""
        return Task((f"judging {trial.name}", "judging"), self.forecast(cell).per_image(trial) * images)

    def left(self, tasks: Iterable[Task], flying: Iterable[Flight], workers: int) -> float | None:
        """Seconds until all is done; None before anything tells how long a pass takes.

        Args:
            tasks: what has not begun.
            flying: what has.
            workers: how many work on them at a time.
        """
        flying = list(flying)
        pace = self.pace.with_first((self._so_far(flight), flight.seconds) for flight in flying if flight.share > SURE)
        rest = [self._rest(flight, pace) for flight in flying]
        times = [*rest, *map(pace.seconds, tasks)]
        known = [seconds for seconds in times if seconds is not None]
        if len(known) < len(times):
            return None
        return max(sum(known) / workers, *known[: len(rest)], 0.0)

    def _rest(self, flight: Flight, pace: Pace) -> float | None:
        """Seconds until a unit in flight is done."""
        if isinstance(flight.unit, Training) and flight.share > SURE:  # its steps are all alike
            return flight.seconds * (1 - flight.share) / flight.share
        whole = pace.seconds(self.task(flight))
        return None if whole is None else max(0.0, whole - flight.seconds)

    def _so_far(self, flight: Flight) -> Task:
        """What a unit in flight has done."""
        kinds, passes = self.task(flight)
        if isinstance(flight.unit, Judging):  # its share is of what it would take if no image fell
            passes = self.forecast(flight.cell).most(flight.unit.trial) * len(flight.unit.rows)
        return Task(kinds, flight.share * passes)


def training(lesson: Lesson) -> Task:
    """A training."""
    passes = passes_per_image(lesson.plan.recipe) * lesson.plan.schedule.epochs * len(lesson.source.images())
    return Task((f"training {lesson.plan.method} {lesson.model}", "training"), passes)


def checking(images: int) -> Task:
    """The soundness checks of a network: what they may cost, a share of the standard attack on so many images."""
    return Task(("checks",), ALLOWED * STANDARD * images)
