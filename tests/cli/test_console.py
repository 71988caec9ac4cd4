"""Progress: lines where there is no terminal, and the time that steps take."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.cli import console
from bench.cli.console import Steps, progress


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


def test_lines_are_told_at_every_tenth_with_the_time_left(screen):
    with progress() as shown:
        for share, left in ((0.0, None), (0.01, 99.4), (0.1, 90.0), (0.15, 85.0), (0.2, 80.0), (1.0, 0.0)):
            shown.show(share, left, "work" if share < 1 else "")
        shown.say("a line to keep")
    assert screen.getvalue().splitlines() == [
        "  1% done, 0:01:39 left, work",
        " 10% done, 0:01:30 left, work",
        " 20% done, 0:01:20 left, work",
        "100% done, 0:00:00 left",
        "a line to keep",
    ]


def test_the_bar_shows_the_share(screen):
    with progress() as shown:
        shown.show(0.25, 3.0, "work")
        assert shown.bar.tasks[0].completed == 0.25


def test_steps_take_what_those_since_the_first_took(clock):
    steps = Steps()
    assert steps.left(900, 1000) is None
    clock[0] += 10
    assert steps.left(910, 1000) == pytest.approx(90)
    clock[0] += 10
    assert steps.left(1000, 1000) == 0
