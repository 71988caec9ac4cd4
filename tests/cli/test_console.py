"""Progress: lines where there is no terminal, and the time that steps take."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from bench.cli import console
from bench.cli.console import Steps, progress, results_alone


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


def test_what_foreign_code_prints_is_no_result(capfd):
    with results_alone():
        print("printed")  # noqa: T201  # as a model would
        os.write(1, b"written\n")
        subprocess.run([sys.executable, "-c", "print('of a process')"], check=True)
    print("result")  # noqa: T201
    out, err = capfd.readouterr()
    assert out == "result\n"
    assert err.split("\n")[:-1] == ["printed", "written", "of a process"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_knows_few_characters(encoding):
    script = "import sys; from bench.cli import run; print('→é'); sys.exit(run(['show', 'no→é']))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    legible = f"from bench.cli.console import legible; legible(); {script}"
    done = subprocess.run([sys.executable, "-c", legible], env=environment, capture_output=True, check=False)
    escaped = {"ascii": r"\u2192\u00e9", "latin-1": "\\u2192é", "utf-8": "→é"}[encoding]
    assert done.returncode == 2
    assert done.stdout.decode(encoding) == f"{escaped}\n"
    assert f"no method is called 'no{escaped}'" in done.stderr.decode(encoding)
    assert done.stderr.count(b"\n") == 1
