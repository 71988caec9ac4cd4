"""Patience with other people's code, and its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bench.errors import BadOption, TimedOut

USUAL = 3600
"""Seconds that a model or an attack may go on without a sign of progress, where nobody says."""
AGAIN = 1.0
"""Seconds after which it is stopped once more, if its code swallowed the first attempt."""


def check_timeout(seconds: int) -> None:
    """A patience has an end that a clock can tell.

    Raises:
        BadOption: not this one.
    """
    if not 1 <= seconds <= 10**9:
        raise BadOption(f"timeout {seconds}: wanted whole seconds from 1 to 10^9, such as {USUAL}")


@contextmanager
def patience(seconds: int, what: str) -> Iterator[Callable[[], None]]:
    """Within, code must give a sign of life every so many seconds, by calling what this yields.

    Code that loops outside of Python, or in another thread than the main one, cannot be stopped so.

    Args:
        seconds: how long it may go on without one.
        what: whose code it is, for the message.

    Raises:
        TimedOut: it did not.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield lambda: None
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimedOut(
            f"{what} made no progress for {seconds} s and was stopped; mend what hangs, or allow more with --timeout "
            "(in a study, timeout)"
        )

    def heard() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        heard()
        yield heard
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
