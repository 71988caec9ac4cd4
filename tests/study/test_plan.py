"""Cells: what a study lacks is told from the files and the database, and telling changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import BadStore, BenchError
from bench.store.database import Store
from bench.study.file import load_study
from bench.study.plan import Agenda, Cell, agenda_of
from bench.study.record import attack_row, dataset_row
from bench.study.work import Judging

STUDY = """
name = "cells"
dataset = "digits"
checks = "none"
model = "convnet-2"
eps = "0.15"
attacks = ["fgsm", "pgd-sat"]
n = 30
train_n = 100
batch_size = 12
epochs = 1

[entries.rslad]
teacher = "wide"

[entries.wide]
method = "pgd-at"
model = "convnet-3"
evaluate = false

[entries.natural]
"""


@pytest.fixture
def cells(tmp_path):
    def made(text: str = STUDY) -> Agenda:
        path = tmp_path / "s.toml"
        path.write_text(text)
        return agenda_of(load_study(path), Store(tmp_path / "b.duckdb"), tmp_path)

    return made


def cell_of(agenda: Agenda, name: str, seed: int = 0) -> Cell:
    (found,) = [cell for cell in agenda.cells if cell.label == f"{name} (seed {seed})"]
    return found


def train(cells: Agenda, name: str) -> None:
    cell = cell_of(cells, name)
    assert cells.look(cell)
    cell.lesson.unit().run(lambda share: None, bool)


def fill(cells: Agenda, name: str) -> None:
    """Judge and store all that a cell lacks."""
    store, cell = cells.store, cell_of(cells, name)
    cells.look(cell)
    store.create()
    store.add_dataset(dataset_row(cells.images))
    store.add_checkpoint(cell.network.row, cell.network.epochs)
    for trial, parts in cell.lacking:
        store.add_attack(attack_row(trial))
        number = store.begin(
            cell.network.row.checkpoint_id, cells.images.dataset_id, trial.attack_id, len(cells.images)
        )
        for rows in parts:
            unit = Judging(cell.network, cells.source, trial, tuple(rows.tolist()), "cpu")
            store.add_chunk(number, unit.run(lambda share: None, bool)[0])


def test_from_nothing_everything_is_to_be_done_and_nothing_is_written(cells, tmp_path):
    assert list(cells().forecast()) == [
        ("wide (seed 0)", "to train", "nothing to do"),
        ("rslad (seed 0)", "to train, after its teacher", "3 attacks x 30 images"),
        ("natural (seed 0)", "to train", "3 attacks x 30 images"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]


def test_what_is_trained_and_judged_is_not_lacking(cells, tmp_path):
    now = cells()
    train(now, "natural")
    cell = cell_of(now, "natural", 0)
    assert now.look(cell)
    assert not cell.to_train
    assert [(trial.name, [len(rows) for rows in parts]) for trial, parts in cell.lacking] == [
        ("clean", [12, 12, 6]),
        ("fgsm", [12, 12, 6]),
        ("pgd-sat", [12, 12, 6]),
    ]
    fill(now, "natural")
    assert list(cells().forecast())[-1] == ("natural (seed 0)", "done", "nothing to do")
    # by content hash: another entry's name, but the same training, needs its file and nothing else
    renamed = cells(STUDY.replace("[entries.natural]", '[entries.plain]\nmethod = "natural"'))
    assert list(renamed.forecast())[-1] == ("plain (seed 0)", "done", "nothing to do")
    # another subset is other data
    assert list(cells(STUDY.replace("n = 30", "n = 20", 1)).forecast())[-1][2] == "clean 20, fgsm 20, pgd-sat 20"
    # other trainings and other attacks are lacking
    assert list(cells(STUDY.replace("epochs = 1", "epochs = 2")).forecast())[-1][1] == "to train"
    assert list(cells(STUDY.replace('"pgd-sat"]', '"cw"]')).forecast())[-1] == ("natural (seed 0)", "done", "cw 30")
    # without its file the store's memory of the training is enough, until something is lacking
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    assert list(cells().forecast())[-1] == ("natural (seed 0)", "done", "nothing to do")
    assert list(cells(STUDY.replace('"pgd-sat"]', '"cw"]')).forecast())[-1] == ("natural (seed 0)", "to train", "cw 30")


def test_chunks_that_are_in_are_left_out(cells):
    now = cells()
    train(now, "natural")
    cell = cell_of(now, "natural", 0)
    now.look(cell)
    trial, parts = cell.lacking[1]
    store = now.store
    store.create()
    store.add_dataset(dataset_row(now.images))
    store.add_checkpoint(cell.network.row, cell.network.epochs)
    store.add_attack(attack_row(trial))
    number = store.begin(cell.network.row.checkpoint_id, now.images.dataset_id, trial.attack_id, len(now.images))
    unit = Judging(cell.network, now.source, trial, tuple(parts[1].tolist()), "cpu")
    store.add_chunk(number, unit.run(lambda share: None, bool)[0])
    again = dict(now.missing(cell))
    np.testing.assert_array_equal(np.concatenate(again[trial]), np.r_[0:12, 24:30])
    assert sum(map(len, again[now.trials[0]])) == 30


def test_a_student_waits_for_its_teacher_and_hears_of_its_failure(cells):
    now = cells()
    student, teacher = cell_of(now, "rslad", 0), cell_of(now, "wide", 0)
    assert not now.look(student)
    assert student.lesson.taught_by == [teacher]
    train(now, "wide")
    assert now.look(teacher)
    assert now.look(student)
    assert student.lesson.path.name.startswith("rslad-s0-")
    teacher.problem = "lost"
    with pytest.raises(BenchError, match=r"its teacher wide \(seed 0\) failed"):
        now.look(student)


def test_several_students_share_a_teacher_of_one_seed(cells):
    text = STUDY.replace('teacher = "wide"', 'teacher = "wide"\nseeds = [3, 4]')
    now = cells(text)
    assert [cell_of(now, "rslad", seed).lesson.taught_by for seed in (3, 4)] == [[cell_of(now, "wide", 0)]] * 2
    each = cells(text.replace("evaluate = false", "evaluate = false\nseeds = [4, 3]"))
    assert [cell_of(each, "rslad", seed).lesson.taught_by[0].lesson.seed for seed in (3, 4)] == [3, 4]


def test_a_damaged_checkpoint_is_named_in_the_forecast(cells, tmp_path):
    now = cells()
    train(now, "natural")
    path = cell_of(now, "natural").lesson.path
    path.write_bytes(path.read_bytes()[:-100])
    name, training, problem = list(cells().forecast())[-1]
    assert (name, training) == ("natural (seed 0)", "cannot run")
    assert path.name in problem


def test_a_foreign_database_stops_the_forecast(cells, tmp_path):
    (tmp_path / "b.duckdb").write_bytes(b"no database " * 1000)
    with pytest.raises(BadStore, match="not a DuckDB database"):
        list(cells().forecast())
