"""Ctrl-C and SIGTERM: the first asks, the next one insists.

Both end the command with one line and 128 plus the signal's number, whatever it is at, be it still importing.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

GRACE = 10.0
"""Seconds that what is in hand has to end in once it was asked to stop."""

Handler = Callable[[int, FrameType | None], None]

_leave = os._exit
_came: list[int] = []
"""The signals that came, in their order."""


def asked_to_end() -> bool:
    """Whether a signal came: an error that follows is of its making."""
    return bool(_came)


def exit_code() -> int:
    """The exit code of what was interrupted, as shells have it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_came[0] if _came else signal.SIGINT)


def gently(work: Callable[[], int]) -> int:
    """Do `work`, and answer with its exit code, or with that of the first signal, which raises KeyboardInterrupt in it.

    The second signal ends the process at once, as does one that comes after the work.
    """
    os._exit = _refused
    try:
        _take(_interrupt)
        code = work()
        _take(_end)
    except BaseException:  # libraries make other errors of KeyboardInterrupt
        if not _came:
            raise
        say("interrupted")
        code = exit_code()
    finally:
        os._exit = _leave
    return code


@contextmanager
def stoppable(grace: float | None = None) -> Iterator[Callable[[], bool]]:
    """A question that turns to yes at the first signal; the next one raises KeyboardInterrupt, as do `grace` seconds.

    Args:
        grace: how long the work may take after the first signal; None for as long as it needs.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    timer = threading.Timer(grace or 0, _thread.interrupt_main)
    timer.daemon = True

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            restore()
            raise KeyboardInterrupt
        _came.append(number)
        asked.set()
        if grace is not None:
            timer.start()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = _take(note)
    try:
        yield asked.is_set
    finally:
        timer.cancel()
        restore()


def say(line: str) -> None:
    """Say on a line of its own why the command ends; the terminal has echoed `^C` where the last one stopped."""
    sys.stderr.write(f"\nevenbench: {line}\n")


def _take(handler: Handler) -> dict[signal.Signals, Any]:
    """Let a handler take the signals, but for those that are ignored, as Ctrl-C is by a job in the background.

    Returns:
        The handlers before, by signal.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    taken = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handler)
    return taken


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _came:
        _end(number, frame)
    _came.append(number)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    _leave(128 + number)


def _refused(status: int) -> NoReturn:
    """What `os._exit` does here: no model or plug-in may end the command as if all was done."""
    say(f"code that was loaded left by os._exit({status!r}); what it was asked for is not done, mend it")
    _leave(status if isinstance(status, int) and status & 255 else 2)
