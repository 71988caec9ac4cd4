"""What a study lacks: its cells, one per entry and seed, held against the files and the database by content hash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.attacks.trial import Trial, fitted
from bench.data.images import Images
from bench.data.source import Source
from bench.errors import BadStore, BenchError
from bench.evaluation.evaluate import chunks
from bench.evaluation.network import Target, of_checkpoint, teacher_of
from bench.soundness.examination import Examination, examinations
from bench.store.database import Store
from bench.study.file import Entry, Study
from bench.training.fit import finished
from bench.training.method import Plan
from bench.training.run import Parent, prepare

Rows = npt.NDArray[np.intp]


@dataclass
class Cell:
    """One entry with one seed: a training and its evaluations.

    Attributes:
        entry: what.
        seed: of the training.
        plan: recipe and schedule.
        model: network to train.
        parent: the trained network as a teacher, and its file; the file alone until it is trained.
        path: its checkpoint's file; None until its teachers are known.
        target: its trained network, where there is a file.
        lacking: for every attack, the chunks of rows that the store does not have yet.
        problem: why it failed; "" while it has not.
    """

    entry: Entry
    seed: int
    plan: Plan
    model: str
    parent: Parent | None = None
    path: Path | None = None
    target: Target | None = None
    lacking: list[tuple[Trial, list[Rows]]] = field(default_factory=list)
    problem: str = ""

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.entry.name} (seed {self.seed})"

    @property
    def to_train(self) -> bool:
        """Whether its training is missing: no file, and something left to do with it."""
        return self.target is None and (self.parent is None or bool(self.lacking))


class Cells:
    """A study's cells, with the data that all of them need.

    Raises:
        BenchError: the data cannot be loaded, or a method does not fit them.
    """

    def __init__(self, study: Study, store: Store, out: Path) -> None:
        self.study, self.store, self.out = study, store, out
        self.train_source = Source(study.dataset, "train", study.revision, study.train_n)
        self.test_source = Source(study.dataset, study.split, study.revision, study.n, study.n_seed)
        self.train_images: Images = self.train_source.images().check_complete()
        self.images: Images = self.test_source.images().check_complete()
        self.trials: tuple[Trial, ...] = fitted(study.trials(), self.images.classes)
        self.by_key = {
            (entry.name, seed): Cell(entry, seed, study.plan_of(entry, self.train_images.name), study.model_of(entry))
            for entry in study.order()
            for seed in study.seeds_of(entry)
        }

    def __iter__(self) -> Iterator[Cell]:
        """Teachers before their students."""
        return iter(self.by_key.values())

    def teachers(self, cell: Cell) -> Sequence[Cell]:
        """The cells that teach a cell."""
        found = []
        for name in cell.entry.teachers(cell.plan.teachers).values():
            if name in self.study.entries:
                seeds = self.study.seeds_of(self.study.entries[name])
                found.append(self.by_key[name, cell.seed if cell.seed in seeds else seeds[0]])
        return found

    def parents(self, cell: Cell) -> dict[str, Parent] | None:
        """A cell's teachers by role; None while one of them is not trained.

        Raises:
            BenchError: a teacher has failed, or its file does not fit.
        """
        cells = {teacher.entry.name: teacher for teacher in self.teachers(cell)}
        parents: dict[str, Parent] = {}
        for role, name in cell.entry.teachers(cell.plan.teachers).items():
            if name not in cells:
                parents[role] = teacher_of(name, self.train_images)
                continue
            if cells[name].problem:
                raise BenchError(f"its teacher {cells[name].label} failed")
            parent = cells[name].parent
            if parent is None:
                return None
            parents[role] = parent
        return parents

    def look(self, cell: Cell) -> bool:
        """Find out what a cell lacks; False while its teachers are not trained.

        Raises:
            BenchError: it cannot be run.
        """
        parents = self.parents(cell)
        if parents is None:
            return False
        run = prepare(cell.plan, self.train_images, cell.model, cell.seed, parents)
        name = re.sub(r"[^\w.+-]+", "-", cell.entry.name)
        cell.path = self.out / "checkpoints" / f"{name}-s{cell.seed}-{run.run_id[:8]}.safetensors"
        checkpoint = finished(run, cell.path)
        if checkpoint is not None:
            cell.target = of_checkpoint(checkpoint)
            cell.parent = Parent(checkpoint.checkpoint_id, cell.target.row.recipe_id, cell.path)
        elif self.store.path.exists() and (known := self.store.checkpoint_of_run(run.run_id)):
            # The store remembers a training whose file is gone: only what is lacking would need it again.
            cell.parent = Parent(*known, cell.path)
        if cell.parent is not None and cell.entry.evaluate:
            cell.lacking = self.missing(cell.parent.checkpoint_id)
        return True

    def missing(self, checkpoint_id: str) -> list[tuple[Trial, list[Rows]]]:
        """For every attack, the chunks of rows whose outcome the store does not have."""
        lacking = []
        for trial in self.trials:
            known = np.zeros(len(self.images), bool)
            if self.store.path.exists():
                done = self.store.done(checkpoint_id, self.images.dataset_id, trial.attack_id)
                known = np.isin(self.images.sample, done)
            if parts := list(chunks(known, trial.batch_size or self.study.batch_size)):
                lacking.append((trial, parts))
        return lacking

    def examinations(self, cell: Cell, *, anew: bool) -> list[Examination]:
        """What the soundness checks have not been asked about a judged cell; `anew` asks about all."""
        which = self.study.examined
        if which == "none" or cell.target is None or not cell.entry.evaluate:
            return []
        return list(examinations(self.store, cell.target, self.images, self.trials, which=which, anew=anew))

    def forecast(self) -> Iterator[tuple[str, str, str]]:
        """What a run would do, cell by cell: name, training, evaluation."""
        for cell in self:
            try:
                known = self.look(cell)
            except BadStore:
                raise
            except BenchError as problem:
                cell.problem = str(problem)
                yield cell.label, "cannot run", str(problem)
                continue
            todo = ", ".join(f"{trial.name} {sum(map(len, parts))}" for trial, parts in cell.lacking)
            if cell.parent is None and cell.entry.evaluate:
                todo = f"{len(self.trials)} attacks x {len(self.images)} images"
            training = "to train" if cell.to_train else "done"
            yield cell.label, training if known else "to train, after its teacher", todo or "nothing to do"
