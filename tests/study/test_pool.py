"""Worker processes: results come back, trouble comes back, and nobody is left behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

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
        deaf = [signal.getsignal(number) == signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)]
        return os.getpid(), torch.get_num_threads(), all(deaf)

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

class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")

@dataclass(frozen=True)
class Ends:
    # in one of the ways in which code of a model or plug-in may
    how: str
    saves = False
    def run(self, report, stop):
        match self.how:
            case "sys.exit":
                raise SystemExit(0)
            case "os._exit":
                os._exit(0)
            case "Ctrl-C":
                raise KeyboardInterrupt
            case "odd":
                raise Odd(1, 2)

class Unpacked:
    saves = False
    def __reduce__(self):
        return exit, ("at import",)

@dataclass(frozen=True)
class Masked:
    saves = False
    def run(self, report, stop):
        import signal
        return sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))

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
    assert "its worker process ended 2 times in the midst of it: killed, perhaps for want of memory" in str(lost)
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


@pytest.fixture
def torch_of(tmp_path, monkeypatch):
    """Gives workers a module `torch` of these lines."""

    def given(lines: str) -> None:
        (tmp_path / "torch.py").write_text(lines)
        monkeypatch.syspath_prepend(str(tmp_path))

    return given


LIGHT = "def set_num_threads(threads):\n    pass\n"


def test_code_that_ends_its_process_or_makes_odd_errors_fails_its_unit_only(units, torch_of):
    torch_of(LIGHT)
    ways = ("sys.exit", "os._exit", "Ctrl-C", "odd")
    with Processes(1) as pool:
        (left, lost, pressed, odd, unpacked, fine), _ = results(
            pool, *map(units.Ends, ways), units.Unpacked(), units.Ends("well")
        )
    assert isinstance(left, SystemExit)
    assert isinstance(lost, BenchError)
    assert "left by the code of a model or plug-in" in str(lost)
    assert (repr(pressed), repr(odd)) == ("BenchError('KeyboardInterrupt: ')", "BenchError('Odd: 1 and 2')")
    assert repr(unpacked) == "SystemExit('at import')"
    assert fine is None


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("raise ImportError('no libtorch.so')", "a worker process cannot start (ImportError: no libtorch.so)"),
        ("import os; os._exit(0)", "its worker process ended 2 times before it began"),
    ],
)
def test_a_worker_that_cannot_start_is_told(units, torch_of, torch, said):
    torch_of(torch)
    with Processes(1) as pool:
        (problem,), _ = results(pool, units.Ends("well"))
    assert isinstance(problem, BenchError)
    assert said in str(problem)


def test_a_worker_for_which_there_is_no_room_is_told(units, torch_of, monkeypatch):
    torch_of(LIGHT)

    def refused(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    with Processes(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr("multiprocessing.util.spawnv_passfds", refused)
            (problem,), _ = results(pool, units.Ends("well"))
        assert "no worker process can be started" in str(problem)
        assert results(pool, units.Ends("well"))[0] == [None]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_whoever_made_them(units, torch_of, tmp_path, deadly):
    pid = tmp_path / "worker.pid"
    torch_of(LIGHT)
    parent = driver(tmp_path, f"Sleeps(Path({str(pid)!r}))")
    dies_with(parent, int(wait_for(pid)), deadly)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_that_are_still_importing_die_with_whoever_made_them(units, torch_of, tmp_path):
    pid = tmp_path / "worker.pid"
    torch_of(f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    dies_with(driver(tmp_path, "Ends('well')"), int(wait_for(pid)), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="holds signals back")
def test_the_first_worker_too_is_deaf_from_its_first_moment(units, torch_of, tmp_path):
    torch_of(LIGHT)
    process = driver(tmp_path, "Masked()", stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == f"[{int(signal.SIGINT)}, {int(signal.SIGTERM)}]\n"
    process.kill()
    process.communicate()


def driver(tmp_path: Path, unit: str, **options: Any) -> subprocess.Popen[str]:
    """A process that has a unit done, prints what it came to, and waits."""
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, sys, time
            if __name__ == "__main__":
                sys.path.insert(0, {str(tmp_path)!r})
                from bench.study.pool import Processes
                from units_of_a_test import *
                with Processes(1) as pool:
                    pool.submit({unit})
                    while os.getppid() == {os.getpid()}:  # no orphan of the tests lives on
                        for future in pool.wait(lambda *_: None):
                            print(future.result(), flush=True)
                        time.sleep(0.05)
            """
        )
    )
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, str(script)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, text=True, **options
    )


def dies_with(parent: subprocess.Popen[str], worker: int, deadly: signal.Signals) -> None:
    parent.send_signal(deadly)
    parent.wait(timeout=30)
    deadline = time.monotonic() + 5
    while alive(worker):
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)
