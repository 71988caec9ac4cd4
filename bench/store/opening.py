"""Opening the database file in turn with other processes.

DuckDB lets one process write or several read, and keeps no queue: beside busy readers, one of which always has the
file open, a writer would hardly ever get in. So whoever writes has a lock beside the file while it waits and writes
(`bench.files.alone`), and who reads lets it by before opening the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from bench.duck import connect
from bench.errors import StoreBusy
from bench.files import alone, let_by
from bench.store.interrupting import interruptible
from bench.store.problems import holder

POLL = 0.02
"""Seconds between two attempts to open a file that is held."""
SOON = 1.0
"""Seconds of waiting after which it is said, or half the patience where that is less."""
RARER = 4.0
"""Each time by how much longer it was waited before it is said again."""
WRITER = "another process that writes"


@dataclass
class Wait:
    """A wait for the file.

    Attributes:
        path: the database.
        patience: seconds that it may take.
        say: told that it takes long, the more rarely the longer.
        begun: when it began, by the monotonic clock.
        next: after how many seconds it is said the next time.
    """

    path: Path
    patience: float
    say: Callable[[str], None]
    begun: float = field(default_factory=time.monotonic)
    next: float = SOON

    def __post_init__(self) -> None:
        """A short wait is said early."""
        self.next = min(SOON, self.patience / 2)

    def go_on(self, held_by: str) -> None:
        """Take note of who holds the file.

        Raises:
            StoreBusy: it took too long.
        """
        waited = time.monotonic() - self.begun
        if waited >= self.patience:
            raise StoreBusy(
                f"{self.path} is still held by {held_by} after {self.patience:g} s; wait for it to finish "
                "or stop it and run again, or name another database with --db"
            )
        if waited >= self.next:
            self.next *= RARER
            self.say(f"{self.path} is held by {held_by}; waiting up to {self.patience:g} s")


@contextmanager
def opened(
    path: Path, *, read_only: bool, patience: float, say: Callable[[str], None]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the file, closed in the end.

    Raises:
        StoreBusy: other processes held it for longer than `patience` seconds.
        duckdb.Error: it cannot be opened.
    """
    wait = Wait(path, patience, say)
    if read_only:
        let_by(path, lambda _: wait.go_on(WRITER))
        with _connected(path, wait, read_only=True) as connection:
            yield connection
    else:
        with alone(path, lambda _: wait.go_on(WRITER)), _connected(path, wait, read_only=False) as connection:
            yield connection


@contextmanager
def _connected(path: Path, wait: Wait, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    while True:
        try:
            connection = connect(path, read_only=read_only)
            break
        except duckdb.Error as error:
            held_by = holder(error)
            if held_by is None:
                raise
        wait.go_on(held_by)
        time.sleep(POLL)
    try:
        with interruptible(connection):
            yield connection
    finally:
        connection.close()
