"""Pools: who does the units of work. Units go out, results and progress come back.

A pool is all that the driver needs to know of processes: `Inline` does each unit where it is asked for, `Processes` in
workers of this machine. Another engine fits here by doing the same three things.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext
from multiprocessing.reduction import ForkingPickler
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
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What a terminal, or a system that shuts down, sends to all processes alike."""
LOST = (
    f"its worker process ended {ATTEMPTS} times in the midst of it: killed, perhaps for want of memory, or left by the "
    "code of a model or plug-in; run the same command again to go on, or with fewer --workers"
)
UNBORN = (
    f"its worker process ended {ATTEMPTS} times before it began; standard error may say why, or there is no memory "
    "for it: run the same command again, or with fewer --workers"
)
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
        """End; after an error or Ctrl-C, what runs may save its state, unless it was asked before, and is dropped."""

    def stop(self) -> None:
        """Ask the units that save their state to do so and to end."""

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
        self._stopped = False

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing to end."""

    def stop(self) -> None:
        """Ask."""
        self._stopped = True

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
                future.set_result(unit.run(partial(told, future), lambda: self._stopped))
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
        resource_tracker.ensure_running()  # it lets signals through again that `deaf` holds back
        self._stop = context.RawValue(ctypes.c_bool, False)
        self._slots = [_Slot(context, self._stop) for _ in range(self.workers)]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for what runs; after an error or Ctrl-C, let units save for a few seconds, then end the rest."""
        try:
            if kind is not None and not self._stop.value:
                self.stop()
                patience = time.monotonic() + PATIENCE
                while time.monotonic() < patience and any(slot.saves for slot in self._slots):
                    time.sleep(0.05)
        finally:  # even at a second Ctrl-C
            if kind is not None:
                for child in multiprocessing.active_children():
                    child.kill()
            for slot in self._slots:
                slot.executor.shutdown(cancel_futures=kind is not None)

    def stop(self) -> None:
        """Ask all workers."""
        self._stop.value = True

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
        self.executor = self._made()

    def _made(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, mp_context=self._context, initializer=_begin, initargs=(self.share, self._stop, os.getpid())
        )

    def _renew(self) -> None:
        self.executor.shutdown()
        self.executor = self._made()

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
        try:
            self.running = self._handed_out(bytes(ForkingPickler.dumps(self._unit)))
        except Exception as problem:  # it cannot be packed, or there is no room for a process
            self.running = Future()
            self.running.set_exception(problem)

    def _handed_out(self, packed: bytes) -> Future[Any]:
        """The packed unit as what the process does."""
        try:
            with deaf():
                try:
                    return self.executor.submit(_work, packed)
                except BrokenProcessPool:  # its process was killed while it had nothing to do
                    self._renew()
                    return self.executor.submit(_work, packed)
        except OSError as problem:
            self._renew()
            raise BenchError(
                f"no worker process can be started ({problem}); end other programs, or ask for fewer --workers"
            ) from None

    def ended(self) -> Future[Any] | None:
        """The unit that has ended, once."""
        if self.future is None or not self.running.done():
            return None
        problem = self.running.exception()
        if isinstance(problem, BrokenProcessPool):
            begun = bool(self.share.value)
            self._renew()
            if self._attempts < ATTEMPTS:
                self._attempt()
                return None
            problem = BenchError(LOST if begun else UNBORN)
        future, self.future = self.future, None
        if problem is not None:
            future.set_exception(problem)
        else:
            future.set_result(pickle.loads(self.running.result()))
        return future


_share: Any = None
_stopped: Any = None
_unfit: Exception | None = None
"""Why this worker can do nothing."""


def _begin(share: Any, stop: Any, driver: int) -> None:
    """Set up a worker: no life without its driver, no part in the terminal's signals, and one thread."""
    global _share, _stopped, _unfit
    _share, _stopped = share, stop
    for number in SIGNALS:  # a system that ends all processes sends them to the workers too
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        import torch  # takes seconds, in which the driver may die

        torch.set_num_threads(1)
    except Exception as problem:
        _unfit = problem


def _work(packed: bytes) -> bytes:
    """Do a packed unit; its result is packed too, so that what cannot be packed or unpacked fails here, by its name."""
    if _stopped.value:  # handed out before Ctrl-C, and not begun
        raise CancelledError
    if _unfit is not None:
        raise BenchError(f"a worker process cannot start ({type(_unfit).__name__}: {_unfit}); mend what it names")
    _share.value = BEGUN

    def report(share: float) -> None:
        _share.value = share

    try:
        return pickle.dumps(pickle.loads(packed).run(report, lambda: bool(_stopped.value)))
    except BaseException as problem:
        raise _portable(problem) from None


def _portable(problem: BaseException) -> Exception | SystemExit:
    """An error that comes out of a pickle as what it went in, and that nobody takes for the driver's own Ctrl-C."""
    try:
        if isinstance(problem, Exception | SystemExit):
            pickle.loads(pickle.dumps(problem))
            return problem
    except Exception:  # its class wants other arguments, or is not to be found
        pass
    return BenchError(f"{type(problem).__name__}: {problem}")


@contextmanager
def deaf() -> Iterator[None]:
    """Signals held back for a while: processes started meanwhile never see them, this one sees them afterwards.

    A worker that is still importing cannot ignore Ctrl-C yet, and would answer it with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
