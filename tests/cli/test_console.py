"""Progress: how much is left is told from what was done since it was first told."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.cli import console
from bench.cli.console import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def screen(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(console, "stderr", lambda: Console(file=file, width=200))
    return file


def test_lines_are_told_at_every_tenth_with_the_time_left(clock, screen):
    with progress() as shown:
        shown.plan(1000)
        shown.advance(0, "begin")
        for seconds, done in ((10, 100), (15, 150), (20, 200)):
            clock[0] = 100 + seconds
            shown.advance(done, "work")
    assert screen.getvalue().splitlines() == [
        "  0% done, begin",
        " 10% done, 0:01:30 left, work",
        " 20% done, 0:01:20 left, work",
    ]


def test_what_was_done_before_tells_nothing_of_the_speed(clock):
    with progress() as shown:
        shown.plan(1000)
        assert shown.left(900) is None
        clock[0] += 10
        assert shown.left(910) == pytest.approx(90)


def test_the_plan_may_change(clock):
    with progress() as shown:
        shown.plan(1000)
        shown.advance(0, "")
        clock[0] += 10
        shown.plan(500)
        assert shown.left(100) == pytest.approx(40)
        shown.plan(50)
        shown.advance(100, "")
        assert shown.left(100) == 0
        assert shown.bar.tasks[0].completed == 1


def test_nothing_to_do_is_done(clock, screen):
    with progress() as shown:
        shown.plan(0)
        shown.advance(0, "nothing")
    assert screen.getvalue().splitlines() == ["100% done, nothing"]
