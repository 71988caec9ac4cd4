"""What is still ahead of a run, in passes of one image and in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.attacks.trial import Trial
from bench.data.images import Images
from bench.soundness.run import ALLOWED, STANDARD
from bench.study.makespan import Piece, Strand, makespan
from bench.study.plan import Cell, Lesson
from bench.study.pool import BEGUN, WAITS
from bench.study.progress import Forecast, Pace, Task
from bench.study.work import Checking, Judging, Training
from bench.training.recipe import passes_per_image

TRAINING = "training"
"""The kind of work that gives way to all other; see `runner`."""
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
        first: when it was first heard of a share of it, and which: by then a worker has loaded what it needs and woken
            its device, and has perhaps found a part done by an earlier run, so that what follows tells the pace.
        waits: whether its worker waits for another process that does the same.
    """

    cell: Cell
    unit: Training | Judging | Checking
    share: float = 0.0
    begun: float | None = None
    first: tuple[float, float] | None = None
    waits: bool = False

    def hear(self, share: float) -> None:
        """Take note of how far it is, or that it waits: that time says nothing of how long it takes."""
        self.waits = share == WAITS
        if self.waits:
            self.begun, self.first, self.share = None, None, 0.0
        else:
            self.begun, self.share = self.begun or time.monotonic(), share
            if self.first is None and share > BEGUN:
                self.first = time.monotonic(), share

    @property
    def seconds(self) -> float:
        """How long a worker has been at it."""
        return time.monotonic() - self.begun if self.begun else 0.0

    @property
    def measured(self) -> tuple[float, float]:
        """Which share of it was done in how many seconds, since a share was first heard of."""
        if self.first is None:
            return 0.0, 0.0
        began, before = self.first
        return self.share - before, time.monotonic() - began

    @property
    def label(self) -> str:
        """What it is, in words."""
        return f"{self.cell.label}: {'waiting for another process' if self.waits else self.unit.doing}"


@dataclass
class Remains:
    """What is left to do for one network.

    Attributes:
        flying: units at which workers are.
        stages: work to be begun; that of each stage after the first waits for all before it.
    """

    flying: list[Flight] = field(default_factory=list)
    stages: list[list[Task]] = field(default_factory=lambda: [[]])


@dataclass
class Ahead:
    """Foresees how long a run will take, from what was done in it.

    Attributes:
        images: what the networks are judged on.
        forecasts: how many passes it takes to judge each network, by label of its cell.
        truth: what came of the attacks' own words, on all networks; see `Forecast`.
        pace: how long a pass takes.
        spent: seconds of all workers in this run, of what has ended.
    """

    images: Images
    forecasts: dict[str, Forecast] = field(default_factory=dict)
    truth: dict[Trial, tuple[float, float]] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    spent: float = 0.0

    def forecast(self, cell: Cell) -> Forecast:
        """Of the passes that judge a cell's network."""
        return self.forecasts.setdefault(cell.label, Forecast(self.images.classes, self.images.shape, self.truth))

    def ended(self, flight: Flight) -> None:
        """Take note of a unit that is done; of a chunk, after the forecast has learned of it."""
        if not flight.waits:
            whole = self.task(flight), flight.seconds
            # Of a training only what was watched: an earlier run may have done the rest of it.
            watched = isinstance(flight.unit, Training) and flight.measured[0] > SURE
            self.pace.learn(*(self._so_far(flight) if watched else whole))
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

    def chunks(self, cell: Cell) -> list[Task]:
        """All that judges a network, chunk by chunk."""
        chunks = []
        for trial in cell.trials:
            whole, size = len(self.images), trial.batch_size or cell.batch_size
            chunks += [self.judging(cell, trial, min(size, whole - first)) for first in range(0, whole, size)]
        return chunks

    def left(self, remains: Iterable[Remains], workers: int) -> float | None:
        """Seconds until all is done by so many workers; None before anything tells how long a pass takes."""
        remains = list(remains)
        flying = [flight for cell in remains for flight in cell.flying]
        pace = self.pace.with_begun(self._so_far(flight) for flight in flying if flight.measured[0] > SURE)
        if not pace.measured:
            return None
        strands = [
            Strand(
                [self._rest(flight, pace) for flight in cell.flying],
                [[Piece(TRAINING not in task.kinds, pace.seconds(task)) for task in stage] for stage in cell.stages],
            )
            for cell in remains
        ]
        return makespan(strands, workers)

    def _rest(self, flight: Flight, pace: Pace) -> float:
        """Seconds until a unit in flight is done."""
        share, seconds = flight.measured
        if isinstance(flight.unit, Training) and share > SURE:  # its steps are all alike
            return seconds * (1 - flight.share) / share
        return max(0.0, pace.seconds(self.task(flight)) - flight.seconds)

    def _so_far(self, flight: Flight) -> tuple[Task, float]:
        """What a unit in flight was seen to do, and in how many seconds."""
        kinds, passes = self.task(flight)
        if isinstance(flight.unit, Judging):  # its share is of what it would take if no image fell
            passes = self.forecast(flight.cell).most(flight.unit.trial) * len(flight.unit.rows)
        share, seconds = flight.measured
        return Task(kinds, share * passes), seconds


def training(lesson: Lesson) -> Task:
    """A training."""
    passes = passes_per_image(lesson.plan.recipe) * lesson.plan.schedule.epochs * len(lesson.source.images())
    return Task((f"training {lesson.plan.method} {lesson.model}", TRAINING), passes)


def checking(images: int) -> Task:
    """The soundness checks of a network: half of what they may cost, a share of an attack on so many images."""
    return Task(("checks",), ALLOWED / 2 * STANDARD * images)
