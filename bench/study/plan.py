"""What is to be done: networks, trained first where they are entries of a study, and what judges each of them.

A cell is one network. What it lacks is told by holding it against the files and the database by content hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.attacks.trial import Trial, fitted
from bench.data.images import Images
from bench.data.load import check_same_classes
from bench.data.source import Source
from bench.errors import BadStore, BenchError
from bench.evaluation.adversarials import Keeper
from bench.evaluation.evaluate import chunks
from bench.evaluation.network import Network, of_checkpoint, teacher_of
from bench.evaluation.patience import USUAL
from bench.files import cut_name
from bench.soundness.examination import Checks
from bench.store.database import Store
from bench.study.file import Study
from bench.study.work import Training
from bench.training.fit import finished
from bench.training.method import Plan
from bench.training.run import Parent, prepare

Rows = npt.NDArray[np.intp]


@dataclass
class Lesson:
    """How the network of a cell is trained.

    Attributes:
        name: of the study's entry.
        seed: of the training.
        plan: recipe and schedule.
        model: network to train.
        source: the training split.
        teachers: by role, another cell or what the command line calls a teacher.
        folder: of checkpoints.
        device: where to train.
        parent: the trained network as a teacher, and its file; the file alone until it is trained; None before the
            teachers are known.
        path: its checkpoint's file; None until its teachers are known.
    """

    name: str
    seed: int
    plan: Plan
    model: str
    source: Source
    teachers: dict[str, Cell | str]
    folder: Path
    device: str
    parent: Parent | None = None
    path: Path | None = None

    @property
    def taught_by(self) -> list[Cell]:
        """The cells that teach."""
        return [teacher for teacher in self.teachers.values() if isinstance(teacher, Cell)]

    def parents(self) -> dict[str, Parent] | None:
        """The teachers by role; None while one of them is not trained.

        Raises:
            BenchError: a teacher has failed, or its file does not fit.
        """
        parents: dict[str, Parent] = {}
        for role, teacher in self.teachers.items():
            if isinstance(teacher, str):
                parents[role] = teacher_of(teacher, self.source.images())
                continue
            if teacher.problem:
                raise BenchError(f"its teacher {teacher.label} failed")
            if teacher.lesson is None or teacher.lesson.parent is None:
                return None
            parents[role] = teacher.lesson.parent
        return parents

    def unit(self) -> Training:
        """The training as a unit of work; its teachers are trained.

        Raises:
            BenchError: they are not.
        """
        parents = self.parents()
        if parents is None or self.path is None:
            raise BenchError(f"{self.name} waits for its teachers; train them first")
        teachers = tuple(parents.items())
        return Training(self.plan, self.source, self.model, self.seed, teachers, self.path, self.device)


@dataclass
class Cell:
    """One network and what judges it.

    Attributes:
        label: how messages call it.
        trials: what judges it, the clean trial first; none for a network that only teaches.
        batch_size: images per chunk.
        network: what is judged; None until it is trained.
        lesson: how it is trained; None for a network that is given.
        keep: takes the adversarial images of what is attacked now.
        lacking: for every trial, the chunks of rows that the store does not have yet.
        problem: why it failed; "" while it has not.
    """

    label: str
    trials: tuple[Trial, ...]
    batch_size: int
    network: Network | None = None
    lesson: Lesson | None = None
    keep: Keeper | None = None
    lacking: list[tuple[Trial, list[Rows]]] = field(default_factory=list)
    problem: str = ""

    @property
    def to_train(self) -> bool:
        """Whether its training is missing: no file, and something left to do with it."""
        return self.network is None and self.lesson is not None and (self.lesson.parent is None or bool(self.lacking))

    @property
    def checkpoint_id(self) -> str | None:
        """Identity of its network; None while it is not trained."""
        if self.network:
            return self.network.row.checkpoint_id
        return self.lesson.parent.checkpoint_id if self.lesson and self.lesson.parent else None


@dataclass
class Agenda:
    """What is to be done, and where it goes.

    Attributes:
        store: takes every chunk as it is done.
        source: the images that all networks are judged on.
        cells: teachers before their students.
        device: where to compute.
        checks: which soundness checks follow the attacks.
        recheck: whether they are asked again where nothing was attacked now and their verdicts are known.
        timeout: seconds that a model or an attack may go on without a sign of progress.
    """

    store: Store
    source: Source
    cells: list[Cell]
    device: str
    checks: Checks
    recheck: bool = False
    timeout: int = USUAL

    @property
    def images(self) -> Images:
        """What the networks are judged on."""
        return self.source.images()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """What judges any of them, each once."""
        return tuple(dict.fromkeys(trial for cell in self.cells for trial in cell.trials))

    def look(self, cell: Cell) -> bool:
        """Find out what a cell lacks; False while its teachers are not trained.

        Raises:
            BenchError: it cannot be run.
        """
        if cell.lesson and cell.network is None and not self._trained(cell, cell.lesson):
            return False
        cell.lacking = self.missing(cell)
        return True

    def _trained(self, cell: Cell, lesson: Lesson) -> bool:
        """Find a cell's file, or what the store remembers of it; False while its teachers are not trained."""
        parents = lesson.parents()
        if parents is None:
            return False
        run = prepare(lesson.plan, lesson.source.images(), lesson.model, lesson.seed, parents)
        name = cut_name(re.sub(r"[^\w.+-]+", "-", lesson.name))
        lesson.path = lesson.folder / f"{name}-s{lesson.seed}-{run.run_id[:8]}.safetensors"
        checkpoint = finished(run, lesson.path)
        if checkpoint is not None:
            cell.network = of_checkpoint(checkpoint, lesson.path)
            lesson.parent = Parent(checkpoint.checkpoint_id, cell.network.row.recipe_id, lesson.path)
        elif self.store.path.exists() and (known := self.store.checkpoint_of_run(run.run_id)):
            # The store remembers a training whose file is gone: only what is lacking would need it again.
            lesson.parent = Parent(*known, lesson.path)
        return True

    def missing(self, cell: Cell) -> list[tuple[Trial, list[Rows]]]:
        """For every trial of a cell, the chunks of rows whose outcome the store does not have.

        Their borders do not depend on what is done, so that a killed evaluation goes on as it would have gone.
        """
        images, lacking = self.images, []
        for trial in cell.trials if cell.checkpoint_id else ():
            known = np.zeros(len(images), bool)
            if self.store.path.exists():
                done = self.store.done(str(cell.checkpoint_id), images.dataset_id, trial.attack_id)
                known = np.isin(images.sample, done)
            if parts := list(chunks(known, trial.batch_size or cell.batch_size)):
                lacking.append((trial, parts))
        return lacking

    def forecast(self) -> Iterator[tuple[str, str, str]]:
        """What a run would do, cell by cell: name, training, evaluation."""
        for cell in self.cells:
            try:
                known = self.look(cell)
            except BadStore:
                raise
            except BenchError as problem:
                cell.problem = str(problem)
                yield cell.label, "cannot run", str(problem)
                continue
            todo = ", ".join(f"{trial.name} {sum(map(len, parts))}" for trial, parts in cell.lacking)
            if cell.checkpoint_id is None and cell.trials:
                todo = f"{len(cell.trials)} attacks x {len(self.images)} images"
            training = "to train" if cell.to_train else "done"
            yield cell.label, training if known else "to train, after its teacher", todo or "nothing to do"


def agenda_of(study: Study, store: Store, out: Path) -> Agenda:
    """A study's cells, one per entry and seed.

    Args:
        study: what is to be done.
        store: takes the outcomes.
        out: folder whose `checkpoints` hold the trained networks.

    Raises:
        BenchError: the data cannot be loaded, or a method does not fit them.
    """
    train = Source(study.dataset, "train", study.revision, study.train_n)
    test = Source(study.dataset, study.split, study.revision, study.n, study.n_seed)
    trained_on = train.images().check_complete().name
    check_same_classes(train.images(), test.images())
    trials = fitted(study.trials(), test.images().check_complete().classes)
    cells: dict[tuple[str, int], Cell] = {}

    def teacher(name: str, seed: int) -> Cell | str:
        if name not in study.entries:
            return name
        seeds = study.seeds_of(study.entries[name])
        return cells[name, seed if seed in seeds else seeds[0]]

    for entry in study.order():
        plan, judges = study.plan_of(entry, trained_on), trials if entry.evaluate else ()
        names, model = entry.teachers(plan.teachers), study.model_of(entry)
        for seed in study.seeds_of(entry):
            teachers = {role: teacher(name, seed) for role, name in names.items()}
            lesson = Lesson(entry.name, seed, plan, model, train, teachers, out / "checkpoints", study.device)
            cells[entry.name, seed] = Cell(f"{entry.name} (seed {seed})", judges, study.batch_size, lesson=lesson)
    return Agenda(store, test, list(cells.values()), study.device, study.examined, timeout=study.timeout)
