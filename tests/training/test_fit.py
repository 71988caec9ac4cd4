from __future__ import annotations

import errno
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import safetensors.torch
import torch

from bench.data.images import images_from_arrays
from bench.errors import BadCheckpoint, BadRecipe, DiskFull, Diverged, UnknownName
from bench.files import alone
from bench.models.architecture import Architecture
from bench.training.checkpoint import read, write
from bench.training.fit import Interrupted, differences, epoch_of, finished, fit, last_of, resumable
from bench.training.loop import train
from bench.training.method import Plan
from bench.training.recipe import Descend, Recipe
from bench.training.reselect import figures, reselect, selected_by, write_new
from bench.training.run import Run
from bench.training.schedule import Schedule
from bench.training.selection import RULES, best_epoch
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
    """Makes validation say that so many of the 6 images of each class are robust, and right clean, epoch by epoch."""
    hits = iter(robust)

    def told(model, images, eps, seed, device):
        from bench.training.values import Tally

        tally = Tally.zeros(2)
        now = next(hits)
        for k in range(2):
            tally.count[k] = tally.count_clean[k] = tally.count_adv[k] = 6
            tally.hits_clean[k], tally.hits_adv[k] = [*now, 6][2], now[k]
        return tally

    monkeypatch.setattr("bench.training.loop.validate", told)


def under(rule, run):
    """The run, had its schedule named another rule."""
    plan = replace(run.plan, variant=f"schedule.selection={rule}", schedule=replace(run.plan.schedule, selection=rule))
    return replace(run, plan=plan)


def contents(path):
    """Every file of a training by its name beside `path`."""
    files = [file for file in path.parent.rglob("*") if file.is_file()]
    names = [file.relative_to(path.parent).as_posix() for file in files]
    return {
        n.removeprefix(path.stem): file.read_bytes()
        for n, file in zip(names, files, strict=True)
        if n.startswith(path.stem)
    }


def test_the_files_of_a_finished_run(path, monkeypatch):
    trained(monkeypatch, [(1, 1), (1, 1), (2, 1), (2, 2)])
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
    monkeypatch.undo()
    *_, wanted = train(run)
    assert kept.checkpoint_id == wanted.checkpoint_id


def test_a_finished_run_is_found_done(path, monkeypatch):
    kept = fit(a_run(), path)
    monkeypatch.setattr("bench.training.fit.train", None)
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
    assert contents(path) == contents(tmp_path / "whole.safetensors")


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


@dataclass(frozen=True)
class Outgrowing(Descend):
    """Finds no memory in an epoch."""

    epoch: int = 2

    def __call__(self, ctx, optimizer, objective):
        if ctx.epoch >= self.epoch:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().__call__(ctx, optimizer, objective)


@pytest.mark.parametrize(("epoch", "left"), [(2, r"run\.last\.safetensors holds the last"), (0, "nothing was saved")])
def test_where_memory_runs_out_the_batch_is_named_and_the_last_good_epoch_is_kept(path, epoch, left):
    run = a_run(recipe=Recipe(Natural(), step=Outgrowing(epoch=epoch)))
    with pytest.raises(BadRecipe, match=rf"memory with 16 images .* smaller schedule\.batch_size; .*{left}"):
        fit(run, path)
    assert last_of(path).exists() == (epoch > 0)


def test_a_full_disk_keeps_the_earlier_state_and_the_run_goes_on_later(path, monkeypatch, tmp_path):
    run = a_run()
    whole = fit(run, tmp_path / "whole.safetensors")
    real = safetensors.torch.save_file
    writes = []

    def filling(tensors, where, metadata):
        if sum(name.startswith("run.last") for name in writes) == 2:
            where.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        writes.append(where.name)
        real(tensors, where, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", filling)
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


TRAINING = """
import sys, time
from pathlib import Path
import numpy as np
from bench.data.images import images_from_arrays
from bench.training.fit import fit
from bench.training.inner import Inner
from bench.training.method import Plan
from bench.models.architecture import Architecture
from bench.training.recipe import Recipe
from bench.training.schedule import Schedule
from bench.training.run import Run
from methods.averaging import EMA
from methods.trades import TRADES

def work(path, pause):
    labels = np.arange(96) % 2
    pixels = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    schedule = Schedule(epochs=6, batch_size=16, selection="best-robust", holdout=0.1)
    recipe = Recipe(TRADES(inner=Inner(steps=2)), average=EMA(judged=True))
    images = images_from_arrays("toy", "train", pixels, labels, "ab")
    run = Run(Plan("own", "toy", "", recipe, schedule, ()), Architecture("convnet-2", 2, 1), images, 3, {})
    steps, waits = [], []

    def report(done, total):
        steps.append(done)
        time.sleep(pause)

    kept = fit(run, path, report=report, waits=lambda: waits.append(1))
    return kept.checkpoint_id, steps, waits

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
    assert work(killed, 0)[0] == work(whole, 0)[0]
    assert contents(killed) == contents(whole)


def test_of_two_trainings_at_once_the_second_waits_and_finds_it_done(tmp_path):
    script, shared, whole = (tmp_path / name for name in ("work.py", "shared.safetensors", "whole.safetensors"))
    script.write_text(TRAINING)
    work = runpy.run_path(str(script))["work"]
    with subprocess.Popen([sys.executable, script, shared]) as process:
        lock, deadline = shared.with_name("shared.safetensors.lock"), time.monotonic() + 60
        while not lock.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        found, steps, waits = work(shared, 0)
    assert process.returncode == 0
    assert (steps, waits) == ([], [1])
    assert found == work(whole, 0)[0]
    assert contents(shared) == contents(whole)


def test_a_training_that_waits_for_another_process_can_be_stopped(path):
    with (
        alone(path, lambda _: pytest.fail("nobody else is there")),
        pytest.raises(Interrupted, match="another process trains"),
    ):
        fit(a_run(), path, stop=lambda: True)
    assert contents(path) == {}
    fit(a_run(), path)
    assert path.exists()


RUNS = {
    "all differ": [(2, 2), (6, 0, 1), (3, 2, 4), (1, 1, 3)],
    "late": [(1, 1), (2, 2), (2, 3), (3, 3)],
    "early": [(3, 3), (2, 2), (1, 1), (0, 0)],
    "moving": [(1, 1), (3, 3), (6, 2), (2, 4)],
}
"""Robust images of 6 in each of two classes, and of the clean ones if not all 6, epoch by epoch."""


@pytest.mark.parametrize("robust", RUNS.values(), ids=list(RUNS))
@pytest.mark.parametrize("own", RULES)
def test_every_rule_gives_what_training_under_it_would_have_kept(path, monkeypatch, own, robust):
    trained(monkeypatch, robust)
    kept = fit(a_run(own), path)
    epochs = {best_epoch(kept.history, rule) for rule in RULES} - {kept.epoch}
    assert contents(path).keys() == {".safetensors", ".last.safetensors"} | {f".epochs/{e}.safetensors" for e in epochs}
    assert all(read(epoch_of(path, epoch)).epoch == epoch for epoch in epochs)
    for rule in RULES:
        other = path.with_name(f"other-{rule}.safetensors")
        trained(monkeypatch, robust)
        wanted = fit(under(rule, a_run(own)) if rule != own else a_run(own), other)
        last_of(other).unlink()
        chosen = reselect(kept, path, rule)
        assert chosen.checkpoint_id == wanted.checkpoint_id
        assert chosen.run == wanted.run
        assert chosen.history == wanted.history
        write_new(chosen, path.with_name(f"{rule}.safetensors"))
        assert read(path.with_name(f"{rule}.safetensors")).checkpoint_id == wanted.checkpoint_id


@pytest.mark.parametrize("own", ["last", "best-robust"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_before_or_after_any_write_no_rule_loses_its_epoch(path, tmp_path, monkeypatch, own, after):
    robust, real = RUNS["moving"], write
    trained(monkeypatch, robust)
    fit(a_run(own), tmp_path / "whole.safetensors")
    for deadly in range(20):
        place = tmp_path / str(deadly) / "run.safetensors"
        writes = []

        def killing(checkpoint, where, writes=writes, deadly=deadly):
            writes.append(where)
            if len(writes) - 1 == deadly and not after:
                raise KeyboardInterrupt
            real(checkpoint, where)
            if len(writes) - 1 == deadly and after:
                raise KeyboardInterrupt

        trained(monkeypatch, robust)
        monkeypatch.setattr("bench.training.fit.write", killing)
        try:
            fit(a_run(own), place)
        except KeyboardInterrupt:
            pass
        else:
            break
        monkeypatch.setattr("bench.training.fit.write", real)
        trained(monkeypatch, robust[read(last_of(place)).epoch :] if last_of(place).exists() else robust)
        kept = fit(a_run(own), place)
        for rule in RULES:
            wanted = reselect(read(tmp_path / "whole.safetensors"), tmp_path / "whole.safetensors", rule)
            assert reselect(kept, place, rule).checkpoint_id == wanted.checkpoint_id
    assert deadly == len(writes) > 7


def test_nothing_but_what_a_rule_keeps_stays_on_disk(path, monkeypatch):
    stale = epoch_of(path, 9)
    stale.parent.mkdir()
    for name in ("9.safetensors", "2.safetensors.123.partial"):
        (stale.parent / name).write_bytes(b"of an earlier training")
    (stale.parent / "mine.txt").touch()
    trained(monkeypatch, RUNS["moving"])
    there = []
    fit(a_run(), path, report=lambda done, total: there.append({file.name for file in stale.parent.iterdir()}))
    assert [len(files) for files in there[3::3]] == [2, 2, 3]  # with the file of the user
    assert there[-1] == {"2.safetensors", "3.safetensors", "mine.txt"}


def test_a_training_without_a_held_out_split_keeps_and_selects_nothing(path):
    kept = fit(a_run(holdout=0.0), path)
    assert contents(path).keys() == {".safetensors", ".last.safetensors"}
    with pytest.raises(
        BadCheckpoint, match=r"no held-out figures to select by; train it with schedule\.holdout above 0"
    ):
        reselect(kept, path, "best-robust")


def test_what_cannot_be_selected_is_refused_with_its_epoch(path, tmp_path, monkeypatch):
    trained(monkeypatch, RUNS["all differ"])
    with pytest.raises(Interrupted):
        fit(a_run("best-robust"), path, stop=once(5))
    with pytest.raises(BadCheckpoint, match="knows epochs up to 1 of 4; run its training again"):
        reselect(read(path), path, "last")
    trained(monkeypatch, RUNS["all differ"][1:])
    kept = fit(a_run("best-robust"), path)
    assert kept.epoch == 2
    with pytest.raises(UnknownName, match="no selection rule is called 'best'"):
        reselect(kept, path, "best")
    trained(monkeypatch, RUNS["all differ"])
    other = tmp_path / "other.safetensors"
    fit(a_run("best-robust", seed=1), other)
    wanted = reselect(kept, path, "best-robust-plus-worst")
    assert wanted.epoch == 3
    foreign = epoch_of(path, 3)
    epoch_of(other, 3).replace(foreign)
    for _ in range(2):
        with pytest.raises(BadCheckpoint, match=r"keeps epoch 3 of .*, whose weights are not in .*run\.epochs/3\.saf"):
            reselect(kept, path, "best-robust-plus-worst")
        foreign.unlink(missing_ok=True)
    epoch_of(path, 4).unlink()
    assert reselect(kept, path, "last").epoch == 4  # older trainings have it in their newest state


def test_a_checkpoint_is_never_written_over_another(path, monkeypatch):
    trained(monkeypatch, RUNS["all differ"])
    kept = fit(a_run(), path)
    before = contents(path)
    write_new(kept, path)
    for place in (path, last_of(path), epoch_of(path, 2)):
        with pytest.raises(BadCheckpoint, match="holds another checkpoint; choose another --out or delete it"):
            write_new(reselect(kept, path, "best-robust"), place)
    assert contents(path) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "schedule.selection=best-robust"),
        (
            "average.judged=true,schedule.epochs=3",
            "average.judged=true,schedule.epochs=3,schedule.selection=best-robust",
        ),
        ("schedule.selection=last,targets.x=1", "schedule.selection=best-robust,targets.x=1"),
    ],
)
def test_the_variant_names_the_rule_as_an_override_would(before, after):
    run = {"variant": before, "schedule": {"selection": "last", "epochs": 3}, "seed": 0}
    assert selected_by("last", run) == run
    wanted = {"variant": after, "schedule": {"selection": "best-robust", "epochs": 3}, "seed": 0}
    assert selected_by("best-robust", run) == wanted


def test_figures_by_hand():
    row = {"epoch": 1, "split": "valid", "n": [10, 5, 5], "hits_clean": [9, 5, 4], "hits_adv": [3, 1, 2]}
    history = [{**row, "split": "train"}, row, {**row, "epoch": 2, "hits_adv": [0, 0, 0]}]
    wanted = {"rule": "best-robust", "epoch": 1, "n": 20, "clean": 0.9, "robust": 0.3, "worst": 0.2, "worst_class": 1}
    assert figures(history, "best-robust") == wanted
    assert figures(history, "last") == {**wanted, "rule": "last", "epoch": 2, "robust": 0, "worst": 0, "worst_class": 0}
