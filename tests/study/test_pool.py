"""Worker processes: results come back, trouble comes back, and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.study.pool import Inline, Processes

UNITS = """
import os, time
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Facts:
    saves = False
    def run(self, report, stop):
        import signal, torch
        report(0.5)
        return os.getpid(), torch.get_num_threads(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN

@dataclass(frozen=True)
class Fails:
    saves = False
    def run(self, report, stop):
        raise ValueError("no luck")

@dataclass(frozen=True)
class Saves:
    path: Path
    saves = True
    def run(self, report, stop):
        self.path.with_suffix(".begun").touch()
        while not stop():
            time.sleep(0.01)
        self.path.write_text("saved")

@dataclass(frozen=True)
class Dies:
    # its worker is killed, as by the system for want of memory, until it has been begun so many times
    path: Path
    times: int
    saves = False
    def run(self, report, stop):
        import signal
        begun = len(self.path.read_text()) if self.path.exists() else 0
        self.path.write_text("x" * (begun + 1))
        if begun < self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return begun + 1

@dataclass(frozen=True)
class Sleeps:
    path: Path
    saves = False
    def run(self, report, stop):
        self.path.write_text(str(os.getpid()))
        time.sleep(60)
"""


@pytest.fixture
def units(tmp_path, monkeypatch):
    """A module that workers can import too."""
    (tmp_path / "units_of_a_test.py").write_text(UNITS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import units_of_a_test

    yield units_of_a_test
    del sys.modules["units_of_a_test"]


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists() or (path.suffix == ".pid" and not path.read_text()):
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)
    return path.read_text()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def results(pool, *units) -> tuple[list, list]:
    """What units come to, or the error, with all that was told on the way."""
    heard, waiting, done = [], list(units), {}
    futures = {}
    deadline = time.monotonic() + 120
    while len(done) < len(units):
        assert time.monotonic() < deadline
        while waiting and len(futures) - len(done) < pool.workers:
            futures[pool.submit(waiting[0])] = len(futures)
            waiting.pop(0)
        for future in pool.wait(lambda future, share: heard.append((futures[future], share))):
            done[futures[future]] = future.exception() or future.result()
    return [done[number] for number in range(len(units))], heard


def test_units_run_elsewhere_on_one_thread_and_deaf_to_ctrl_c(units):
    with Processes(1) as pool:
        ((pid, threads, deaf), problem), heard = results(pool, units.Facts(), units.Fails())
    assert (threads, deaf) == (1, True)
    assert pid != os.getpid()
    assert repr(problem) == "ValueError('no luck')"
    assert all(0 < share <= 0.5 for _, share in heard)
    assert not multiprocessing.active_children()


def test_inline_units_run_here_when_they_are_waited_for(units):
    with Inline() as pool:
        ((pid, *_), problem), heard = results(pool, units.Facts(), units.Fails())
        future = pool.submit(units.Facts())
        assert not future.done()
        assert pool.wait(lambda *_: None) == [future]
        assert pool.wait(lambda *_: None) == []
    assert pid == os.getpid()
    assert repr(problem) == "ValueError('no luck')"
    assert (0, 0.5) in heard


def test_a_unit_whose_worker_is_killed_is_begun_once_more_and_takes_no_other_with_it(units, tmp_path):
    once, twice = units.Dies(tmp_path / "once", 1), units.Dies(tmp_path / "twice", 2)
    with Processes(2) as pool:
        (other, saved, lost, after), _ = results(pool, units.Facts(), once, twice, units.Facts())
    assert saved == 2
    assert isinstance(lost, BenchError)
    assert "its worker process was killed 2 times, perhaps for want of memory" in str(lost)
    assert (tmp_path / "twice").read_text() == "xx"
    assert other[1] == after[1] == 1


def test_ctrl_c_lets_a_training_save_and_ends_the_rest_at_once(units, tmp_path):
    saved, pid = tmp_path / "saved.txt", tmp_path / "worker.pid"
    interrupted = 0.0
    with pytest.raises(KeyboardInterrupt), Processes(2) as pool:  # noqa: PT012 - it is the exit that is tested
        pool.submit(units.Saves(saved))
        pool.submit(units.Sleeps(pid))
        wait_for(saved.with_suffix(".begun"))
        worker = int(wait_for(pid))
        interrupted = time.monotonic()
        raise KeyboardInterrupt
    assert saved.read_text() == "saved"
    assert time.monotonic() - interrupted < 15
    deadline = time.monotonic() + 10
    while alive(worker) or multiprocessing.active_children():
        assert time.monotonic() < deadline, "a worker outlives its pool"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_whoever_made_them(units, tmp_path, deadly):
    pid = tmp_path / "worker.pid"
    driver = tmp_path / "driver.py"
    driver.write_text(
        textwrap.dedent(
            f"""
            import sys
            from pathlib import Path
            if __name__ == "__main__":
                sys.path.insert(0, {str(tmp_path)!r})
                from bench.study.pool import Processes
                from units_of_a_test import Sleeps
                with Processes(1) as pool:
                    pool.submit(Sleeps(Path({str(pid)!r})))
                    while True:
                        pool.wait(lambda *_: None)
            """
        )
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, str(driver)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    worker = int(wait_for(pid))
    parent.send_signal(deadly)
    parent.wait(timeout=30)
    deadline = time.monotonic() + 15
    while alive(worker):
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)
