from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import pytest

from bench.errors import BadOption, TimedOut
from bench.evaluation import patience as module
from bench.evaluation.patience import USUAL, check_timeout, patience


def test_what_hangs_is_stopped_by_name():
    said = r"the model under 'pgd' made no progress for 1 s .* --timeout"
    with pytest.raises(TimedOut, match=said), patience(1, "the model under 'pgd'"):
        time.sleep(20)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_code_that_swallows_the_stop_is_stopped_again(monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.1)

    def stubborn():
        with suppress(TimedOut):
            time.sleep(20)
        with suppress(TimedOut):
            time.sleep(20)
        time.sleep(20)

    with pytest.raises(TimedOut), patience(1, "it"):
        stubborn()


def test_signs_of_life_keep_it_going():
    with patience(1, "it") as heard:
        for _ in range(3):
            time.sleep(0.5)
            heard()


def test_other_threads_are_left_alone():
    done = []

    def work():
        with patience(1, "it") as heard:
            heard()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize("seconds", [0, -1, 10**10])
def test_a_patience_without_end_is_refused(seconds):
    with pytest.raises(BadOption, match=f"timeout {seconds}: wanted whole seconds"):
        check_timeout(seconds)
    check_timeout(USUAL)
