"""What an evaluation came to, from the database."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bench.cli.summaries import summarised, tell_evaluations
from bench.outcomes import Outcomes
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow
from bench.verdict import Verdict

BLANK = dict.fromkeys(
    ("variant", "preset", "trained_on", "selection", "recipe", "schedule", "provenance"), ""
) | dict.fromkeys(("seed", "run_id", "epoch", "epochs", "teacher_id"))


@pytest.fixture
def store(tmp_path) -> Store:
    """Ten samples of two classes; 9 right unattacked, 4 under each of two attacks, 3 under both."""
    made = Store(tmp_path / "a.duckdb")
    made.create()
    made.add_dataset(DatasetRow("d", "toys", "test", "", 10, ("cat", "dog")))
    made.add_checkpoint(CheckpointRow(checkpoint_id="c", method="m", model="n", recipe_id="r", **BLANK))
    right = {"clean": range(9), "one": (0, 1, 2, 5), "two": (0, 1, 2, 6), "other": range(5)}
    for name, correct in right.items():
        eps = {"clean": Fraction(0), "other": Fraction(1, 2)}.get(name, Fraction(1, 10))
        norm = {"clean": "none", "other": "L2"}.get(name, "Linf")
        exact = {"clean": "0", "other": "0.5"}.get(name, "0.1")
        made.add_attack(AttackRow(name, name, norm, exact, float(eps), () if name == "clean" else (name,), "{}"))
        label, kept = np.arange(10) // 5, np.isin(np.arange(10), list(correct))
        broken = np.where(kept, 0, 2 if name != "clean" else 1)
        number = made.begin("c", "d", name, 10)
        made.add_chunk(number, Outcomes(np.arange(10), label, np.where(kept, label, 1 - label), np.ones(10), broken))
    made.add_verdicts("c", "d", "Linf", "0.1", [Verdict("sound", 1.0, 2.0, "pass", 10, "fine")])
    made.add_verdicts("c", "d", "Linf", "0.1", [Verdict("odd", 1.0, 2.0, "fail", 10, "not [fine]")])
    return made


def test_the_table_has_the_attacks_in_their_order_and_the_best_known(store):
    found = summarised(store, "a.safetensors", "c", "d", ["clean", "two", "one"])
    table = found.table()
    assert table.title == "a.safetensors on toys test"
    assert table.titles == ("attack", "accuracy %", "worst class %", "NSD")
    assert table.texts == [
        ("clean", "90.00", "80.00 (dog)", "0.111"),
        ("two Linf 0.1", "40.00", "20.00 (dog)", "0.500"),
        ("one Linf 0.1", "40.00", "20.00 (dog)", "0.500"),
        ("best known Linf 0.1, 2 attacks", "30.00", "0.00 (dog)", "1.000"),
    ]


def test_one_attack_is_what_is_best_known(store):
    found = summarised(store, "a", "c", "d", ["clean", "other"])
    assert [row[0] for row in found.table().texts] == ["clean", "other L2 0.5"]
    assert found.checks == []


def test_checks_that_do_not_pass_are_told(store, capsys):
    tell_evaluations([summarised(store, "a", "c", "d", ["clean", "one"])], Path("b.duckdb"), as_json=False)
    said = capsys.readouterr().out
    assert "a on toys test" in said
    assert "check odd: fail, not [fine]" in said
    assert "sound" not in said
    assert "stored in b.duckdb; 'evenbench leaderboard --db b.duckdb' shows it" in said


def test_json_has_all_figures(store, capsys):
    tell_evaluations([summarised(store, "a", "c", "d", ["clean", "one"])], Path("b.duckdb"), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["database"] == "b.duckdb"
    (only,) = told["evaluations"]
    assert (only["target"], only["checkpoint_id"], only["data"]) == ("a", "c", "toys test")
    assert only["attacks"][1] == {
        "attack": "one",
        "norm": "Linf",
        "eps_exact": "0.1",
        "n": 10,
        "accuracy": pytest.approx(0.4),
        "worst_class": "dog",
        "worst_accuracy": pytest.approx(0.2),
        "nsd": pytest.approx(0.5),
    }
    assert only["best_known"][0]["attacks"] == 2
    assert {check["name"]: check["verdict"] for check in only["checks"]} == {"sound": "pass", "odd": "fail"}
