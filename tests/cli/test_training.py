"""Verbs that make, through the command: train, select, evaluate, run, demo."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.cli.making import attack_names

from bench.cli import run
from bench.data.load import load
from bench.store.database import Store
from bench.study import file as study
from bench.study import runner
from bench.training.checkpoint import read
from bench.verdict import Verdict

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
TRAIN = ["train", "pgd-at", "--dataset", "digits", "--n", "60", "--model", "convnet-2", "--epochs", "1"]
BARE = ["--dataset", "digits", "--n", "20", "--db", "b.duckdb", "--checks", "none"]
JUDGE = [*BARE, "--attacks", "fgsm"]


class Inline:
    """A pool that does each unit where it is handed out."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def progress(self) -> dict[int, float]:
        return {}

    def submit(self, key: int, unit: Any, *, saves: bool = False) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(unit.run(lambda share: None, lambda: False))
        except Exception as problem:
            future.set_exception(problem)
        return future


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "Pool", Inline)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file of a training for eps 0.15."""
    path = tmp_path_factory.mktemp("trained") / "at.safetensors"
    assert run([*TRAIN, "--out", str(path), "--eps", "0.15"]) == 0
    return path


@pytest.fixture
def trained(checkpoint, here, capsys):
    """The same in the working folder."""
    shutil.copy(checkpoint, here)
    capsys.readouterr()
    return "at.safetensors"


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


def test_evaluate_stores_what_the_database_lacks_and_defaults_to_the_trained_eps(capsys):
    Path("model.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "    [nn.init.constant_(p, 0.1) for p in net.parameters()]\n"
        "    return net\n"
    )
    assert run([*TRAIN, "--out", "at.safetensors", "--eps", "0.1"]) == 0
    assert run(["evaluate", "at.safetensors", "model.py:make", *JUDGE]) == 0
    assert "'evenbench leaderboard --db b.duckdb' shows it" in capsys.readouterr().out
    store = Store(Path("b.duckdb"))
    summary = "SELECT method, attack, eps, n FROM summary ORDER BY ALL"
    assert store.rows(summary) == [
        ("model.py:make", "clean", 0.0, 20),
        ("model.py:make", "fgsm", 8 / 255, 20),
        ("pgd-at", "clean", 0.0, 20),
        ("pgd-at", "fgsm", 0.1, 20),
    ]
    chunks = store.rows("SELECT count(*) FROM chunks")
    assert run(["evaluate", "at.safetensors", *JUDGE]) == 0
    assert "passes ahead" not in capsys.readouterr().err
    assert store.rows("SELECT count(*) FROM chunks") == chunks
    assert run(["evaluate", "at.safetensors", *JUDGE, "--eps", "8/255"]) == 0
    assert len(store.rows(summary)) == 5


def test_evaluate_tells_what_it_will_cost_and_what_came_out(trained, capsys):
    assert run(["evaluate", trained, *JUDGE]) == 0
    said = capsys.readouterr()
    assert "forward passes ahead, about" in said.err
    assert "at.safetensors on digits test (n=20,seed=0)" in said.out
    assert run(["evaluate", trained, *JUDGE, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (only,) = told["evaluations"]
    figures = {entry["attack"]: entry["accuracy"] for entry in only["attacks"]}
    query = "SELECT attack, accuracy FROM summary"
    assert figures == dict(Store(Path("b.duckdb")).rows(query))
    assert list(figures) == ["clean", "fgsm"]


def test_a_model_that_answers_at_random_is_attacked_in_expectation_and_judged_by_votes(capsys):
    Path("model.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Noisy(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.flatten(1) + 0.1 * torch.randn_like(x.flatten(1)))\n"
        "def make(): return Noisy(64, 10)\n"
    )
    attacks = "SELECT DISTINCT attack FROM summary ORDER BY ALL"
    assert run(["evaluate", "model.py:make", *JUDGE]) == 0
    assert "answers at random: attacked in expectation over 20, judged by 10 votes" in capsys.readouterr().err
    assert Store(Path("b.duckdb")).rows(attacks) == [("clean",), ("fgsm-eot20-votes10",)]
    assert run(["evaluate", "model.py:make", *JUDGE, "--eot", "2"]) == 0
    assert ("fgsm-eot2",) in Store(Path("b.duckdb")).rows(attacks)


def test_evidence_is_judged_alone_and_counts_in_what_is_best_known(trained, capsys):
    assert run(["evaluate", trained, *BARE, "--attacks", "pgd-sat", "--keep-adversarials", "kept"]) == 0
    (place,) = Path("kept").glob("*/pgd-sat-*")
    capsys.readouterr()
    other = ["--dataset", "digits", "--n", "20", "--db", "c.duckdb", "--checks", "none"]
    assert run(["evaluate", trained, *other, "--adversarials", str(place), "--json"]) == 0
    said = capsys.readouterr()
    assert f"evidence:{place.name} covers" in said.err
    attack = "SELECT accuracy FROM summary WHERE attack = 'pgd-sat'"
    (evidence,) = json.loads(said.out)["evaluations"]
    assert [entry["attack"] for entry in evidence["attacks"]] == ["clean", f"evidence:{place.name}"]
    assert [(evidence["attacks"][1]["accuracy"],)] == Store(Path("b.duckdb")).rows(attack)
    assert evidence["best_known"][0]["accuracy"] == evidence["attacks"][1]["accuracy"]
    assert run(["evaluate", trained, *JUDGE, "--adversarials", str(place)]) == 0
    assert "best known Linf 0.15, 3 attacks" in capsys.readouterr().out


def test_evidence_that_cheats_is_refused_with_file_and_sample(trained, capsys):
    images = load("digits").take(20, 0)
    np.save("far.npy", np.clip(images.pixels / 255 + 0.2, 0, 1))
    capsys.readouterr()
    assert run(["evaluate", trained, *BARE, "--adversarials", "far.npy"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "attack 'evidence:far' moved sample" in last
    assert run(["evaluate", trained, *BARE, "--adversarials", "none.npy"]) == 2
    assert "no adversarial images at none.npy" in capsys.readouterr().err


def test_images_that_an_earlier_run_threw_away_are_remarked_on(trained, capsys):
    keep = [*JUDGE, "--keep-adversarials", "kept"]
    assert run(["evaluate", trained, *JUDGE]) == 0
    assert run(["evaluate", trained, *keep]) == 0
    assert "fgsm: the images of 20 samples were found earlier and not kept" in capsys.readouterr().err
    assert not Path("kept").exists()


def test_checks_follow_the_attacks_and_are_told(trained, capsys, monkeypatch):
    asked = []

    def run_checks(network, images, *, which, **options):
        asked.append(which)
        yield Verdict("odd", 1.0, 0.0, "fail", 20, "looks odd")

    monkeypatch.setattr("bench.soundness.examination.run_checks", run_checks)
    attack = [*BARE[:-2], "--attacks", "fgsm"]
    assert run(["evaluate", trained, *attack]) == 0
    assert "check odd: fail, looks odd" in capsys.readouterr().out
    assert run(["evaluate", trained, *attack]) == 0
    assert asked == ["default"]
    assert run(["evaluate", trained, *attack, "--checks", "all"]) == 0
    assert asked == ["default", "all"]
    assert run(["evaluate", trained, *attack, "--checks", "some"]) == 2


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("fgsm, cw", ["fgsm", "cw"]),
        ("a:B(x=(1,2),y=[3,4]),c:D(z=1),e", ["a:B(x=(1,2),y=[3,4])", "c:D(z=1)", "e"]),
        ("", [""]),
    ],
)
def test_attacks_are_parted_at_commas_outside_brackets(given, names):
    assert attack_names(given) == names


def test_a_wrong_target_among_several_is_told_before_any_work(capsys):
    assert run([*TRAIN, "--out", "at.safetensors"]) == 0
    capsys.readouterr()
    assert run(["evaluate", "at.safetensors", "none.safetensors", *JUDGE]) == 2
    assert "no checkpoint at none.safetensors" in capsys.readouterr().err
    assert not Path("b.duckdb").exists()


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
        "figures",
        "leaderboard.html",
        "leaderboard.md",
    }
    (place / "mine.txt").write_text("keep")
    monkeypatch.setattr("bench.cli.making.publish", lambda cells, place, quiet: [])
    assert run(["demo"]) == 0
    assert "0 trained" in capsys.readouterr().err
    assert run(["demo", "--fresh"]) == 0
    assert "2 trained" in capsys.readouterr().err
    assert (place / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("verb", ["evaluate", "run"])
def test_ctrl_c_is_130_and_says_how_to_go_on(monkeypatch, capsys, verb):
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.study.record.record", pressed)
    monkeypatch.setattr("bench.study.runner.run_study", pressed)
    Path("s.toml").write_text(STUDY)
    Path("model.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    arguments = {"evaluate": ["evaluate", "model.py:make", *JUDGE], "run": ["run", "s.toml", "--db", "b.duckdb"]}
    assert run(arguments[verb]) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
