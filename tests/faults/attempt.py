"""Faults on purpose: what the command does with them, and what became of the files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings

from bench.cli import run

SECONDS = 20.0
"""Longer than that and it counts as a hang; every attempt is made for a fraction of it."""
LONGEST = 700
"""Characters of a complaint."""
ANSWERS = {0: "done", 1: "a finding or a failed cell", 2: "wrong input", 3: "inconclusive"}

tally: Counter[str] = Counter()
"""How many attempts of this process came out how."""

MANY = int(os.environ.get("EVENBENCH_FAULTS", "1"))
"""So many times the usual number of attempts."""


def tries(usual: int) -> settings:
    """The settings of a fuzzed test: so many attempts, the same in every run unless there are to be more."""
    return settings(
        max_examples=usual * MANY,
        deadline=None,
        derandomize=MANY == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Attempt:
    """What came of a command.

    Attributes:
        arguments: the command's.
        code: its exit code; None if it ended in an exception.
        complaint: its standard error.
        hung: whether it had to be stopped.
        touched: files that were there before and are not as they were, beside those that it may write.
    """

    arguments: tuple[str, ...]
    code: int | None
    complaint: str
    hung: bool
    touched: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """One of "clear", "unclear", "traceback", "hang" and "harmful"."""
        if self.hung:
            return "hang"
        if self.code is None or "Traceback" in self.complaint or self.code not in ANSWERS:
            return "traceback"
        if self.touched:
            return "harmful"
        return "clear" if self.code != 2 or self._is_clear() else "unclear"

    def _is_clear(self) -> bool:
        said = [line for line in self.complaint.splitlines() if line.startswith("evenbench: ")]
        return len(said) == 1 and len(said[0]) <= LONGEST and said[0].isprintable()


def attempt(arguments: Sequence[str], where: Path, *, written: Sequence[str] = (), refused: bool = False) -> Attempt:
    """Run a command in a folder, and require that it is clear.

    Args:
        arguments: of the command.
        where: the folder.
        written: files and folders that it may change.
        refused: whether it must not be done; it harms if it is.

    Raises:
        AssertionError: it was not clear.
    """
    before, out, err, late = _state(where, written), io.StringIO(), io.StringIO(), threading.Event()
    code: int | None = None

    def stop() -> None:
        late.set()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    alarm = threading.Timer(SECONDS, stop)
    alarm.start()
    try:
        with contextlib.chdir(where), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(list(arguments))
    except (Exception, SystemExit, KeyboardInterrupt) as problem:
        err.write(f"Traceback: {type(problem).__name__}: {problem}")
    finally:
        alarm.cancel()
    after = _state(where, written)
    touched = tuple(name for name, was in before.items() if after.get(name) != was)
    tried = Attempt(tuple(arguments), code, err.getvalue(), late.is_set(), touched)
    outcome = "harmful" if refused and code == 0 else tried.outcome
    tally[outcome] += 1
    assert outcome == "clear", f"{outcome}: {tried}"
    return tried


def _state(where: Path, written: Sequence[str]) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _files(where)
        if not any(path.is_relative_to(where / name) for name in written)
    }


def _files(where: Path) -> Iterator[Path]:
    return (path for path in sorted(where.rglob("*")) if path.is_file() and not path.is_symlink())


@contextlib.contextmanager
def copied(sound: Path, into: Path) -> Iterator[Path]:
    """A copy of a folder for one attempt."""
    here = Path(shutil.copytree(sound, into / "here"))
    try:
        yield here
    finally:
        shutil.rmtree(here)
