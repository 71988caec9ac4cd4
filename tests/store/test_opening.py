"""Who writes gets in beside busy readers, and nobody waits in silence or for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from bench.errors import StoreBusy
from bench.files import alone
from bench.store.database import Store
from bench.store.opening import Wait
from bench.store.problems import explained
from bench.store.rows import AttackRow

ROOT = Path(__file__).parents[2]
READER = """
import sys, time
from pathlib import Path
from bench.store.database import Store
store = Store(Path(sys.argv[1]), patience=60)
while True:
    with store._asking("SELECT 1", []) as answer:
        answer.fetchall()
        time.sleep(0.3)
    print("read", flush=True)
"""


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "b.duckdb", patience=10)
    store.create()
    return store


def nobody(_: float) -> None:
    raise AssertionError("somebody has the lock")


def test_a_writer_gets_in_beside_busy_readers(store):
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, store.path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for reader in readers:
            assert reader.stdout
            assert reader.stdout.readline() == "read\n"
        begun = time.monotonic()
        for number in range(8):
            store.add_attack(AttackRow(f"a{number}", "a", "Linf", "0.15", 0.15, ("a",), "{}"))
        assert time.monotonic() - begun < 8
        for reader in readers:  # and they go on
            assert reader.stdout
            assert reader.stdout.readline() == "read\n"
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    assert store.rows("SELECT count(*) FROM attacks") == [(8,)]


def test_who_reads_and_who_writes_lets_a_writer_by_that_waits(store):
    said: list[str] = []
    hasty = Store(store.path, patience=0.2, say=said.append)
    with alone(store.path, nobody):
        for act in (lambda: hasty.rows("SELECT 1"), hasty.create):
            with pytest.raises(StoreBusy, match=r"still held by another process that writes after 0\.2 s"):
                act()
    assert said == [f"{store.path} is held by another process that writes; waiting up to 0.2 s"] * 2
    assert hasty.rows("SELECT 1") == [(1,)]
    hasty.create()
    assert [path.name for path in store.path.parent.iterdir()] == ["b.duckdb"]


def test_a_long_wait_is_said_after_a_second_and_then_the_more_rarely(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    wait = Wait(Path("b.duckdb"), 600, lambda line: said.append(now[0]), begun=0.0)
    for tenth in range(6000):
        now[0] = tenth / 10
        wait.go_on("another process")
    assert said == [1, 4, 16, 64, 256]
    now[0] = 600
    with pytest.raises(StoreBusy, match="after 600 s"):
        wait.go_on("another process")


LONG = """
import os, signal, sys, threading
from pathlib import Path
from bench.store.database import Store
def stopped(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stopped)
threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
crossed = "SELECT count(*) FROM range(1000000) a, range(100000) b WHERE a.range * b.range % 7 = 3"
try:
    Store(Path(sys.argv[1])).rows(crossed)
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGTERM) is stopped
    print("interrupted")
"""


def test_a_long_query_ends_at_a_signal(store):
    for _ in range(3):  # DuckDB alone waits for its threads, but not each time
        done = subprocess.run(
            [sys.executable, "-c", LONG, store.path], cwd=ROOT, capture_output=True, text=True, timeout=20
        )
        assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_a_signal_that_only_asks_leaves_the_query_to_its_end(store):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
        found = store.rows("SELECT count(*) FROM range(10000) a, range(20000) b WHERE a.range * b.range % 7 = 3")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found[0][0] > 0
    assert heard == [1]


@pytest.mark.parametrize("made", [RuntimeError("Query interrupted"), duckdb.InterruptException("INTERRUPT Error")])
def test_what_duckdb_makes_of_ctrl_c_is_ctrl_c(made):
    with pytest.raises(KeyboardInterrupt), explained(Path("b.duckdb")):
        raise made
    with pytest.raises(RuntimeError, match="other"), explained(Path("b.duckdb")):
        raise RuntimeError("other")
