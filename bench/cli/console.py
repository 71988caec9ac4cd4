"""How the command talks: progress with an ETA on standard error, results on standard output."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar, TaskID


class Stopped(Exception):
    """The user stopped the work; the message says what is kept and how to go on."""


@contextmanager
def resumable() -> Iterator[None]:
    """Work whose results are stored as they come: an interruption ends it with a word on how to go on.

    Raises:
        Stopped: it was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:  # Ctrl-C or SIGTERM
        raise Stopped("interrupted; all that was finished is kept, run the same command again to go on") from None


def legible() -> None:
    """Let a terminal that knows few characters, as of ASCII or Latin-1, show the others as JSON escapes."""
    codecs.register_error("escaped", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="escaped")


def _escaped(problem: UnicodeError) -> tuple[str, int]:
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    return json.dumps(problem.object[problem.start : problem.end])[1:-1], problem.end


@contextmanager
def results_alone() -> Iterator[None]:
    """Meanwhile whatever code prints, in this process or in one that it starts, goes to standard error.

    Standard output is for results: a model that prints would break the JSON of whoever reads it.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        with redirect_stdout(sys.stderr):
            yield
        return
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def stderr() -> Console:
    """The console for progress and remarks."""
    from bench.cli.terminal import Terminal

    return Terminal(stderr=True, highlight=False, emoji=False)


def stdout() -> Console:
    """The console for results; as wide as a table needs where nobody looks."""
    from bench.cli.terminal import Terminal

    console = Terminal(highlight=False, emoji=False)
    return console if console.is_terminal else Terminal(highlight=False, emoji=False, width=160)


@dataclass
class TerminalProgress:
    """A bar with the share done, the time left and what is being done; plain lines where there is no terminal."""

    bar: Bar
    task: TaskID
    said: int = -1

    def show(self, share: float, left: float | None, doing: str) -> None:
        """Show which share is done, in [0, 1], and how many seconds the rest will take, where that can be said."""
        told = "" if left is None else f"{timedelta(seconds=round(left))} left"
        self.bar.update(self.task, completed=share, left=told, description=doing)
        tenth = -1 if left is None else int(10 * share)
        if not self.bar.console.is_terminal and tenth != self.said:
            self.said = tenth
            self.say(", ".join(part for part in (f"{share:4.0%} done", told, doing) if part))

    def say(self, line: str) -> None:
        """A line to keep."""
        self.bar.console.print(line, markup=False, soft_wrap=True)


@dataclass
class Steps:
    """How long work will take whose steps are all alike, by those since it was first asked.

    Attributes:
        begun: when it was first asked, by the monotonic clock.
        before: how many steps were done by then.
    """

    begun: float | None = None
    before: int = 0

    def left(self, done: int, total: int) -> float | None:
        """Seconds that the rest will take; None before that can be said."""
        now = time.monotonic()
        if self.begun is None:
            self.begun, self.before = now, done
        return (now - self.begun) * (total - done) / (done - self.before) if done > self.before else None


@contextmanager
def progress() -> Iterator[TerminalProgress]:
    """Show progress for a while."""
    from rich.progress import BarColumn, Progress as Bar, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = stderr()
    columns = (
        BarColumn(20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}", markup=False),
    )
    bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        yield TerminalProgress(bar, bar.add_task("", total=1.0, left=""))
