"""Worker processes: units of work go out, results and progress come back.

Workers are spawned, compute on one thread each (so that a result does not depend on how many there are), and die with
the process that made them, whatever killed it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Event
from typing import Any, Protocol

_channel: Any = None
_stop: Any = None


class Unit(Protocol):
    """A unit of work that pickles."""

    def run(self, report: Callable[[float], None], stop: Callable[[], bool]) -> Any:
        """Do it; `report` takes the fraction done, `stop` asks whether to save and leave."""


def _begin(channel: Any, stop: Event) -> None:
    """Set up a worker: one thread, no part in the terminal's Ctrl-C, and no life without its parent."""
    import torch

    global _channel, _stop
    _channel, _stop = channel, stop
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(key: int, unit: Unit) -> Any:
    if _stop.is_set():  # handed out before Ctrl-C, and not begun
        raise CancelledError
    said = 0.0

    def report(fraction: float) -> None:
        nonlocal said
        if time.monotonic() - said > 0.2:
            said = time.monotonic()
            _channel.put((key, fraction))

    return unit.run(report, _stop.is_set)


@contextmanager
def ignored_by_children(number: signal.Signals) -> Iterator[None]:
    """A signal held back for a while: processes started meanwhile never see it, this one sees it afterwards.

    A worker that is still importing cannot ignore Ctrl-C yet, and would answer it with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class Pool:
    """Some workers.

    Attributes:
        workers: how many.
    """

    workers: int
    _context: SpawnContext = field(default_factory=lambda: multiprocessing.get_context("spawn"))

    def __enter__(self) -> Pool:
        """Start; the processes come up as units are submitted."""
        self._channel = self._context.Queue()
        self._stop = self._context.Event()
        self.executor = ProcessPoolExecutor(
            self.workers, mp_context=self._context, initializer=_begin, initargs=(self._channel, self._stop)
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for what runs; after an error or Ctrl-C, let trainings save for a few seconds, then end the rest."""
        if kind is None:
            self.executor.shutdown()
            return
        try:
            self._stop.set()
            self.executor.shutdown(wait=False, cancel_futures=True)
            patience = time.monotonic() + 10
            while time.monotonic() < patience and self._training():
                time.sleep(0.1)
        finally:  # even at a second Ctrl-C
            for child in multiprocessing.active_children():
                child.terminate()

    def _training(self) -> bool:
        return any(not future.done() for future in self._saving)

    _saving: list[Any] = field(default_factory=list)

    def submit(self, key: int, unit: Unit, *, saves: bool = False) -> Any:
        """Hand out a unit; `saves` marks one that writes its state when asked to stop."""
        with ignored_by_children(signal.SIGINT):
            future = self.executor.submit(_work, key, unit)
        if saves:
            self._saving.append(future)
        return future

    def progress(self) -> dict[int, float]:
        """The newest fraction of each unit that has reported since the last call."""
        news = {}
        while not self._channel.empty():
            key, fraction = self._channel.get()
            news[key] = fraction
        return news
