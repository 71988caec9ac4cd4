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

from bench.study.pool import Pool

UNITS = """
import os, time
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Facts:
    def run(self, report, stop):
        import signal, torch
        report(0.5)
        return os.getpid(), torch.get_num_threads(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN

@dataclass(frozen=True)
class Fails:
    def run(self, report, stop):
        raise ValueError("no luck")

@dataclass(frozen=True)
class Saves:
    path: Path
    def run(self, report, stop):
        self.path.with_suffix(".begun").touch()
        while not stop():
            time.sleep(0.01)
        self.path.write_text("saved")

@dataclass(frozen=True)
class Sleeps:
    path: Path
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


def test_units_run_elsewhere_on_one_thread_and_deaf_to_ctrl_c(units):
    with Pool(1) as pool:
        facts, fails = pool.submit(7, units.Facts()), pool.submit(8, units.Fails())
        pid, threads, deaf = facts.result(timeout=60)
        assert (threads, deaf) == (1, True)
        assert pid != os.getpid()
        with pytest.raises(ValueError, match="no luck"):
            fails.result(timeout=60)
        deadline = time.monotonic() + 10
        while not (news := pool.progress()):
            assert time.monotonic() < deadline
        assert news == {7: 0.5}
    assert not multiprocessing.active_children()


def test_ctrl_c_lets_a_training_save_and_ends_the_rest_at_once(units, tmp_path):
    saved, pid = tmp_path / "saved.txt", tmp_path / "worker.pid"
    interrupted = 0.0
    with pytest.raises(KeyboardInterrupt), Pool(2) as pool:  # noqa: PT012 - it is the exit that is tested
        pool.submit(0, units.Saves(saved), saves=True)
        pool.submit(1, units.Sleeps(pid))
        pool.submit(2, units.Saves(tmp_path / "never.txt"), saves=True)
        wait_for(saved.with_suffix(".begun"))
        worker = int(wait_for(pid))
        interrupted = time.monotonic()
        raise KeyboardInterrupt
    assert saved.read_text() == "saved"
    assert not (tmp_path / "never.txt").exists()
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
                from bench.study.pool import Pool
                from units_of_a_test import Sleeps
                with Pool(1) as pool:
                    pool.submit(0, Sleeps(Path({str(pid)!r}))).result()
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
