"""Cells: what a study lacks is told from the files and the database, and telling changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import BadStore, BenchError
from bench.store.database import Store
from bench.study.file import load_study
from bench.study.plan import Cells
from bench.study.record import attack_row, dataset_row
from bench.study.work import Judging, Training

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
    def made(text: str = STUDY) -> Cells:
        path = tmp_path / "s.toml"
        path.write_text(text)
        return Cells(load_study(path), Store(tmp_path / "b.duckdb"), tmp_path)

    return made


def train(cells: Cells, name: str) -> None:
    cell = cells.by_key[name, 0]
    assert cells.look(cell)
    parents = tuple((cells.parents(cell) or {}).items())
    Training(cell.plan, cells.train_source, cell.model, 0, parents, cell.path, "cpu").run(lambda share: None, bool)


def fill(cells: Cells, name: str) -> None:
    """Judge and store all that a cell lacks."""
    store, cell = cells.store, cells.by_key[name, 0]
    cells.look(cell)
    store.create()
    store.add_dataset(dataset_row(cells.images))
    store.add_checkpoint(cell.target.row, cell.target.epochs)
    for trial, parts in cell.lacking:
        store.add_attack(attack_row(trial))
        number = store.begin(cell.target.row.checkpoint_id, cells.images.dataset_id, trial.attack_id, len(cells.images))
        for rows in parts:
            unit = Judging(
                cell.path, cell.target.row.checkpoint_id, cells.test_source, trial, tuple(rows.tolist()), "cpu"
            )
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
    cell = now.by_key["natural", 0]
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
    cell = now.by_key["natural", 0]
    now.look(cell)
    trial, parts = cell.lacking[1]
    store = now.store
    store.create()
    store.add_dataset(dataset_row(now.images))
    store.add_checkpoint(cell.target.row, cell.target.epochs)
    store.add_attack(attack_row(trial))
    number = store.begin(cell.target.row.checkpoint_id, now.images.dataset_id, trial.attack_id, len(now.images))
    unit = Judging(cell.path, cell.target.row.checkpoint_id, now.test_source, trial, tuple(parts[1].tolist()), "cpu")
    store.add_chunk(number, unit.run(lambda share: None, bool)[0])
    again = dict(now.missing(cell.target.row.checkpoint_id))
    np.testing.assert_array_equal(np.concatenate(again[trial]), np.r_[0:12, 24:30])
    assert sum(map(len, again[now.trials[0]])) == 30


def test_a_student_waits_for_its_teacher_and_hears_of_its_failure(cells):
    now = cells()
    student, teacher = now.by_key["rslad", 0], now.by_key["wide", 0]
    assert not now.look(student)
    assert now.teachers(student) == [teacher]
    train(now, "wide")
    assert now.look(teacher)
    assert now.look(student)
    assert student.path.name.startswith("rslad-s0-")
    teacher.problem = "lost"
    with pytest.raises(BenchError, match=r"its teacher wide \(seed 0\) failed"):
        now.look(student)


def test_several_students_share_a_teacher_of_one_seed(cells):
    text = STUDY.replace('teacher = "wide"', 'teacher = "wide"\nseeds = [3, 4]')
    now = cells(text)
    assert [now.teachers(now.by_key["rslad", seed]) for seed in (3, 4)] == [[now.by_key["wide", 0]]] * 2
    each = cells(text.replace("evaluate = false", "evaluate = false\nseeds = [4, 3]"))
    assert [each.teachers(each.by_key["rslad", seed])[0].seed for seed in (3, 4)] == [3, 4]


def test_a_damaged_checkpoint_is_named_in_the_forecast(cells, tmp_path):
    now = cells()
    train(now, "natural")
    path = now.by_key["natural", 0].path
    path.write_bytes(path.read_bytes()[:-100])
    name, training, problem = list(cells().forecast())[-1]
    assert (name, training) == ("natural (seed 0)", "cannot run")
    assert path.name in problem


def test_a_foreign_database_stops_the_forecast(cells, tmp_path):
    (tmp_path / "b.duckdb").write_bytes(b"no database " * 1000)
    with pytest.raises(BadStore, match="not a DuckDB database"):
        list(cells().forecast())
