"""The driver: do what an agenda lacks, hand units of work to a pool, store what comes back.

Studies and evaluations are driven by it alike. It is the only one that writes the database, chunk by chunk, so that a
kill at any moment loses at most the chunks in flight, and the next run goes on from there.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from bench.attacks.trial import Trial
from bench.errors import BadAttack, BadStore, BenchError, DiskFull, TimedOut, told
from bench.evaluation.evaluate import once
from bench.outcomes import Outcomes
from bench.soundness.examination import examinations
from bench.study.ahead import Ahead, Flight, Remains, checking, training
from bench.study.plan import Agenda, Cell
from bench.study.pool import Pool
from bench.study.progress import Progress, known_of
from bench.study.record import attack_row, dataset_row, put, remember
from bench.study.work import Checking, Judging, Training
from bench.training.fit import Interrupted

OFTEN = 0.2
"""Seconds between two reports of progress, at least."""


@dataclass
class Report:
    """What a run did.

    Attributes:
        trained: trainings done now.
        judged: chunks judged now.
        checked: networks whose soundness was checked now.
        problems: what failed, by label of the cell.
    """

    trained: int = 0
    judged: int = 0
    checked: int = 0
    problems: dict[str, Exception] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """One line per failed cell."""
        return [f"{label}: {problem}" for label, problem in self.problems.items()]


def run_study(agenda: Agenda, pool: Pool, progress: Progress, stop: Callable[[], bool] = lambda: False) -> Report:
    """Train and judge what is lacking; failures are collected, and stop only what depends on them.

    Args:
        agenda: what is to be done.
        pool: who does it.
        progress: hears how far it is.
        stop: asks whether to begin nothing more; what is in hand is then waited for and stored.

    Raises:
        KeyboardInterrupt: it was stopped before all was done.
        BadStore: the database cannot be written; what is in it stays.
        DiskFull: likewise.
    """
    store = agenda.store
    store.create()
    store.add_dataset(dataset_row(agenda.images))
    for trial in agenda.trials:
        store.add_attack(attack_row(trial))
    with pool:
        return _Driver(agenda, pool, progress, stop).finish()


@dataclass
class _Driver:
    """A run.

    Attributes:
        waiting: units to be handed out, the most urgent first; what judges comes before what trains, so that an entry
            can be looked at soon after it is trained.
        flying: units that workers are at.
        landed: units that have ended, and whose results are not stored yet.
        blocked: cells whose teachers are not trained.
        entered: labels of cells whose network is in the store.
        remarks: tells the remarks on a cell, each once.
        planned: units planned so far.
        shown: when progress was last told.
        dropped: whether a unit was stopped before its end.
        ahead: foresees how long the rest takes.
    """

    agenda: Agenda
    pool: Pool
    progress: Progress
    stop: Callable[[], bool] = lambda: False
    report: Report = field(default_factory=Report)
    waiting: list[tuple[int, int, Flight]] = field(default_factory=list)
    flying: dict[Future[Any], Flight] = field(default_factory=dict)
    landed: dict[Future[Any], Flight] = field(default_factory=dict)
    blocked: list[Cell] = field(default_factory=list)
    entered: set[str] = field(default_factory=set)
    remarks: dict[str, Callable[[str], None]] = field(default_factory=dict)
    planned: int = 0
    shown: float = 0.0
    dropped: bool = False
    ahead: Ahead = field(init=False)

    def __post_init__(self) -> None:
        """Nothing has been looked at yet."""
        self.ahead, self.blocked = Ahead(self.agenda.images), list(self.agenda.cells)

    def finish(self) -> Report:
        """Work until nothing is left that can be done, or it is stopped.

        Raises:
            KeyboardInterrupt: it was stopped before all was done.
        """
        say = once(self.progress.say)
        self.unblock()
        self.hand_out()
        while self.flying:
            ended = self.pool.wait(self.hear)
            if self.stop():
                self.pool.stop()
            self.landed = {future: self.flying.pop(future) for future in ended}
            for urgent in (True, False):  # what was trained can be judged now; no worker waits while chunks are stored
                for future, flight in list(self.landed.items()):
                    if isinstance(flight.unit, Training) is urgent:
                        self.take(self.landed.pop(future), future)
                self.hand_out()
            if self.flying and self.stop():
                say("stopping as soon as what is in hand has ended; once more ends it now")
            self.show()
        if self.stop() and (self.dropped or self.waiting):
            raise KeyboardInterrupt
        self.progress.show(1.0, 0.0, "")
        return self.report

    def unblock(self) -> None:
        """Begin every cell whose teachers are there, until no more can be."""
        while True:
            later = [cell for cell in self.blocked if not self.begun(cell)]
            if len(later) == len(self.blocked):
                return
            self.blocked = later

    def begun(self, cell: Cell) -> bool:
        """Plan a cell's training, or what it lacks once trained; False while it waits for its teachers."""
        try:
            if not self.agenda.look(cell):
                return False
            if not cell.to_train:
                self.judge(cell)
                return True
            return self.train(cell)
        except (BadStore, DiskFull):
            raise
        except BenchError as problem:
            self.fail(cell, problem)
            return True

    def train(self, cell: Cell) -> bool:
        """Plan a cell's training; if a teacher's file is gone, that teacher's first, and False."""
        lesson = cell.lesson
        if lesson is None or any(flight.cell is cell for flight in self.all_flights()):
            return True
        if absent := [teacher for teacher in lesson.taught_by if teacher.network is None]:
            for teacher in absent:
                self.train(teacher)
            return False
        self.plan(cell, lesson.unit())
        return True

    def judge(self, cell: Cell) -> None:
        """Plan what a network lacks."""
        network, agenda = cell.network, self.agenda
        if network is None:
            return
        if cell.lesson:
            self.enter(cell)
        if cell.lacking:
            forecast = self.ahead.forecast(cell)
            remember(forecast, agenda.store, network.row.checkpoint_id, agenda.images, cell.trials)
        self.remark_on_lost(cell)
        for trial, parts in cell.lacking:
            for rows in parts:
                chosen = tuple(rows.tolist())
                self.plan(
                    cell,
                    Judging(network, agenda.source, trial, chosen, agenda.device, cell.keep, timeout=agenda.timeout),
                )
        if not cell.lacking:
            self.examine(cell, anew=agenda.recheck)

    def examine(self, cell: Cell, *, anew: bool) -> None:
        """Plan the soundness checks of a judged network."""
        agenda, network = self.agenda, cell.network
        if agenda.checks == "none" or network is None or not cell.trials:
            return
        for asked in examinations(agenda.store, network, agenda.images, cell.trials, which=agenda.checks, anew=anew):
            self.plan(
                cell, Checking(network, agenda.source, asked, cell.batch_size, agenda.device, timeout=agenda.timeout)
            )

    def enter(self, cell: Cell) -> None:
        """Enter a network into the store; a given one not before its first outcomes, for it may fail at them."""
        if cell.network and cell.label not in self.entered:
            self.agenda.store.add_checkpoint(cell.network.row, cell.network.epochs)
            self.entered.add(cell.label)

    def plan(self, cell: Cell, unit: Training | Judging | Checking) -> None:
        """Put a unit into the queue."""
        self.planned += 1
        heapq.heappush(self.waiting, (int(isinstance(unit, Training)), self.planned, Flight(cell, unit)))

    def hand_out(self) -> None:
        """Give every free worker a unit."""
        while self.waiting and len(self.flying) < self.pool.workers and not self.stop():
            _, _, flight = heapq.heappop(self.waiting)
            self.flying[self.pool.submit(flight.unit)] = flight

    def hear(self, future: Future[Any], share: float) -> None:
        """Take note of how far a unit is."""
        flight = self.flying[future]
        flight.hear(share)
        if flight.waits:
            self.remark(flight.cell, "another process trains it; waiting to go on from there")
        self.show()

    def take(self, flight: Flight, future: Future[Any]) -> None:
        """Store a unit's result, or note its failure."""
        cell, unit = flight.cell, flight.unit
        try:
            result = future.result()
        except (Exception, SystemExit) as problem:  # a cell's failure, whatever it is, must not stop the others
            if self.stop() and isinstance(problem, Interrupted | CancelledError):
                self.dropped = True
            else:
                self.failed(flight, problem)
            return
        if isinstance(unit, Judging):
            self.put(flight, unit, *result)
        self.ahead.ended(flight)
        if isinstance(unit, Training):
            self.report.trained += 1
            self.begun(cell)
            self.unblock()
        elif isinstance(unit, Checking):
            self.report.checked += 1
            self.enter(cell)
            unit.asked.enter(self.agenda.store, unit.network.row.checkpoint_id, self.agenda.images, result)
        else:
            self.judged(cell)

    def put(self, flight: Flight, unit: Judging, outcomes: Outcomes, said: list[str]) -> None:
        """Store a chunk, and learn from it what the cell's other chunks will cost."""
        for line in said:
            self.remark(flight.cell, line)
        self.enter(flight.cell)
        put(self.agenda.store, unit.network.row.checkpoint_id, self.agenda.images, unit.trial, outcomes)
        self.report.judged += 1
        self.ahead.forecast(flight.cell).learn(unit.trial, known_of(outcomes))

    def failed(self, flight: Flight, problem: BaseException) -> None:
        """Note that a unit failed: with an attack's failure only what is left of that attack, else the whole cell."""
        cell, unit = flight.cell, flight.unit
        if not isinstance(problem, BenchError):
            problem = BenchError(told(problem))
        if isinstance(unit, Judging) and unit.trial.attack and isinstance(problem, BadAttack | TimedOut):
            self.report.problems.setdefault(f"{cell.label}, {unit.trial.name}", problem)
            self.drop(cell, unit.trial)
            self.judged(cell)
        else:
            self.fail(cell, problem)
        self.unblock()

    def fail(self, cell: Cell, problem: BenchError) -> None:
        """Note a cell's failure, and drop what it has not begun."""
        if not cell.problem:
            self.report.problems[cell.label] = problem
        cell.problem = str(problem)
        self.drop(cell)

    def drop(self, cell: Cell, trial: Trial | None = None) -> None:
        """Begin nothing more of a cell, or of one of its attacks."""

        def stays(unit: Training | Judging | Checking) -> bool:
            return trial is not None and not (isinstance(unit, Judging) and unit.trial == trial)

        self.waiting = [item for item in self.waiting if item[2].cell is not cell or stays(item[2].unit)]
        heapq.heapify(self.waiting)

    def judged(self, cell: Cell) -> None:
        """Check the soundness of a network once all that judges it has ended."""
        if not cell.problem and all(other.cell is not cell for other in self.all_flights()):
            self.examine(cell, anew=True)

    def all_flights(self) -> list[Flight]:
        """Units in flight, those that have ended and are not stored yet, and those that wait."""
        return [*self.flying.values(), *self.landed.values(), *(flight for _, _, flight in self.waiting)]

    def remark_on_lost(self, cell: Cell) -> None:
        """Say which images cannot be kept, because an earlier run has found them and thrown them away."""
        lacking = {trial: sum(map(len, parts)) for trial, parts in cell.lacking}
        for trial in cell.trials if cell.keep else ():
            lost = len(self.agenda.images) - lacking.get(trial, 0)
            if lost and trial.attack and cell.keep and not cell.keep.place(trial).exists():
                self.remark(cell, f"{trial.name}: the images of {lost} samples were found earlier and not kept")

    def remark(self, cell: Cell, line: str) -> None:
        """Say something about a network, once."""
        if cell.label not in self.remarks:
            self.remarks[cell.label] = once(lambda text: self.progress.say(f"{cell.label}: {text}"))
        self.remarks[cell.label](line)

    def show(self) -> None:
        """Tell how far it is, not too often."""
        if time.monotonic() - self.shown < OFTEN:
            return
        self.shown = time.monotonic()
        left = self.ahead.left(self.remains(), self.pool.workers)
        spent = self.ahead.spent + sum(flight.seconds for flight in self.flying.values())
        share = 0.0 if left is None else spent / (spent + left * self.pool.workers or 1.0)
        doing = sorted({flight.label for flight in self.flying.values()})
        self.progress.show(share, left, ", ".join(doing[: self.pool.workers]))

    def remains(self) -> Iterable[Remains]:
        """What is left to do for each network."""
        agenda, blocked = self.agenda, {cell.label for cell in self.blocked}
        judged = {flight.cell.label for flight in self.all_flights() if isinstance(flight.unit, Judging)}
        of = {cell.label: Remains() for cell in agenda.cells}
        for flight in self.flying.values():
            of[flight.cell.label].flying.append(flight)
        for _, _, flight in sorted(self.waiting, key=itemgetter(0, 1)):
            of[flight.cell.label].stages[0].append(self.ahead.task(flight))
        for cell in (cell for cell in agenda.cells if not cell.problem):
            stages = of[cell.label].stages
            if cell.lesson and cell.label in blocked:
                stages[0].append(training(cell.lesson))
            if cell.to_train:
                stages.append(self.ahead.chunks(cell))
            if cell.trials and agenda.checks != "none" and (cell.to_train or cell.label in judged):
                stages.append([checking(len(agenda.images))])
        return of.values()
