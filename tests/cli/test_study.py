"""Verbs that run studies, through the command: run, demo."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli import run
from bench.cli.fresh import SAID
from bench.errors import BadStore
from bench.store.database import Store
from bench.study import file as study

from .given import JUDGE

pytestmark = pytest.mark.usefixtures("here")

STUDY = """
name = "making"
dataset = "digits"
model = "convnet-2"
eps = "0.15"
attacks = ["fgsm"]
n = 30
train_n = 100
epochs = 1
[entries.natural]
[entries.pgd-at]
"""


def test_run_does_a_study_and_publishes_it(capsys):
    Path("s.toml").write_text(STUDY)
    arguments = ["run", "s.toml", "--db", "b.duckdb", "--out", "out"]
    assert run([*arguments, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [row["cell"] for row in plan] == ["natural (seed 0)", "pgd-at (seed 0)"]
    assert {row["training"] for row in plan} == {"to train"}
    assert run([*arguments, "--dry-run"]) == 0
    assert "2 attacks x 30 images" in capsys.readouterr().out
    assert [path.name for path in Path().iterdir()] == ["s.toml"]

    assert run(arguments) == 0
    said = capsys.readouterr()
    assert "2 trained, 4 chunks judged, 2 checked now" in said.err
    assert "fgsm" in said.out
    written = [line.removeprefix("wrote ") for line in said.out.splitlines() if line.startswith("wrote ")]
    assert {"b.duckdb", "out/leaderboard.md", "out/leaderboard.html"} < set(written)
    assert all(Path(path).stat().st_size for path in written)
    pages = [Path(path).read_bytes() for path in written if path != "b.duckdb"]

    assert run(arguments) == 0
    assert "0 trained, 0 chunks judged, 0 checked now" in capsys.readouterr().err
    assert [Path(path).read_bytes() for path in written if path != "b.duckdb"] == pages

    assert run([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["trained"], report["judged"], report["failures"]) == (0, 0, [])
    assert set(report["files"]) == {path for path in written if path != "b.duckdb"}


def test_a_failed_cell_makes_the_exit_code_1_and_the_others_are_done(capsys):
    bad = '\n[entries.mad]\nmethod = "natural"\nset = { "schedule.lr" = 1e38, "schedule.batch_size" = 16 }\n'
    Path("s.toml").write_text(STUDY.replace("[entries.pgd-at]", bad))
    assert run(["run", "s.toml", "--db", "b.duckdb", "--out", "out"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("failed: mad (seed 0): the loss became NaN")
    assert Store(Path("b.duckdb")).rows("SELECT DISTINCT variant FROM summary") == [("schedule.epochs=1",)]


def test_boards_that_cannot_be_read_in_the_end_are_not_exit_0(monkeypatch, capsys):
    def damaged(*_: object, **__: object) -> None:
        raise BadStore("b.duckdb is damaged")

    Path("s.toml").write_text(STUDY)
    monkeypatch.setattr("bench.report.leaderboard.boards", damaged)
    assert run(["run", "s.toml", "--db", "b.duckdb", "--out", "out"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "evenbench: b.duckdb is damaged"


def test_a_study_that_judges_nothing_needs_no_boards(capsys):
    Path("s.toml").write_text(STUDY.partition("[entries")[0] + "[entries.natural]\nevaluate = false\n")
    assert run(["run", "s.toml", "--db", "b.duckdb", "--out", "out"]) == 0
    assert "no network of this study was judged" in capsys.readouterr().err


def test_a_study_on_a_device_that_is_not_there(capsys):
    Path("s.toml").write_text(STUDY.replace("epochs = 1", 'epochs = 1\ndevice = "cuda:77"'))
    assert run(["run", "s.toml", "--db", "b.duckdb", "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert "device 'cuda:77' cannot be used" in said
    assert len(said.splitlines()) == 1


def test_demo_is_a_study_and_fresh_starts_over(monkeypatch, capsys):
    load = study.load_study
    asked = []

    def smaller(path: Path) -> study.Study:
        asked.append(path.name)
        whole = load(path)
        entries = {name: whole.entries[name] for name in ("natural", "pgd-at")}
        return replace(whole, entries=entries, attacks=["fgsm"], n=30, train_n=100, epochs=1)

    monkeypatch.setattr(study, "load_study", smaller)
    assert run(["demo"]) == 0
    assert asked == ["demo.toml"]
    assert "2 trained" in capsys.readouterr().err
    place = Path("results/demo")
    assert {path.name for path in place.iterdir()} == {
        "bench.duckdb",
        "checkpoints",
        "demo.txt",
        "figures",
        "leaderboard.html",
        "leaderboard.md",
    }
    mine = [place / "mine.txt", place / "figures" / "mine.png", place / "checkpoints" / "mine.safetensors"]
    for path in mine:
        path.write_text("keep")
    monkeypatch.setattr("bench.cli.study.publish", lambda agenda, place, quiet: [])
    assert run(["demo"]) == 0
    assert "0 trained" in capsys.readouterr().err
    assert run(["demo", "--fresh"]) == 0
    assert "2 trained" in capsys.readouterr().err
    assert [path.read_text() for path in mine] == ["keep"] * 3


@pytest.mark.parametrize("marked", [True, False])
def test_fresh_removes_nothing_where_it_refuses(capsys, marked):
    place = Path("demo")
    kept = [place / name for name in ("checkpoints/at-s0-0123abcd.safetensors", "figures/x.png", "bench.duckdb")]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    if marked:
        (place / "demo.txt").write_text(SAID)
    assert run(["demo", "--fresh", "--out", "demo", *(["--workers", "-1"] if marked else [])]) == 2
    assert ("--workers -1" if marked else "has no demo.txt") in capsys.readouterr().err
    assert [path.read_text() for path in kept] == ["mine"] * 3


def test_a_board_of_somebody_else_is_noticed_before_the_study_is_run(capsys):
    Path("s.toml").write_text(STUDY)
    Path("out").mkdir()
    Path("out/leaderboard.md").write_text("# My own\n")
    assert run(["run", "s.toml", "--db", "b.duckdb", "--out", "out"]) == 2
    assert "--force" in capsys.readouterr().err
    assert not Path("b.duckdb").exists()


@pytest.mark.parametrize("verb", ["evaluate", "run"])
def test_ctrl_c_is_130_and_says_how_to_go_on(monkeypatch, capsys, verb):
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.study.runner.run_study", pressed)
    Path("s.toml").write_text(STUDY)
    Path("model.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    arguments = {"evaluate": ["evaluate", "model.py:make", *JUDGE], "run": ["run", "s.toml", "--db", "b.duckdb"]}
    assert run(arguments[verb]) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
