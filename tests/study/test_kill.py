"""However a run ends, the next one goes on to what an uninterrupted one would have come to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import BadStore
from bench.store.database import Store
from bench.study.file import load_study
from bench.study.plan import agenda_of
from bench.study.pool import Inline
from bench.study.runner import run_study

from .shown import Shown

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

ROOT = Path(__file__).parents[2]
STUDY = """
name = "kill"
dataset = "digits"
checks = "none"
model = "convnet-2"
eps = "0.15"
attacks = ["fgsm", "pgd-100"]
n = 40
train_n = 200
batch_size = 4
epochs = 25
set = { "schedule.batch_size" = 16, "objective.inner.steps" = 2 }

[entries.pgd-at]
"""
OUTCOMES = """
SELECT checkpoint_id, attack_id, sample, label, predicted, correct, confidence, broken_by
FROM outcomes JOIN evaluations USING (evaluation_id) ORDER BY ALL
"""
TWICE = "SELECT evaluation_id, sample FROM outcomes GROUP BY ALL HAVING count(*) > 1"


def finished(place: Path) -> pd.DataFrame:
    """The outcomes once the study has been run to its end, here and without workers."""
    (place / "s.toml").write_text(STUDY)
    agenda = agenda_of(load_study(place / "s.toml"), Store(place / "b.duckdb"), place / "out")
    assert not run_study(agenda, Inline(), Shown()).failures
    return agenda.store.query(OUTCOMES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture(scope="module")
def uninterrupted(trained):
    return finished(trained)


class Command:
    """`evenbench ...` in a process group of its own, as a terminal starts it."""

    def __init__(self, place: Path, *arguments: str) -> None:
        (place / "s.toml").write_text(STUDY)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from bench.cli import main; main()", *arguments],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),  # ignored in background jobs
        )

    def members(self) -> list[int]:
        """Processes of the group that live."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(group) == self.process.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def until(self, happened: Callable[[], bool]) -> Command:
        deadline = time.monotonic() + 120
        while not happened():
            assert self.process.poll() is None, f"ended before it was stopped: {self.process.communicate()}"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """Kill -9 of the command alone; its workers must follow by themselves."""
        self.process.kill()
        self.process.communicate()
        self.nobody_left()

    def ended_by(self, number: int) -> tuple[int, str]:
        """A signal to the whole group, as from a terminal; the exit code, and what is said."""
        os.killpg(self.process.pid, number)
        _, said = self.process.communicate(timeout=60)
        self.nobody_left()
        return self.process.returncode, said

    def nobody_left(self) -> None:
        deadline = time.monotonic() + 15
        while left := self.members():
            assert time.monotonic() < deadline, f"processes left behind: {left}"
            time.sleep(0.05)


def run(place: Path) -> Command:
    return Command(place, "run", "s.toml", "--db", "b.duckdb", "--out", "out", "--workers", "1")


def half_trained(place: Path) -> Callable[[], bool]:
    return lambda: any((place / "out" / "checkpoints").glob("*.last.safetensors"))


def half_judged(place: Path) -> Callable[[], bool]:
    store = Store(place / "b.duckdb", patience=0.0)

    def asked() -> bool:
        try:
            return bool(store.rows("SELECT count(*) FROM chunks")[0][0] >= 12)  # of 30: in fgsm, before the long attack
        except BadStore:  # not there yet
            return False

    return asked


def selected(place: Path) -> list[str]:
    names = {path.name for path in (place / "out" / "checkpoints").glob("*.safetensors")}
    return [name for name in names if not name.endswith(".last.safetensors")]


def test_killed_in_training_and_in_evaluation_and_run_again(tmp_path, uninterrupted):
    run(tmp_path).until(half_trained(tmp_path)).kill()
    assert not selected(tmp_path), "the training was over before it was killed"
    run(tmp_path).until(half_judged(tmp_path)).kill()
    store = Store(tmp_path / "b.duckdb")
    before = store.query(OUTCOMES)
    assert 0 < len(before) < len(uninterrupted), "the evaluation was over before it was killed"
    last = run(tmp_path)
    shown, said = last.process.communicate(timeout=120)
    assert last.process.returncode == 0, said
    assert "0 trained" in said
    assert "wrote" in shown
    pd.testing.assert_frame_equal(store.query(OUTCOMES), uninterrupted)
    assert store.query(TWICE).empty
    assert store.rows("SELECT sum(n) FROM chunks") == [(len(uninterrupted),)]


@pytest.mark.parametrize(
    ("when", "number", "wanted"),
    [(half_trained, signal.SIGINT, 130), (half_judged, signal.SIGINT, 130), (half_trained, signal.SIGTERM, 143)],
)
def test_a_signal_says_how_to_go_on_and_leaves_nobody_behind(tmp_path, uninterrupted, trained, when, number, wanted):
    if when is half_judged:
        shutil.copytree(trained / "out", tmp_path / "out")
    code, said = run(tmp_path).until(when(tmp_path)).ended_by(number)
    assert code == wanted
    assert "run the same command again to go on" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert Store(tmp_path / "b.duckdb").query(TWICE).empty
    assert bool(selected(tmp_path)) is (when is half_judged)
    pd.testing.assert_frame_equal(finished(tmp_path), uninterrupted)


def test_ctrl_c_while_workers_come_up_shows_no_traceback(tmp_path):
    command = run(tmp_path)
    code, said = command.until(lambda: len(command.members()) > 2).ended_by(
        signal.SIGINT
    )  # a worker, and Python's resource tracker
    assert code == 130
    assert "Traceback" not in said


def test_sigterm_of_a_single_training_says_where_it_is_saved(tmp_path):
    arguments = "train pgd-at --dataset digits --n 200 --model convnet-2 --epochs 200 --out at.safetensors"
    command = Command(tmp_path, *arguments.split())
    code, said = command.until(lambda: (tmp_path / "at.last.safetensors").exists()).ended_by(signal.SIGTERM)
    assert code == 143
    assert "saved to at.last.safetensors; run the same command again to go on" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not (tmp_path / "at.safetensors").exists()


def test_a_worker_that_is_killed_costs_its_chunk_only(tmp_path, uninterrupted, trained):
    shutil.copytree(trained / "out", tmp_path / "out")
    command = run(tmp_path).until(half_judged(tmp_path))
    children = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children").read_text().split()
    (worker,) = [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(worker, signal.SIGKILL)
    _, said = command.process.communicate(timeout=120)
    assert command.process.returncode == 0, said
    store = Store(tmp_path / "b.duckdb")
    pd.testing.assert_frame_equal(store.query(OUTCOMES), uninterrupted)
    assert store.query(TWICE).empty


def test_an_evaluation_in_one_process_is_killed_and_goes_on(tmp_path, uninterrupted, trained):
    shutil.copytree(trained / "out", tmp_path / "out")
    (network,) = selected(tmp_path)
    arguments = ["evaluate", f"out/checkpoints/{network}", "--dataset", "digits", "--n", "40", "--batch-size", "4"]
    arguments += ["--attacks", "fgsm,pgd-100", "--eps", "0.15", "--checks", "none", "--db", "b.duckdb"]
    Command(tmp_path, *arguments).until(half_judged(tmp_path)).kill()
    store = Store(tmp_path / "b.duckdb")
    assert 0 < len(store.query(OUTCOMES)) < len(uninterrupted), "the evaluation was over before it was killed"
    again = Command(tmp_path, *arguments)
    _, said = again.process.communicate(timeout=120)
    assert again.process.returncode == 0, said
    pd.testing.assert_frame_equal(store.query(OUTCOMES), uninterrupted)
    assert store.query(TWICE).empty
