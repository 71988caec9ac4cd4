"""The one place that writes beside and renames, that knows a full disk, and that locks.

    with whole(path) as beside:                 a file
    with whole_folder(path) as beside:          a folder
    with whole_unless_there(path) as beside:    a file, unless another process was faster
    sweep(path)                                 removes what kills left there
    with alone(path, wait):                     no other process does so with this path
    let_by(path, wait)                          nobody has it so any more
    check_writable(path)                        refused now, not after the work whose result it is to hold

What is written to `beside` is at `path` once the block has ended, complete and on the disk; an older one stays until
then. Where the block fails, what it wrote is removed. What a kill left is removed by the next who writes there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident

from bench.errors import BadPlace, BenchError, DiskFull

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

POLL = 0.02
"""Seconds between two attempts to get a lock."""
MANNERS = 2.0
"""Seconds for which those who only want to be let by leave a lock to others."""
LONGEST = 200
"""Bytes of a file's name: what is written beside it is called longer, and file systems take 255."""
ROOM = 50
"""Bytes of that which are left for endings: `-s0-0123abcd.last.safetensors`."""
LOG = ".wal"
"""What DuckDB adds to the name of a database that it is writing."""
DAY = 86400.0
"""Seconds after which a file that nobody finished is one that nobody will."""
_LEFT = re.compile(r"(?P<name>.+)\.(?P<process>[0-9]{1,20})\.[0-9]+\.(?P<what>partial|partial\.wal|older)", re.DOTALL)
"""How this module calls what it writes beside `name`, and what it has moved aside."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SAID_OF_FULL = ("No space left", "quota exceeded", "File too large", "not enough space")
"""In messages of libraries that give no number: safetensors, DuckDB."""


def is_full(problem: BaseException) -> bool:
    """Whether an error says that the disk, a quota or the largest file allowed is full."""
    if isinstance(problem, OSError) and problem.errno is not None:
        return problem.errno in FULL
    return any(words in str(problem) for words in SAID_OF_FULL)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that replaces `path`; its folder is made. What is no file (a device) is written itself.

    Raises:
        DiskFull: no space is left.
        OSError: it cannot be written there.
    """
    if path.exists() and not path.is_file():
        with _one_line(path, path):
            yield path
        return
    with _beside(path) as written:
        yield written
        _to_disk(written)
        written.replace(path.resolve())


@contextmanager
def whole_unless_there(path: Path) -> Iterator[Path]:
    """As `whole`, but a file that has come to be at `path` meanwhile stays.

    Raises:
        DiskFull: no space is left.
        OSError: it cannot be written there.
    """
    with _beside(path) as written:
        yield written
        _to_disk(written)
        try:
            os.link(written, path.resolve())
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            written.rename(path.resolve())


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Where to write files into a folder, there already and empty, that replaces the folder `path`.

    Raises:
        DiskFull: no space is left.
        OSError: it cannot be written there, or another process put a folder there meanwhile.
    """
    with _beside(path) as written:
        written.mkdir()
        yield written
        for file in written.rglob("*"):
            _to_disk(file)
        place, older = path.resolve(), written.with_suffix(".older")
        try:
            if place.exists():
                place.rename(older)
            written.rename(place)
        except BaseException:
            if older.exists() and not place.exists():
                older.rename(place)
            raise
        finally:
            shutil.rmtree(older, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole: UTF-8, lines as they are.

    Raises:
        DiskFull: no space is left.
        OSError: it cannot be written there.
    """
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def check_writable(path: Path) -> Path:
    """The path, if a file can be written there, its folders made; nothing is left there now.

    For a folder, ask for a file in it.

    Raises:
        BadPlace: it is a folder, lies in a file, is called too long, or may not be written.
    """
    if "\0" in str(path):
        raise BadPlace(f"{str(path)!r} holds a NUL character, which no file's name can; leave it out")
    if (size := len(os.fsencode(path.name))) > LONGEST:
        raise BadPlace(
            f"the name {path.name[:40]}... has {size} bytes; file names have {LONGEST} at most, choose a shorter one"
        )
    try:
        if path.is_dir():
            raise BadPlace(f"{path} is a folder; name a file in it")
        home = next(above for above in path.absolute().parents if above.exists() or above.is_symlink())
        if not home.is_dir():
            raise BadPlace(f"{path} cannot be written, because {home} is no folder; choose another place")
        with tempfile.TemporaryFile(dir=home):
            pass
    except (OSError, RuntimeError) as problem:  # a circle of links is a RuntimeError
        said = getattr(problem, "strerror", None) or str(problem)
        raise BadPlace(f"{path} cannot be written ({said}); choose another place or mend its permissions") from None
    return path


def name_for(text: str) -> str:
    """A file's name that says what `text` says, in characters that are safe everywhere; cut where it is too long."""
    return cut_name(re.sub(r"[^\w.+=-]+", "-", text))


def cut_name(name: str) -> str:
    """A name that leaves room for an ending; a hash says what is cut off."""
    if len(name.encode()) <= LONGEST - ROOM:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name.encode()[: LONGEST - ROOM - 13].decode(errors='ignore')}-{digest}"


@contextmanager
def alone(path: Path, wait: Callable[[float], object]) -> Iterator[None]:
    """Have `path` for this process alone, as against all others that ask so, by a lock on `NAME.lock` beside it.

    The lock ends with the process, whatever kills it. Where no lock can be had, as in a folder that cannot be written
    or on a file system without them, nobody waits.

    Args:
        path: a file, there or not; its folder is made.
        wait: told again and again how many seconds the wait has taken; what it raises ends it.
    """
    name, begun, held = _lock_of(path), time.monotonic(), None
    with suppress(OSError):
        while (held := _locked(name)) is None:
            wait(time.monotonic() - begun)
            time.sleep(POLL)
    try:
        yield
    finally:
        if held is not None:
            wanted = os.fstat(held).st_size > 0
            with suppress(OSError):
                name.unlink()  # whoever waits for it sees that it is gone, and makes another
            os.close(held)
            if wanted:
                time.sleep(2 * POLL)  # or this process could have it again before anybody else looked


def let_by(path: Path, wait: Callable[[float], object]) -> None:
    """Wait while another process has `path` alone; others that would have it so come first for `MANNERS` seconds.

    Args:
        path: a file.
        wait: as in `alone`.
    """
    begun = time.monotonic()
    with suppress(OSError):
        while _is_locked(_lock_of(path), want=time.monotonic() - begun > MANNERS):
            wait(time.monotonic() - begun)
            time.sleep(5 * POLL)


def _lock_of(path: Path) -> Path:
    place = path.resolve()
    return place.with_name(f"{place.name}.lock")


def _is_locked(name: Path, *, want: bool) -> bool:
    """Whether another process has locked a file; if it is wanted, with a mark (see `_want`).

    Raises:
        OSError: it is not there, or cannot be locked.
    """
    if fcntl is None:
        return False
    with name.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if want:
                _want(file.fileno())
            return True
    return False


def _want(lock: int) -> None:
    """Leave a mark in a lock that another process has, so that it lets others come first afterwards."""
    with suppress(OSError):
        os.pwrite(lock, b"w", 0)


def _locked(name: Path) -> int | None:
    """The descriptor of a file that this process has locked, made where it is not; None while another one has it.

    Raises:
        OSError: it can be neither made nor locked.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no locks")
    name.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), name.stat()):
            return file
    except BlockingIOError:
        _want(file)
    except FileNotFoundError:  # removed by who held it
        pass
    except OSError:
        os.close(file)
        raise
    os.close(file)
    return None


def beside(path: Path) -> Path:
    """Where this thread writes what is to be at `path`: a name in the same folder. A link is followed."""
    place = path.resolve()
    return place.with_name(f"{place.name}.{os.getpid()}.{get_ident()}.partial")


def sweep(path: Path) -> None:
    """Remove what killed processes left in the folder of `path`: of `path` at once, of others once it is a day old.

    A folder that was moved aside, and whose successor did not come, is moved back. What another machine writes into
    the same folder is told from that by its age alone, as the numbers of its processes say nothing here.
    """
    place = path.resolve()
    with suppress(OSError):
        for left in list(place.parent.iterdir()):
            found = _LEFT.fullmatch(left.name)
            if not found or _alive(int(found["process"])):
                continue
            if found["name"] != place.name and time.time() - left.lstat().st_mtime < DAY:
                continue
            former = left.with_name(found["name"])
            if found["what"] == "older" and not former.exists():
                left.rename(former)
            else:
                _remove(left)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path of this thread alone in the folder of `path`, which is made; whatever is there is removed in the end.

    A link is followed: the file that it points to is what is replaced.
    """
    place, written = path.resolve(), beside(path)
    try:
        with _one_line(path, written):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(place)
            yield written
    finally:
        _remove(written)
        _remove(written.with_name(f"{written.name}{LOG}"))


@contextmanager
def _one_line(path: Path, written: Path) -> Iterator[None]:
    """Errors are about `path`, whatever was written; a full disk is said on one line."""
    try:
        yield
    except BenchError:
        raise
    except Exception as problem:
        if is_full(problem):
            raise DiskFull(f"no space left to write {path}; free some and run the same command again") from None
        if isinstance(problem, OSError) and problem.filename == str(written):
            problem.filename = str(path)
        raise


def _to_disk(file: Path) -> None:
    if file.is_file():
        with file.open("rb") as written:
            os.fsync(written.fileno())


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process of that number runs: its unfinished file is then not ours to remove."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
