"""Do what a study lacks: hand units of work to workers, store what comes back.

The driver is the only one that writes the database; it does so chunk by chunk, so that a kill at any moment loses at
most the chunks in flight, and the next run goes on from there.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from bench.errors import BadStore, BenchError, DiskFull
from bench.outcomes import Outcomes
from bench.study.account import Progress
from bench.study.forecast import Forecast, known_of
from bench.study.plan import Cell, Cells
from bench.study.pool import Pool
from bench.study.record import attack_row, dataset_row, put, remembered
from bench.study.work import Checking, Judging, Training, training_cost


@dataclass
class Report:
    """What a run of a study did.

    Attributes:
        trained: trainings done now.
        judged: chunks judged now.
        checked: networks whose soundness was checked now.
        failures: one line per failed cell.
    """

    trained: int = 0
    judged: int = 0
    checked: int = 0
    failures: list[str] = field(default_factory=list)


def run_study(cells: Cells, workers: int, progress: Progress) -> Report:
    """Train and judge what is lacking; failures are collected, and stop only what depends on them.

    Raises:
        BenchError: the database cannot be written, or a worker was killed; what is in it stays.
    """
    store = cells.store
    store.create()
    store.add_dataset(dataset_row(cells.images))
    for trial in cells.trials:
        store.add_attack(attack_row(trial))
    try:
        with Pool(workers) as pool:
            return _Execution(cells, pool, progress).finish()
    except BrokenProcessPool:
        raise BenchError(
            "a worker process was killed, perhaps for want of memory; all that was finished is kept, "
            "run the same command again to go on, or with fewer --workers"
        ) from None


@dataclass
class _Execution:
    """One run of a study in flight.

    Attributes:
        flying: the units handed out, with their cells and keys.
        costs: forecast of each unit, by key.
        done: how much of it is done.
        ahead: forecast of what each cell has not handed out yet, by label.
        forecasts: what judging each cell's network costs, by label.
        training: labels of cells in training.
    """

    cells: Cells
    pool: Pool
    progress: Progress
    report: Report = field(default_factory=Report)
    flying: dict[Future[Any], tuple[Cell, Training | Judging | Checking, int]] = field(default_factory=dict)
    costs: dict[int, float] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)
    ahead: dict[str, float] = field(default_factory=dict)
    forecasts: dict[str, Forecast] = field(default_factory=dict)
    training: set[str] = field(default_factory=set)

    def finish(self) -> Report:
        """Work until nothing is left that can be done."""
        self.forecasts = {cell.label: Forecast(self.cells.images.classes) for cell in self.cells}
        self.ahead = {cell.label: self.forecast(cell) for cell in self.cells}
        waiting = self.start(list(self.cells))
        while self.flying:
            finished, _ = wait(self.flying, timeout=0.5, return_when=FIRST_COMPLETED)
            for key, fraction in self.pool.progress().items():
                self.done[key] = fraction * self.costs[key]
            for future in finished:
                self.take(future)
            if finished:
                waiting = self.start(waiting)
            self.show()
        return self.report

    def start(self, waiting: list[Cell]) -> list[Cell]:
        """Hand out the units of every cell whose teachers are there; the cells that go on waiting."""
        while True:
            later = [cell for cell in waiting if not self.started(cell)]
            if len(later) == len(waiting):
                return later
            waiting = later

    def started(self, cell: Cell) -> bool:
        """Hand out a cell's training, or what it lacks once trained; whether it needs no more waiting."""
        try:
            if not self.cells.look(cell):
                return False
            if cell.to_train:
                return self.train(cell)
            self.judge(cell)
        except (BadStore, DiskFull):
            raise
        except BenchError as problem:
            self.fail(cell, str(problem))
        return True

    def train(self, cell: Cell) -> bool:
        """Hand out a cell's training, once; if a teacher's file is gone, that teacher's instead, and False.

        Raises:
            BenchError: a teacher has failed.
        """
        if cell.label in self.training or cell.path is None:
            return True
        cells = self.cells
        parents = tuple((cells.parents(cell) or {}).items())
        if absent := [teacher for teacher in cells.teachers(cell) if teacher.target is None]:
            for teacher in absent:
                self.train(teacher)
            return False
        self.training.add(cell.label)
        device = cells.study.device
        self.submit(cell, Training(cell.plan, cells.train_source, cell.model, cell.seed, parents, cell.path, device))
        return True

    def judge(self, cell: Cell) -> None:
        """Enter a trained cell into the store, and hand out what it lacks."""
        cells, target = self.cells, cell.target
        self.ahead[cell.label] = 0.0
        if target is None or cell.path is None:
            return
        cells.store.add_checkpoint(target.row, target.epochs)
        self.forecasts[cell.label] = remembered(cells.store, target.row.checkpoint_id, cells.images, cells.trials)
        for trial, parts in cell.lacking:
            for rows in parts:
                unit = Judging(
                    cell.path,
                    target.row.checkpoint_id,
                    cells.test_source,
                    trial,
                    tuple(rows.tolist()),
                    cells.study.device,
                )
                self.submit(cell, unit)
        if not cell.lacking:
            self.examine(cell, anew=False)

    def examine(self, cell: Cell, *, anew: bool) -> None:
        """Hand out the soundness checks of a judged cell."""
        cells, target = self.cells, cell.target
        if target is None or cell.path is None:
            return
        for asked in cells.examinations(cell, anew=anew):
            study, checkpoint_id = cells.study, target.row.checkpoint_id
            unit = Checking(cell.path, checkpoint_id, cells.test_source, asked, study.batch_size, study.device)
            self.submit(cell, unit)

    def submit(self, cell: Cell, unit: Training | Judging | Checking) -> None:
        """Hand out a unit."""
        key = len(self.costs)
        self.costs[key] = self.price(cell, unit)
        if isinstance(unit, Training):
            self.ahead[cell.label] = max(0.0, self.ahead[cell.label] - self.costs[key])
        future = self.pool.submit(key, unit, saves=isinstance(unit, Training))
        self.flying[future] = (cell, unit, key)

    def take(self, future: Future[Any]) -> None:
        """Store a unit's result, or note its failure."""
        cell, unit, key = self.flying.pop(future)
        self.done[key] = self.costs[key]
        try:
            result = future.result()
        except BrokenProcessPool:
            raise
        except Exception as problem:  # a cell's failure, whatever it is, must not stop the others
            kind = "" if isinstance(problem, BenchError) else f"{type(problem).__name__}: "
            self.fail(cell, f"{kind}{problem}")
            return
        if isinstance(unit, Training):
            self.report.trained += 1
            self.started(cell)
        elif isinstance(unit, Checking):
            self.report.checked += 1
            unit.asked.enter(self.cells.store, unit.checkpoint_id, self.cells.images, result)
        else:
            self.put(cell, unit, key, *result)
            if not cell.problem and all(other is not cell for other, _, _ in self.flying.values()):
                self.examine(cell, anew=True)

    def put(self, cell: Cell, unit: Judging, key: int, outcomes: Outcomes, said: list[str]) -> None:
        """Store a chunk, and learn from it what the cell's other chunks will cost."""
        for line in said:
            self.progress.say(f"{cell.label}: {line}")
        put(self.cells.store, unit.checkpoint_id, self.cells.images, unit.trial, outcomes)
        self.report.judged += 1
        forecast, news = self.forecasts[cell.label], known_of(outcomes)
        forecast.learn(unit.trial, news)
        self.costs[key] = self.done[key] = forecast.cost(news)
        for other, same, ahead in self.flying.values():
            if other is cell and isinstance(same, Judging):
                self.costs[ahead] = self.price(cell, same)

    def fail(self, cell: Cell, problem: str) -> None:
        """Note a cell's failure, and call back what it has handed out."""
        if not cell.problem:
            self.report.failures.append(f"{cell.label}: {problem}")
        cell.problem = problem
        self.ahead[cell.label] = 0.0
        for future, (other, _, key) in list(self.flying.items()):
            if other is cell and future.cancel():
                del self.flying[future]
                self.done[key] = self.costs[key]

    def forecast(self, cell: Cell) -> float:
        """What a cell's training and evaluations would cost from nothing."""
        cells = self.cells
        cost = training_cost(cell.plan, len(cells.train_images))
        if cell.entry.evaluate:
            cost += sum(map(self.forecasts[cell.label].per_image, cells.trials)) * len(cells.images)
        return cost

    def price(self, cell: Cell, unit: Training | Judging | Checking) -> float:
        """What a unit is expected to cost."""
        if not isinstance(unit, Judging):
            return unit.cost()
        return self.forecasts[cell.label].per_image(unit.trial) * len(unit.rows)

    def show(self) -> None:
        """Tell how far it is."""
        self.progress.plan(sum(self.costs.values()) + sum(self.ahead.values()))
        busy = {f"{cell.label}: {unit.doing}" for future, (cell, unit, _) in self.flying.items() if future.running()}
        self.progress.advance(sum(self.done.values()), ", ".join(sorted(busy)[: self.pool.workers]))
