"""Verbs that train, through the command: train, select."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import run
from bench.store.database import Store
from bench.training.checkpoint import read

from .given import JUDGE, TRAIN

pytestmark = pytest.mark.usefixtures("here")


def test_train_prints_the_file_it_wrote(capsys):
    assert run([*TRAIN, "--out", "new/at.safetensors", "--seed", "3", "--set", "objective.inner.steps=2"]) == 0
    said = capsys.readouterr()
    assert said.out == "new/at.safetensors\n"
    assert "epoch 1 of 1" in said.err
    held = read(Path("new/at.safetensors"))
    assert (held.run["method"], held.run["seed"]) == ("pgd-at", 3)
    assert held.run["variant"] == "objective.inner.steps=2,schedule.epochs=1"
    before = Path("new/at.safetensors").read_bytes()
    assert run([*TRAIN, "--out", "new/at.safetensors", "--seed", "3", "--set", "objective.inner.steps=2"]) == 0
    assert Path("new/at.safetensors").read_bytes() == before


def test_train_finds_a_name_of_its_own_and_takes_a_teacher(capsys):
    assert run([*TRAIN, "--eps", "8/255", "--precision", "fp32"]) == 0
    teacher = capsys.readouterr().out.strip()
    assert teacher.startswith("results/checkpoints/pgd-at-digits-convnet-2-s0-")
    assert read(Path(teacher)).run["schedule"]["eps"] == "8/255"
    for given in (teacher, f"teacher={teacher}"):
        assert run(["train", "rslad", *TRAIN[2:], "--teacher", given, "--out", "r.safetensors"]) == 0
    parent = read(Path("r.safetensors")).run["teachers"]["teacher"]
    assert parent["checkpoint_id"] == read(Path(teacher)).checkpoint_id


def test_select_gives_what_training_under_the_rule_would_have_kept(capsys):
    long = [*TRAIN[:-1], "4", "--eps", "0.15"]
    assert run([*long, "--out", "at.safetensors"]) == 0
    assert run([*long, "--out", "wanted.safetensors", "--set", "schedule.selection=best-robust"]) == 0
    wanted = read(Path("wanted.safetensors"))
    capsys.readouterr()
    for _ in range(2):  # the second time it is there
        assert run(["select", "at.safetensors", "--rule", "best-robust", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["file"], told["checkpoint_id"]) == ("at-best-robust.safetensors", wanted.checkpoint_id)
    assert read(Path(told["file"])).history == wanted.history
    assert (told["chosen"]["rule"], told["chosen"]["epoch"]) == ("best-robust", wanted.epoch)
    assert (told["kept"]["rule"], told["kept"]["epoch"]) == ("last", 4)
    assert told["chosen"]["robust"] >= told["kept"]["robust"]
    assert run(["select", "at.safetensors", "--rule", "best-robust", "--out", "new/mine.safetensors"]) == 0
    shown = capsys.readouterr().out
    assert "at.safetensors on 10 held-out images" in shown
    assert f"epoch {wanted.epoch} is in new/mine.safetensors; 'evenbench evaluate new/mine.safetensors" in shown
    (figures,) = [line.split() for line in shown.splitlines() if line.split()[:1] == ["best-robust"]]
    assert figures[1:4] == [str(wanted.epoch), *(f"{100 * told['chosen'][key]:.2f}" for key in ("clean", "robust"))]
    assert run(["evaluate", "new/mine.safetensors", *JUDGE]) == 0
    kept = Store(Path("b.duckdb")).rows("SELECT checkpoint_id, selection, epoch, variant FROM checkpoints")
    variant = "schedule.epochs=4,schedule.selection=best-robust"
    assert kept == [(wanted.checkpoint_id, "best-robust", wanted.epoch, variant)]


def test_select_by_the_rule_of_the_training_points_to_its_own_file(trained, capsys):
    before = sorted(Path().iterdir())
    assert run(["select", trained, "--rule", "last"]) == 0
    shown = capsys.readouterr().out
    assert "epoch 1 is in at.safetensors;" in shown
    assert len([line for line in shown.splitlines() if line.split()[:2] == ["last", "1"]]) == 1
    assert sorted(Path().iterdir()) == before
