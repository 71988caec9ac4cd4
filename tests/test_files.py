"""A file or folder is there whole, or as it was; a full disk is one line."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from bench.errors import BadPlace, BadRecipe, DiskFull
from bench.files import (
    alone,
    check_writable,
    is_full,
    let_by,
    name_for,
    sweep,
    whole,
    whole_folder,
    whole_unless_there,
    write_text,
)

NOBODY = 4194305
"""More than any process's number may be on Linux."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, text: str) -> None:
    with whole_folder(path) as folder:
        (folder / "inside.txt").write_text(text)


def put_once(path: Path, text: str) -> None:
    with whole_unless_there(path) as beside:
        beside.write_text(text)


def content(path: Path) -> str:
    return (path / "inside.txt" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("write", [write_text, put], ids=["file", "folder"])
def test_what_is_written_replaces_what_was_there_and_folders_are_made(tmp_path, write):
    path = tmp_path / "new" / "x"
    for text in ("one", "two"):
        write(path, text)
        assert content(path) == text
        assert names(path.parent) == ["x"]


def test_lines_end_as_they_come(tmp_path):
    write_text(tmp_path / "x", "a\r\nb\n\u00e9")
    assert (tmp_path / "x").read_bytes() == b"a\r\nb\n\xc3\xa9"


def test_who_comes_second_leaves_the_first_file(tmp_path):
    for text in ("one", "two"):
        put_once(tmp_path / "x", text)
    assert content(tmp_path / "x") == "one"
    assert names(tmp_path) == ["x"]


def test_who_comes_second_leaves_the_first_file_where_there_are_no_links(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    put_once(tmp_path / "x", "one")
    assert content(tmp_path / "x") == "one"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("around", [whole, whole_unless_there, whole_folder])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, around):
    path = tmp_path / "x"
    (put if around is whole_folder else write_text)(path, "before")

    def half(problem: BaseException) -> None:
        with around(path) as beside:
            (beside / "half" if beside.is_dir() else beside).write_text("half")
            raise problem

    for problem in (KeyboardInterrupt(), ValueError("no"), BadRecipe("No space left in a message of our own")):
        with pytest.raises(type(problem)):
            half(problem)
    assert content(path) == "before"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("around", [whole, whole_unless_there, whole_folder])
@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EDQUOT, "quota"),
        OSError(errno.EFBIG, "large"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["disk", "quota", "size", "words"],
)
def test_a_full_disk_is_one_line_about_the_file_asked_for(tmp_path, around, problem):
    path = tmp_path / "x"
    assert is_full(problem)
    said = f"no space left to write {path}; free some and run the same command again"
    with pytest.raises(DiskFull, match=f"^{re.escape(said)}$"), around(path):
        raise problem
    assert names(tmp_path) == []


def test_what_is_no_full_disk():
    assert not is_full(OSError(errno.EACCES, "Permission denied", "No space left.txt"))
    assert not is_full(ValueError("something else"))


def test_other_errors_are_about_the_file_asked_for(tmp_path):
    with pytest.raises(PermissionError) as caught, whole(tmp_path / "x") as beside:
        raise PermissionError(errno.EACCES, "Permission denied", str(beside))
    assert caught.value.filename == str(tmp_path / "x")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "x", "text")


@pytest.mark.parametrize("write", [write_text, put, put_once], ids=["file", "folder", "once"])
def test_what_a_kill_left_is_removed_and_what_another_writes_is_not(tmp_path, write):
    (tmp_path / f"x.{NOBODY}.7.partial").write_text("half a file")
    (tmp_path / f"x.{NOBODY}.8.partial").mkdir()
    (tmp_path / f"x.{NOBODY}.8.partial" / "half").touch()
    (tmp_path / f"x.{NOBODY}.7.partial.wal").touch()
    yesterday = time.time() - 90_000
    (tmp_path / f"y.{NOBODY}.7.partial").touch()
    os.utime(tmp_path / f"y.{NOBODY}.7.partial", (yesterday, yesterday))
    others = {f"x.{os.getppid()}.7.partial", f"xx.{NOBODY}.7.partial", "x.mine.partial", f"x.{10**30}.partial"}
    for name in others:
        (tmp_path / name).touch()
    write(tmp_path / "x", "text")
    assert {*names(tmp_path)} == {"x", *others}


def test_a_link_is_followed(tmp_path):
    write_text(tmp_path / "there" / "x", "before")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "x")
    write_text(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "there" / "x") == "after"
    assert names(tmp_path / "there") == ["x"]


def test_a_device_is_written_and_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert names(tmp_path) == ["pipe"]
    assert pipe.is_fifo()


def test_a_folder_that_cannot_be_put_in_place_leaves_the_older_one(tmp_path, monkeypatch):
    put(tmp_path / "x", "before")
    real = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.suffix == ".partial":
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="not empty"):
        put(tmp_path / "x", "after")
    assert content(tmp_path / "x") == "before"
    assert names(tmp_path) == ["x"]


class Held(Exception):
    pass


def held(_: float) -> None:
    raise Held


def test_a_path_is_had_alone_and_free_again_afterwards(tmp_path):
    path = tmp_path / "new" / "x"
    with alone(path, held):
        with pytest.raises(Held), alone(path, held):
            pass
        with alone(tmp_path / "new" / "y", held):
            pass
    with alone(path, held):
        pass
    assert names(path.parent) == []


def test_who_is_let_by_makes_no_lock_and_is_waited_for(tmp_path):
    path = tmp_path / "x"
    let_by(path, held)
    with alone(path, held), pytest.raises(Held):
        let_by(path, held)
    let_by(path, held)
    assert names(tmp_path) == []


def test_a_lock_that_others_want_is_not_had_again_before_they_looked(tmp_path):
    turns = []

    def work(name: str) -> None:
        for _ in range(5):
            with alone(tmp_path / "x", lambda _: None):
                turns.append(name)
                time.sleep(0.03)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    changes = sum(one != other for one, other in pairwise(turns))
    assert len(turns) == 10
    assert changes >= 3, turns


def test_who_waits_comes_next_and_is_told_how_long_it_took(tmp_path):
    turns, waited = [], []

    def work(number: int) -> None:
        with alone(tmp_path / "x", waited.append):
            turns.append(number)
            time.sleep(0.02)
            turns.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(turns) == 10
    assert turns[::2] == turns[1::2]
    assert 0 <= min(waited) <= max(waited) < 30


def test_a_lock_ends_with_its_process(tmp_path):
    code = "import os, sys; from pathlib import Path; from bench.files import alone\n"
    code += "with alone(Path(sys.argv[1]), print): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "x"], cwd=Path(__file__).parents[1], check=False)
    assert names(tmp_path) == ["x.lock"]
    with alone(tmp_path / "x", held):
        pass
    assert names(tmp_path) == []


def test_where_no_lock_can_be_had_nobody_waits(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with alone(tmp_path / "x", held), alone(tmp_path / "x", held):
        pass


def test_a_place_that_can_be_written_is_told_and_left_as_it_is(tmp_path):
    for path in (tmp_path / "x", tmp_path / "new" / "deep" / "x"):
        assert check_writable(path) == path
    (tmp_path / "there").write_text("old")
    check_writable(tmp_path / "there")
    assert names(tmp_path) == ["there"]
    assert content(tmp_path / "there") == "old"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (".", "is a folder; name a file in it"),
        ("file/x", "file is no folder; choose another place"),
        ("x" * 201, "has 201 bytes; file names have 200 at most, choose a shorter one"),
        ("y" * 300 + "/x", "cannot be written"),
        ("a\0b", "holds a NUL character"),
        ("circle/x", "cannot be written"),
        ("/proc/x", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path, path, said):
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(BadPlace, match=re.escape(said)):
        check_writable(tmp_path / path)
    assert names(tmp_path) == ["circle", "file"]


def test_a_name_is_made_of_anything_and_stays_apart_from_others():
    assert name_for("torchattacks:PGD(steps=5)") == "torchattacks-PGD-steps=5-"
    one, other = (name_for("é" * 200 + end) for end in "ab")
    assert one != other
    assert max(len(one.encode()), len(other.encode())) <= 150


def test_a_folder_that_a_kill_left_moved_aside_comes_back(tmp_path):
    aside = tmp_path / f"x.{NOBODY}.7.older"
    aside.mkdir()
    (aside / "inside.txt").write_text("before")
    sweep(tmp_path / "x")
    assert (tmp_path / "x" / "inside.txt").read_text() == "before"
    assert names(tmp_path) == ["x"]
    aside.mkdir()  # whose successor is there
    sweep(tmp_path / "x")
    assert names(tmp_path) == ["x"]


def test_the_log_of_a_database_that_was_not_finished_goes_with_it(tmp_path):
    with pytest.raises(ValueError, match="fails"), whole_unless_there(tmp_path / "x") as beside:  # noqa: PT012
        beside.touch()
        beside.with_name(f"{beside.name}.wal").touch()
        raise ValueError("it fails")
    assert names(tmp_path) == []
