"""Ctrl-C and SIGTERM: one line, the exit code that shells know, at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.cli import signals
from bench.cli.signals import exit_code, stoppable

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def _none_came(monkeypatch):
    """As in a terminal, though the tests may run in the background, where shells have Ctrl-C ignored."""
    monkeypatch.setattr(signals, "_came", [])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@BOTH
def test_the_first_signal_asks_and_the_second_acts(number):
    before = signal.getsignal(number)
    with stoppable() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        assert exit_code() == 128 + number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


def test_what_does_not_end_in_time_is_interrupted():
    with pytest.raises(KeyboardInterrupt), stoppable(grace=0.1):  # noqa: PT012 - it is the wait that is tested
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before)


COMMAND = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from bench.cli.signals import gently

def send():
    os.kill(os.getpid(), int(sys.argv[1]))

def sleep():
    send()
    time.sleep(60)

def stubborn():
    try:
        sleep()
    except KeyboardInterrupt:
        sleep()

def converted():
    try:
        sleep()
    except KeyboardInterrupt:
        raise RuntimeError("Query interrupted")

def importing():
    sys.meta_path.insert(0, type("Slow", (), {"find_spec": staticmethod(lambda *_: sleep())}))
    from bench.cli import run
    return run(["sql", "SELECT 1"])

def over():
    import atexit
    atexit.register(sleep)
    return 0

sys.exit(gently(globals()[sys.argv[2]]))
"""


@BOTH
@pytest.mark.parametrize("when", ["sleep", "converted", "importing"])
def test_a_signal_is_a_line_and_its_exit_code(number, when):
    done = ended(number, when)
    assert done.stderr == "\nevenbench: interrupted\n"
    assert done.returncode == 128 + number


@BOTH
@pytest.mark.parametrize("when", ["stubborn", "over"])
def test_a_second_signal_and_one_after_the_work_end_it_at_once(number, when):
    done = ended(number, when)
    assert done.stderr == ""
    assert done.returncode == 128 + number


def ended(number: int, when: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, str(int(number)), when], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
