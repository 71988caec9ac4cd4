"""Signals while DuckDB works: its threads hear of one only if they are told."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import duckdb


@contextmanager
def interruptible(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Where Ctrl-C or SIGTERM raises an error, as they may or may not, what the connection is at ends as well.

    DuckDB by itself leaves its other threads at a long query, and waits for them before it lets the error out.
    """
    taken = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                taken[number] = handler

    def hear(number: int, frame: FrameType | None) -> None:
        try:
            taken[signal.Signals(number)](number, frame)
        except BaseException:
            connection.interrupt()
            raise

    try:
        for number in taken:
            signal.signal(number, hear)
        yield
    finally:
        for number, handler in taken.items():
            if signal.getsignal(number) is hear:  # not if it was changed meanwhile, as by the second signal
                signal.signal(number, handler)
