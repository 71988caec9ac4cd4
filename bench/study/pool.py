"""Pools: who does the units of work. Units go out, results and progress come back.

A pool is all that the driver needs to know of processes: `Inline` does each unit where it is asked for, `Processes` in
workers of this machine. Another engine fits here by doing the same three things.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import SpawnContext
from typing import Any, Protocol, Self

from bench.errors import BenchError

ATTEMPTS = 2
"""How often a unit is begun whose worker is killed."""
PATIENCE = 10.0
"""Seconds that a unit which saves its state has for it when the work is stopped."""
POLL = 0.5
"""Seconds after which the driver looks up even if nothing has ended."""
BEGUN = 1e-9
"""The share of a unit that has begun and said nothing yet."""
WAITS = -1.0
"""What a unit tells in place of a share while it waits for another process."""

Tell = Callable[[float], None]
"""Takes which share of a unit is done, in [0, 1], or `WAITS`."""
Told = Callable[["Future[Any]", float], None]
"""Takes which share of which unit is done, or `WAITS`."""


class Unit(Protocol):
    """A unit of work: a value that pickles."""

    @property
    def saves(self) -> bool:
        """Whether it writes its state when it is asked to stop."""

    def run(self, report: Tell, stop: Callable[[], bool]) -> Any:
        """Do it, and return a value that pickles; `stop` asks whether to save and leave."""


class Pool(Protocol):
    """Does units, `workers` at most at a time."""

    @property
    def workers(self) -> int:
        """How many units it does at a time."""

    def __enter__(self) -> Self:
        """Get ready."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End; after an error or Ctrl-C, what runs may save its state and the rest is dropped."""

    def submit(self, unit: Unit) -> Future[Any]:
        """Begin a unit; there must be a worker free."""

    def wait(self, told: Told) -> list[Future[Any]]:
        """Wait a moment, and tell how far the units are; those that have ended since the last call."""


class Inline:
    """Does each unit in this process, on all its threads, when it is waited for."""

    workers = 1

    def __init__(self) -> None:
        """Nothing to do yet."""
        self._begun: list[tuple[Future[Any], Unit]] = []

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing to end."""

    def submit(self, unit: Unit) -> Future[Any]:
        """Take a unit."""
        future: Future[Any] = Future()
        self._begun.append((future, unit))
        return future

    def wait(self, told: Told) -> list[Future[Any]]:
        """Do what was taken."""
        done = []
        while self._begun:
            future, unit = self._begun.pop()
            told(future, BEGUN)
            try:
                future.set_result(unit.run(partial(told, future), lambda: False))
            except (Exception, SystemExit) as problem:
                future.set_exception(problem)
            done.append(future)
        return done


@dataclass
class Processes:
    """Worker processes of this machine.

    They are spawned, compute on one thread each (so that a result does not depend on how many there are), and die with
    the process that made them, whatever killed it. A unit whose worker is killed is begun once more.

    Attributes:
        workers: how many.
    """

    workers: int
    _slots: list[_Slot] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Start; the processes come up as units are submitted."""
        context = multiprocessing.get_context("spawn")
        self._stop = context.RawValue(ctypes.c_bool, False)
        self._slots = [_Slot(context, self._stop) for _ in range(self.workers)]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for what runs; after an error or Ctrl-C, let units save for a few seconds, then end the rest."""
        try:
            if kind is not None:
                self._stop.value = True
                patience = time.monotonic() + PATIENCE
                while time.monotonic() < patience and any(slot.saves for slot in self._slots):
                    time.sleep(0.05)
        finally:  # even at a second Ctrl-C
            for slot in self._slots:
                slot.executor.shutdown(wait=kind is None, cancel_futures=kind is not None)
            if kind is not None:
                for child in multiprocessing.active_children():
                    child.terminate()

    def submit(self, unit: Unit) -> Future[Any]:
        """Hand a unit to a worker that has nothing to do."""
        return next(slot for slot in self._slots if slot.future is None).begin(unit)

    def wait(self, told: Told) -> list[Future[Any]]:
        """Wait until a unit ends, or for a moment."""
        wait([slot.running for slot in self._slots if slot.future], timeout=POLL, return_when=FIRST_COMPLETED)
        for slot in self._slots:
            if slot.future and slot.share.value:
                told(slot.future, slot.share.value)
        return [future for slot in self._slots if (future := slot.ended())]


class _Slot:
    """One worker process after another, and the unit it does. A process that is killed takes no other with it."""

    def __init__(self, context: SpawnContext, stop: Any) -> None:
        self._context, self._stop = context, stop
        self.share = context.RawValue(ctypes.c_double, 0.0)
        self.future: Future[Any] | None = None
        self._renew()

    def _renew(self) -> None:
        self.executor = ProcessPoolExecutor(
            1, mp_context=self._context, initializer=_begin, initargs=(self.share, self._stop, os.getpid())
        )

    @property
    def saves(self) -> bool:
        """Whether it does a unit that saves its state and has not ended."""
        return self.future is not None and self._unit.saves and not self.running.done()

    def begin(self, unit: Unit) -> Future[Any]:
        """Begin a unit; the answer ends when the unit has, or has failed for good."""
        self._unit, self._attempts, self.future = unit, 0, Future()
        self._attempt()
        return self.future

    def _attempt(self) -> None:
        self._attempts += 1
        self.share.value = 0.0
        with ignored_by_children(signal.SIGINT):
            try:
                self.running = self.executor.submit(_work, self._unit)
            except BrokenProcessPool:  # its process was killed while it had nothing to do
                self._renew()
                self.running = self.executor.submit(_work, self._unit)

    def ended(self) -> Future[Any] | None:
        """The unit that has ended, once."""
        if self.future is None or not self.running.done():
            return None
        problem = self.running.exception()
        if isinstance(problem, BrokenProcessPool):
            self.executor.shutdown(wait=False)
            self._renew()
            if self._attempts < ATTEMPTS:
                self._attempt()
                return None
            problem = BenchError(
                f"its worker process was killed {ATTEMPTS} times, perhaps for want of memory; run the same command "
                "again to go on, or with fewer --workers"
            )
        future, self.future = self.future, None
        if problem is not None:
            future.set_exception(problem)
        else:
            future.set_result(self.running.result())
        return future


_share: Any = None
_stopped: Any = None


def _begin(share: Any, stop: Any, driver: int) -> None:
    """Set up a worker: no life without its driver, no part in the terminal's Ctrl-C, and one thread."""
    global _share, _stopped
    _share, _stopped = share, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import torch  # takes seconds, in which the driver may die

    torch.set_num_threads(1)


def _work(unit: Unit) -> Any:
    if _stopped.value:  # handed out before Ctrl-C, and not begun
        raise CancelledError
    _share.value = BEGUN

    def report(share: float) -> None:
        _share.value = share

    return unit.run(report, lambda: bool(_stopped.value))


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
