"""How the command talks: progress with an ETA on standard error, results on standard output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Stopped(Exception):
    """The user stopped the work; the message says what is kept and how to go on."""


@contextmanager
def resumable() -> Iterator[None]:
    """Work whose results are stored as they come: Ctrl-C ends it with a word on how to go on.

    Raises:
        Stopped: on Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("interrupted; all that was finished is kept, run the same command again to go on") from None


def stderr() -> Console:
    """The console for progress and remarks."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def stdout() -> Console:
    """The console for results; as wide as a table needs where nobody looks."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, emoji=False, width=160)


@dataclass
class Progress:
    """A bar with the share done, the time left and what is being done; plain lines where there is no terminal.

    The time left is what the rest takes at the speed since the first report. How much there is to do may change as more
    is known of it.
    """

    bar: Bar
    task: TaskID
    total: float = 0.0
    said: int = -1
    first: tuple[float, float] | None = None
    """When, and at how much done, progress was first told."""

    def plan(self, total: float) -> None:
        """How much there is to do."""
        self.total = total

    def advance(self, done: float, doing: str) -> None:
        """How much is done, and what is being done."""
        share = min(1.0, done / self.total) if self.total else 1.0
        left = self.left(done)
        told = "" if left is None else f"{timedelta(seconds=round(left))} left"
        self.bar.update(self.task, completed=share, left=told, description=doing)
        if not self.bar.console.is_terminal and int(10 * share) != self.said:
            self.said = int(10 * share)
            self.say(", ".join(part for part in (f"{share:4.0%} done", told, doing) if part))

    def left(self, done: float) -> float | None:
        """Seconds that the rest will take; None before that can be said."""
        now = time.monotonic()
        self.first = self.first or (now, done)
        since, gained = now - self.first[0], done - self.first[1]
        return since * max(0.0, self.total - done) / gained if since and gained > 0 else None

    def say(self, line: str) -> None:
        """A line to keep."""
        self.bar.console.print(line, markup=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress for a while."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

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
        yield Progress(bar, bar.add_task("", total=1.0, left=""))
