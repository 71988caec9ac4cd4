"""How long the rest of a run takes, from made-up runs whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from bench.attacks.trial import plan
from bench.data.source import Source
from bench.study import ahead
from bench.study.ahead import Ahead, Flight, Remains
from bench.study.plan import Cell, Lesson
from bench.study.progress import Known, Task
from bench.study.work import Judging, Training
from bench.training.method import compose

CLEAN, PGD = plan(["pgd-sat"], eps=Fraction(1, 10), batch_size=10)
SOURCE = Source("digits", "test", n=20)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ahead.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def cell(tmp_path):
    lesson = Lesson("natural", 0, compose("natural", dataset="digits"), "convnet-2", SOURCE, {}, tmp_path, "cpu")
    return Cell("mine", (CLEAN, PGD), 10, lesson=lesson)


def chunk(cell: Cell, trial=PGD) -> Flight:
    return Flight(cell, Judging(cell.network, SOURCE, trial, tuple(range(10)), "cpu"))


def lesson(cell: Cell) -> Flight:
    path = cell.lesson.folder / "n.safetensors"
    return Flight(cell, Training(cell.lesson.plan, SOURCE, "convnet-2", 0, (), path, "cpu"))


def remains(*stages: list[Task], flying: tuple[Flight, ...] = ()) -> list[Remains]:
    return [Remains(list(flying), [list(stage) for stage in stages])]


def apart(*tasks: Task) -> list[Remains]:
    return [Remains(stages=[[task]]) for task in tasks]


def test_nothing_is_foretold_before_anything_was_done(cell):
    now = Ahead(SOURCE.images())
    assert now.left(remains([now.task(chunk(cell))]), 1) is None


def test_a_training_in_flight_goes_on_at_its_own_speed(cell, clock):
    now, flight = Ahead(SOURCE.images()), lesson(cell)
    flight.hear(0.0)
    clock[0] += 60  # the images are loaded and the device wakes
    flying = remains(flying=(flight,))
    flight.hear(0.05)
    assert now.left(flying, 1) is None
    clock[0] += 8
    flight.hear(0.25)
    assert now.left(flying, 1) == pytest.approx(30)
    same = ahead.training(cell.lesson)
    assert now.left([*flying, *apart(same)], 1) == pytest.approx(30 + 40)
    assert now.left([*flying, *apart(same, same)], 2) == pytest.approx(30 + 40)
    assert now.left(flying, 2) == pytest.approx(30)  # no second worker helps


def test_a_training_that_goes_on_is_no_faster_for_what_was_done_before(cell, clock):
    now, flight = Ahead(SOURCE.images()), lesson(cell)
    flight.hear(0.0)
    clock[0] += 1
    flight.hear(0.5)
    clock[0] += 10
    flight.hear(0.6)
    assert now.left(remains(flying=(flight,)), 1) == pytest.approx(40)
    clock[0] += 40
    flight.hear(1.0)
    now.ended(flight)
    assert now.left(apart(ahead.training(cell.lesson)), 1) == pytest.approx(100)


def test_what_comes_after_a_training_waits_for_it(cell, clock):
    now, flight = Ahead(SOURCE.images()), lesson(cell)
    flight.hear(0.1)
    clock[0] += 8
    flight.hear(0.5)
    same = ahead.training(cell.lesson)
    assert now.left(remains([], [same, same], [same], flying=(flight,)), 5) == pytest.approx(10 + 20 + 20)


def test_chunks_take_what_chunks_took(cell, clock):
    now, flight = Ahead(SOURCE.images()), chunk(cell)
    flight.hear(0.0)
    clock[0] += 5
    now.forecast(cell).learn(PGD, Known(10, 5, 250))
    now.ended(flight)
    assert now.spent == 5
    task = now.task(chunk(cell))
    assert task == Task(("judging pgd-sat", "judging"), 250)
    assert now.left(remains([task, task]), 1) == pytest.approx(10)
    again = chunk(cell)
    again.hear(0.0)
    clock[0] += 2
    flying = remains(flying=(again,))
    assert now.left(flying, 1) == pytest.approx(3)
    clock[0] += 9
    assert now.left(flying, 1) == 0.0


def test_a_network_is_judged_chunk_by_chunk(cell):
    now = Ahead(SOURCE.images())
    sizes = [task.passes / now.forecast(cell).per_image(CLEAN) for task in now.chunks(replace(cell, trials=(CLEAN,)))]
    assert sizes == [10, 10]
    sizes = [task.passes for task in now.chunks(replace(cell, trials=(CLEAN,), batch_size=15))]
    assert sizes == [15, 5]


def test_a_chunk_in_flight_tells_how_long_passes_take(cell, clock):
    now, flight = Ahead(SOURCE.images()), chunk(cell)
    flight.hear(0.1)
    clock[0] += 6
    flight.hear(0.6)  # of the passes that it takes if no image falls
    passes = 0.5 * now.forecast(cell).most(PGD) * 10
    same = Task(("judging pgd-sat", "judging"), passes)
    assert now.left(apart(same), 1) is None
    rest = max(0.0, now.task(flight).passes * 6 / passes - 6)
    assert now.left([*remains(flying=(flight,)), *apart(same)], 1) == pytest.approx(6 + rest)


def test_a_worker_that_has_not_come_up_tells_nothing(cell, clock):
    now, flight = Ahead(SOURCE.images()), chunk(cell)
    clock[0] += 100
    assert flight.seconds == 0
    assert now.left(remains(flying=(flight,)), 1) is None
