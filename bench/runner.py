"""Run what a study lacks: plan its cells by content hash, hand them to workers, store what comes back.

The driver is the only one that writes the database; it does so chunk by chunk, so that a kill at any moment loses at
most the chunks in flight, and the next run goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.attacks.suite import Trial
from bench.cells import Judging, Source, Training
from bench.data import Images
from bench.eps import show_eps
from bench.errors import BenchError
from bench.evaluate import chunks
from bench.fit import finished
from bench.identity import canonical
from bench.method import Plan
from bench.pool import Pool
from bench.runs import Parent, Run, prepare
from bench.store import AttackRow, DatasetRow, Store
from bench.study import Entry, Study
from bench.target import Target, of_checkpoint, teacher_of

SURVIVAL = 0.6
"""Share of images that a cost forecast assumes an attack has to work on."""


class Progress(Protocol):
    """Where a long run says how far it is."""

    def plan(self, total: float) -> None:
        """How much there is to do, in forward passes of one image."""

    def advance(self, done: float, doing: str) -> None:
        """How much is done, and what is being done."""

    def say(self, line: str) -> None:
        """A line to keep."""


@dataclass
class Cell:
    """One entry with one seed: a training and its evaluations.

    Attributes:
        entry: what.
        seed: of the training.
        plan: recipe and schedule.
        path: its checkpoint; unknown until its teachers are trained.
        target: its trained network; None until there is one.
        problem: why it failed; "" while it has not.
        units: judging units not yet done.
    """

    entry: Entry
    seed: int
    plan: Plan
    path: Path | None = None
    target: Target | None = None
    problem: str = ""
    lacking: list[tuple[Trial, list[np.ndarray[Any, np.dtype[np.int64]]]]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.entry.name} (seed {self.seed})"


@dataclass
class Report:
    """What a run of a study did.

    Attributes:
        trained: trainings done now.
        judged: chunks judged now.
        failures: one line per failed cell.
    """

    trained: int = 0
    judged: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Runner:
    """A study on its way into a database.

    Attributes:
        study: what to run.
        store: where outcomes go.
        out: folder for checkpoints.
        workers: processes.
        progress: where to say how far it is.
    """

    study: Study
    store: Store
    out: Path
    workers: int
    progress: Progress

    def __post_init__(self) -> None:
        """Load the data, which every cell needs.

        Raises:
            BadData: they cannot be loaded.
        """
        study = self.study
        self.training = Source(study.dataset, "train", study.revision, study.train_n)
        self.judged = Source(study.dataset, study.split, study.revision, study.n)
        self.train_images: Images = self.training.images()
        self.images: Images = self.judged.images()
        self.images.check_complete()
        self.trials = study.trials()
        self.cells = {
            (entry.name, seed): Cell(entry, seed, study.plan_of(entry, self.train_images.name))
            for entry in study.order()
            for seed in study.seeds_of(entry)
        }

    def teachers(self, cell: Cell) -> dict[str, Parent] | None:
        """The cell's teachers by role; None while one of them has not been trained.

        Raises:
            BenchError: a teacher has failed, or its file does not fit.
        """
        parents = {}
        for role, name in cell.entry.teachers(cell.plan.teachers).items():
            if name not in self.study.entries:
                parents[role] = teacher_of(Path(name), self.train_images)
                continue
            seeds = self.study.seeds_of(self.study.entries[name])
            teacher = self.cells[name, cell.seed if cell.seed in seeds else seeds[0]]
            if teacher.problem:
                raise BenchError(f"its teacher {teacher.label} failed")
            if teacher.target is None or teacher.path is None:
                return None
            parents[role] = Parent(teacher.target.row.checkpoint_id, teacher.target.row.recipe_id, teacher.path)
        return parents

    def look(self, cell: Cell) -> bool:
        """Find out what a cell lacks; False while its teachers are not there.

        Raises:
            BenchError: it cannot be run.
        """
        parents = self.teachers(cell)
        if parents is None:
            return False
        run = prepare(cell.plan, self.train_images, self.study.model_of(cell.entry), cell.seed, parents)
        name = re.sub(r"[^\w.+-]+", "-", cell.entry.name)
        cell.path = self.out / "checkpoints" / f"{name}-s{cell.seed}-{run.run_id[:8]}.safetensors"
        cell.target = self.trained(run, cell.path)
        if cell.target is not None:
            self.plan_trials(cell)
        return True

    def trained(self, run: Run, path: Path) -> Target | None:
        """The run's network, if it has been trained already."""
        checkpoint = finished(run, path)
        return of_checkpoint(checkpoint) if checkpoint else None

    def plan_trials(self, cell: Cell) -> None:
        """List the rows that the store still lacks, in chunks, for every attack."""
        if not cell.entry.evaluate or cell.target is None:
            return
        identity, data = cell.target.row.checkpoint_id, self.images.dataset_id
        cell.lacking = []
        for trial in self.trials:
            done = self.store.done(identity, data, trial.attack_id) if self.store.path.exists() else np.array([])
            rows = list(chunks(np.isin(self.images.sample, done), trial.batch_size or self.study.batch_size))
            if rows:
                cell.lacking.append((trial, rows))

    def forecast(self) -> Iterator[tuple[str, str, str]]:
        """What a run would do, cell by cell: name, training, evaluation; for a dry run."""
        for cell in self.cells.values():
            try:
                known = self.look(cell)
            except BenchError as problem:
                cell.problem = str(problem)
                yield cell.label, "cannot run", str(problem)
                continue
            if not known or cell.target is None:
                todo = f"{len(self.trials)} attacks x {len(self.images)} images" if cell.entry.evaluate else "none"
                yield cell.label, "to train" if known else "to train, after its teacher", todo
            else:
                todo = ", ".join(f"{trial.name} {sum(map(len, parts))}" for trial, parts in cell.lacking)
                yield cell.label, "done", f"to do: {todo}" if todo else "done" if cell.entry.evaluate else "none"

    def run(self) -> Report:
        """Do what is lacking; failures are collected, and stop only what depends on them."""
        self.store.create()
        self.store.add_dataset(dataset_row(self.images))
        for trial in self.trials:
            self.store.add_attack(attack_row(trial))
        return _Execution(self).finish()


@dataclass
class _Execution:
    """The state of one run of a study: what is in flight, what is done."""

    runner: Runner
    report: Report = field(default_factory=Report)
    flying: dict[Future[Any], tuple[Cell, Training | Judging, int]] = field(default_factory=dict)
    costs: dict[int, float] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)
    expected: dict[tuple[str, int], float] = field(default_factory=dict)

    def finish(self) -> Report:
        runner = self.runner
        waiting = list(runner.cells.values())
        for cell in waiting:
            self.expected[cell.entry.name, cell.seed] = self.cost_of(cell)
        with Pool(runner.workers) as pool:
            waiting = self.start(pool, waiting)
            while self.flying:
                finished, _ = wait(self.flying, timeout=0.5, return_when=FIRST_COMPLETED)
                for key, fraction in pool.progress().items():
                    self.done[key] = fraction * self.costs[key]
                for future in finished:
                    self.take(pool, future)
                if finished:
                    waiting = self.start(pool, waiting)
                self.show()
        return self.report

    def start(self, pool: Pool, waiting: list[Cell]) -> list[Cell]:
        """Hand out every cell whose teachers are there; the others go on waiting."""
        later = []
        for cell in waiting:
            try:
                if not self.runner.look(cell):
                    later.append(cell)
                elif cell.target is not None:
                    self.judge(pool, cell)
                else:
                    self.submit(pool, cell, self.training(cell))
            except BenchError as problem:
                self.fail(cell, str(problem))
        return self.start(pool, later) if later and len(later) < len(waiting) else later

    def training(self, cell: Cell) -> Training:
        runner = self.runner
        parents = tuple((runner.teachers(cell) or {}).items())
        path = cell.path or Path()
        model, device = runner.study.model_of(cell.entry), runner.study.device
        return Training(cell.plan, runner.training, model, cell.seed, parents, path, device)

    def judge(self, pool: Pool, cell: Cell) -> None:
        """Enter a trained cell into the store and hand out what it lacks."""
        runner, target = self.runner, cell.target
        if target is None or cell.path is None:
            return
        self.expected[cell.entry.name, cell.seed] = 0.0
        runner.store.add_checkpoint(target.row, target.epochs)
        for trial, parts in cell.lacking:
            runner.store.begin(target.row.checkpoint_id, runner.images.dataset_id, trial.attack_id, len(runner.images))
            for rows in parts:
                device = runner.study.device
                unit = Judging(cell.path, target.row.checkpoint_id, runner.judged, trial, tuple(rows.tolist()), device)
                self.submit(pool, cell, unit)

    def submit(self, pool: Pool, cell: Cell, unit: Training | Judging) -> None:
        key = len(self.costs)
        if isinstance(unit, Training):
            self.costs[key] = training_cost(cell.plan, self.runner.train_images)
            self.expected[cell.entry.name, cell.seed] -= self.costs[key]
        else:
            self.costs[key] = trial_cost(unit.trial, self.runner.images.classes) * len(unit.rows)
        future = pool.submit(key, unit, saves=isinstance(unit, Training))
        self.flying[future] = (cell, unit, key)

    def take(self, pool: Pool, future: Future[Any]) -> None:
        """Store a result, or note the failure."""
        cell, unit, key = self.flying.pop(future)
        self.done[key] = self.costs[key]
        try:
            result = future.result()
            if isinstance(unit, Training):
                self.report.trained += 1
                self.runner.look(cell)
                self.judge(pool, cell)
            else:
                outcomes, said = result
                for line in said:
                    self.runner.progress.say(f"{cell.label}: {line}")
                self.put(cell, unit, outcomes)
                self.report.judged += 1
        except Exception as problem:  # a cell's failure, whatever it is, must not stop the others
            kind = "" if isinstance(problem, BenchError) else f"{type(problem).__name__}: "
            self.fail(cell, f"{kind}{problem}")

    def put(self, cell: Cell, unit: Judging, outcomes: Any) -> None:
        runner = self.runner
        number = runner.store.begin(
            unit.checkpoint_id, runner.images.dataset_id, unit.trial.attack_id, len(runner.images)
        )
        runner.store.add_chunk(number, outcomes)

    def fail(self, cell: Cell, problem: str) -> None:
        if not cell.problem:
            self.report.failures.append(f"{cell.label}: {problem}")
            self.runner.progress.say(f"failed: {cell.label}: {problem}")
        cell.problem = problem
        self.expected[cell.entry.name, cell.seed] = 0.0
        for future, (other, _, key) in list(self.flying.items()):
            if other is cell and future.cancel():
                del self.flying[future]
                self.done[key] = self.costs[key]

    def cost_of(self, cell: Cell) -> float:
        """Forecast of a cell's training and evaluations."""
        runner = self.runner
        cost = training_cost(cell.plan, runner.train_images)
        if cell.entry.evaluate:
            cost += sum(trial_cost(trial, runner.images.classes) for trial in runner.trials) * len(runner.images)
        return cost

    def show(self) -> None:
        progress = self.runner.progress
        progress.plan(sum(self.costs.values()) + sum(self.expected.values()))
        busy = sorted({describe(cell, unit) for future, (cell, unit, _) in self.flying.items() if future.running()})
        progress.advance(sum(self.done.values()), ", ".join(busy[: self.runner.workers]))


def describe(cell: Cell, unit: Training | Judging) -> str:
    """What a unit does, in a few words."""
    return f"{cell.label}: {'training' if isinstance(unit, Training) else unit.trial.name}"


def training_cost(plan: Plan, images: Images) -> float:
    """Forecast of a training in forward passes of one image; a backward pass counts as one."""
    steps = getattr(getattr(plan.recipe.objective, "inner", None), "steps", 0)
    return 2.0 * (steps + 2) * plan.schedule.epochs * len(images)


def trial_cost(trial: Trial, classes: int) -> float:
    """Forecast of an attack on one image of K classes, likewise."""
    if trial.attack is None:
        return 1.0
    passes = trial.attack.passes(classes)
    return 2 + SURVIVAL * (passes.forwards + passes.backwards)


def dataset_row(images: Images) -> DatasetRow:
    """What the store keeps of a data set."""
    return DatasetRow(
        images.dataset_id, images.name, images.split, images.subset, len(images), tuple(images.class_names)
    )


def attack_row(trial: Trial) -> AttackRow:
    """What the store keeps of an attack."""
    exact = show_eps(trial.eps) if trial.eps else "0"
    return AttackRow(
        trial.attack_id,
        trial.name,
        trial.norm,
        exact,
        float(trial.eps or Fraction(0)),
        trial.lineup,
        canonical(trial.spec),
    )
