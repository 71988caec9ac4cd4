"""The verb that evaluates, through the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.cli import run
from bench.cli.evaluation import attack_names
from bench.data.load import load
from bench.store.database import Store
from bench.verdict import Verdict

from .given import BARE, JUDGE, TRAIN

pytestmark = pytest.mark.usefixtures("here")


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
    assert capsys.readouterr().err.splitlines() == ["100% done, 0:00:00 left"]
    assert store.rows("SELECT count(*) FROM chunks") == chunks
    assert run(["evaluate", "at.safetensors", *JUDGE, "--eps", "8/255"]) == 0
    assert len(store.rows(summary)) == 5


def test_evaluate_tells_how_far_it_is_and_what_came_out(trained, capsys):
    assert run(["evaluate", trained, *JUDGE]) == 0
    said = capsys.readouterr()
    assert " done, " in said.err
    assert said.err.splitlines()[-1] == "100% done, 0:00:00 left"
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
