from __future__ import annotations

import errno
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

import bench.writing
from bench.checkpoint import read
from bench.data import images_from_arrays
from bench.errors import BadCheckpoint, DiskFull, Diverged
from bench.fit import Interrupted, best_epoch, differences, finished, fit, last_of, resumable, stoppable
from bench.method import Plan
from bench.models import Architecture
from bench.recipe import Descend, Recipe
from bench.runs import Run
from bench.schedule import Schedule
from bench.train import train
from methods.averaging import EMA
from methods.natural import Natural

QUICK = Schedule(epochs=4, batch_size=16, augment="none", holdout=0.25, selection="last")


def toy(n=48):
    """Images (n,1,8,8) of two classes, one brighter."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).integers(0, 120, (n, 1, 8, 8))
    return images_from_arrays("toy", "train", (noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels, "ab")


def a_run(selection="last", seed=0, recipe=None, **schedule):
    plan = Plan("own", "toy", "", recipe or Recipe(Natural()), replace(QUICK, selection=selection, **schedule), ())
    return Run(plan, Architecture("convnet-2", 2, 1), toy(), seed, {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def trained(monkeypatch, robust):
    """Makes validation say that so many of the 6 images of each class are robust, epoch by epoch."""
    hits = iter(robust)

    def told(model, images, eps, seed, device):
        from bench.types import Tally

        tally = Tally.zeros(2)
        now = next(hits)
        for k in range(2):
            tally.count[k] = tally.count_clean[k] = tally.count_adv[k] = 6
            tally.hits_clean[k], tally.hits_adv[k] = 6, now[k]
        return tally

    monkeypatch.setattr("bench.train.validate", told)


def test_the_files_of_a_finished_run(path):
    run = a_run()
    kept = fit(run, path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["run.last.safetensors", "run.safetensors"]
    assert (kept.epoch, kept.step) == (4, 0)
    assert not any(kept.tensors[part] for part in ("momentum", "targets", "budget", "tally"))
    newest = read(last_of(path))
    assert newest.checkpoint_id == kept.checkpoint_id
    assert newest.tensors["momentum"]
    assert kept.history == newest.history
    assert [row["epoch"] for row in kept.history if row["split"] == "valid"] == [1, 2, 3, 4]
    *_, wanted = train(run)
    assert kept.checkpoint_id == wanted.checkpoint_id


def test_a_finished_run_is_found_done(path, monkeypatch):
    kept = fit(a_run(), path)
    monkeypatch.setattr("bench.fit.train", None)
    assert finished(a_run(), path).checkpoint_id == kept.checkpoint_id
    assert fit(a_run(), path).checkpoint_id == kept.checkpoint_id


@pytest.mark.parametrize(
    ("selection", "robust", "epoch"),
    [
        ("best-robust", [(1, 1), (5, 1), (3, 3), (2, 2)], 2),
        ("best-robust", [(1, 1), (3, 3), (5, 1), (2, 2)], 2),
        ("best-robust-plus-worst", [(1, 1), (6, 0), (3, 3), (2, 2)], 3),
        ("best-robust", [(1, 1), (2, 2), (3, 3), (4, 4)], 4),
        ("best-mean-clean-robust", [(6, 6), (2, 2), (3, 3), (4, 4)], 1),
        ("last", [(6, 6), (2, 2), (3, 3), (0, 0)], 4),
    ],
)
def test_the_selected_epoch_is_kept_with_the_history_of_all(path, monkeypatch, selection, robust, epoch):
    trained(monkeypatch, robust)
    run = a_run(selection)
    kept = fit(run, path)
    assert kept.epoch == epoch
    assert [row["epoch"] for row in kept.history] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert read(last_of(path)).epoch == 4
    assert best_epoch(kept.history, selection) == epoch
    trained(monkeypatch, robust)
    *_, wanted = [state for state in train(run) if state.epoch <= epoch]
    assert kept.checkpoint_id == wanted.checkpoint_id


def once(after):
    """Says stop from the so-manieth question on."""
    asked = iter(range(1000))
    return lambda: next(asked) + 1 >= after


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8])
def test_stopped_anywhere_it_goes_on_to_the_same_checkpoint(path, tmp_path, after):
    run = a_run("best-robust", recipe=Recipe(Natural(), average=EMA(judged=True)))
    whole = fit(run, tmp_path / "whole.safetensors")
    with pytest.raises(Interrupted, match=r"stopped in epoch \d of 4 after step \d; saved to .*; run the same command"):
        fit(run, path, stop=once(after))
    assert last_of(path).exists()
    reports = []
    kept = fit(run, path, report=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (12, 12)
    assert len(reports) < 12
    assert kept.checkpoint_id == whole.checkpoint_id
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert last_of(path).read_bytes() == last_of(tmp_path / "whole.safetensors").read_bytes()


def test_a_question_that_says_stop_only_once_stops(path):
    answers = iter([False, True])
    with pytest.raises(Interrupted, match="stopped in epoch 1 of 4 after step 2"):
        fit(a_run(), path, stop=lambda: next(answers, False))
    assert read(last_of(path)).step == 2


def test_another_run_in_the_same_file_is_refused_naming_what_differs(path):
    with pytest.raises(Interrupted):
        fit(a_run(), path, stop=once(2))
    before = last_of(path).read_bytes()
    for other, where in (
        (a_run(seed=1), "seed"),
        (a_run(lr=0.3), r"schedule\.lr"),
        (a_run("best-robust"), "selection"),
    ):
        with pytest.raises(
            BadCheckpoint, match=f"another run .it differs in .*{where}.; choose another --out or delete"
        ):
            fit(other, path)
    assert last_of(path).read_bytes() == before
    fit(a_run(), path)
    last_of(path).unlink()
    with pytest.raises(BadCheckpoint, match=r"run\.safetensors holds another run .it differs in seed"):
        fit(a_run(seed=1), path)


def test_a_selected_file_of_another_run_is_not_taken_for_ours(path, tmp_path):
    fit(a_run(), path)
    fit(a_run(seed=1), tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").replace(path)
    with pytest.raises(BadCheckpoint, match=r"run\.safetensors holds another run .it differs in seed"):
        fit(a_run(), path)


@pytest.mark.parametrize("which", [lambda path: path, last_of])
def test_a_damaged_file_is_refused(path, which):
    fit(a_run(), path)
    which(path).write_bytes(which(path).read_bytes()[:-10])
    if which is last_of:
        path.unlink()  # complete, it would be enough
    with pytest.raises(BadCheckpoint, match="may be truncated"):
        fit(a_run(), path)


@pytest.mark.parametrize("selection", ["last", "best-robust"])
def test_a_selected_file_that_is_gone_is_made_again(path, monkeypatch, selection):
    robust = [(1, 1), (5, 1), (3, 3), (2, 2)]
    trained(monkeypatch, robust)
    kept = fit(a_run(selection), path)
    path.unlink()
    trained(monkeypatch, robust)
    assert fit(a_run(selection), path).checkpoint_id == kept.checkpoint_id


def test_a_selected_file_gone_in_mid_run_is_made_again(path, monkeypatch):
    robust = [(5, 1), (1, 1), (3, 2), (2, 2)]
    trained(monkeypatch, robust)
    with pytest.raises(Interrupted):
        fit(a_run("best-robust"), path, stop=once(8))
    path.unlink()
    trained(monkeypatch, robust)
    assert fit(a_run("best-robust"), path).epoch == 1


@dataclass(frozen=True)
class Exploding(Descend):
    """Loses its numbers in an epoch."""

    epoch: int = 2

    def __call__(self, ctx, optimizer, objective):
        loss, losses = super().__call__(ctx, optimizer, objective)
        return (loss * float("nan") if ctx.epoch >= self.epoch else loss), losses


def test_the_last_good_epoch_is_kept_when_training_diverges(path):
    run = a_run("best-robust", recipe=Recipe(Natural(), step=Exploding()))
    with pytest.raises(Diverged, match=r"epoch 3 of 4, step 1; .*; .*run\.last\.safetensors holds the last good epoch"):
        fit(run, path)
    assert read(last_of(path)).epoch == 2
    assert read(path).epoch in (1, 2)
    nothing = a_run(recipe=Recipe(Natural(), step=Exploding(epoch=0)))
    with pytest.raises(Diverged, match=r"epoch 1 of 4, step 1; .*; nothing was saved yet"):
        fit(nothing, path.with_name("other.safetensors"))


def test_a_full_disk_keeps_the_earlier_state_and_the_run_goes_on_later(path, monkeypatch, tmp_path):
    run = a_run()
    whole = fit(run, tmp_path / "whole.safetensors")
    real = bench.writing.save_file
    writes = []

    def filling(tensors, where, metadata):
        writes.append(where)
        if len(writes) > 2:
            where.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, where, metadata)

    monkeypatch.setattr(bench.writing, "save_file", filling)
    with pytest.raises(DiskFull):
        fit(run, path)
    assert read(last_of(path)).epoch == 2
    monkeypatch.undo()
    assert fit(run, path).checkpoint_id == whole.checkpoint_id


def test_differences_are_named_by_path():
    assert differences({"a": 1, "b": {"c": [1], "d": 2}}, {"a": 1, "b": {"c": [2], "d": 2}, "e": 0}) == "b.c, e"
    assert differences({"a": {}}, {"a": {}}) == ""
    assert differences({str(k): 0 for k in range(9)}, {}) == "0, 1, 2, 3"


def test_nothing_there_is_nothing_to_go_on_from(path):
    assert resumable(a_run(), path) is None
    assert finished(a_run(), path) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_acts(number):
    before = signal.getsignal(number)
    heard = []
    signal.signal(number, lambda *_: heard.append(1))
    try:
        with stoppable() as asked:
            assert not asked()
            os.kill(os.getpid(), number)
            assert asked()
            assert heard == []
            os.kill(os.getpid(), number)
            assert heard == [1]
        os.kill(os.getpid(), number)
        assert heard == [1, 1]
    finally:
        signal.signal(number, before)


TRAINING = """
import sys, time
from pathlib import Path
import numpy as np
from bench.data import images_from_arrays
from bench.fit import fit
from bench.inner import Inner
from bench.method import Plan
from bench.models import Architecture
from bench.recipe import Recipe
from bench.schedule import Schedule
from bench.runs import Run
from methods.averaging import EMA
from methods.trades import TRADES

def work(path, pause):
    labels = np.arange(96) % 2
    pixels = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    schedule = Schedule(epochs=6, batch_size=16, selection="best-robust", holdout=0.1)
    recipe = Recipe(TRADES(inner=Inner(steps=2)), average=EMA(judged=True))
    images = images_from_arrays("toy", "train", pixels, labels, "ab")
    run = Run(Plan("own", "toy", "", recipe, schedule, ()), Architecture("convnet-2", 2, 1), images, 3, {})
    return fit(run, path, report=lambda done, total: time.sleep(pause)).checkpoint_id

if __name__ == "__main__":
    work(Path(sys.argv[1]), 0.05)
"""


def test_killed_and_run_again_it_ends_as_if_nothing_had_happened(tmp_path):
    script, killed, whole = (tmp_path / name for name in ("work.py", "killed.safetensors", "whole.safetensors"))
    script.write_text(TRAINING)
    with subprocess.Popen([sys.executable, script, killed]) as process:
        deadline = time.monotonic() + 60
        while not last_of(killed).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert read(last_of(killed)).epoch < 6
    work = runpy.run_path(str(script))["work"]
    assert work(killed, 0) == work(whole, 0)
    assert killed.read_bytes() == whole.read_bytes()
    assert last_of(killed).read_bytes() == last_of(whole).read_bytes()
    assert sorted(p.name for p in tmp_path.glob("killed*")) == ["killed.last.safetensors", "killed.safetensors"]
