"""What only reads starts without torch, whoever calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.outcomes import Outcomes
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow

ROOT = Path(__file__).parents[1]
DRIVER = """
import sys
from bench.cli import run
code = run(sys.argv[2:])
loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
sys.stderr.write(f"code={code} loaded={loaded}")
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("startup") / "b.duckdb")
    store.create()
    store.add_dataset(DatasetRow("d", "digits", "test", "", 20, ("a", "b")))
    label = np.arange(20) % 2
    for attack, norm, eps in (("clean", "none", 0.0), ("fgsm", "Linf", 0.15)):
        store.add_attack(AttackRow(attack, attack, norm, str(eps), eps, (attack,) if eps else (), "{}"))
    for number, method in enumerate(("one", "two")):
        row = (f"id-{method}", method, "", "p", "m", "digits", 0, f"run{number}", f"r{number}", 1, 1, "last", None)
        store.add_checkpoint(CheckpointRow(*row, "{}", "{}", "{}"))
        for attack in ("clean", "fgsm"):
            predicted = np.where(np.arange(20) < 15 + number, label, 1 - label)
            broken = np.where(predicted == label, 0, 1)
            evaluation = store.begin(f"id-{method}", "d", attack, 20)
            store.add_chunk(evaluation, Outcomes(np.arange(20), label, predicted, np.full(20, 0.9), broken))
    return store.path


def loaded(forbidden: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, forbidden, *arguments],
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.rpartition("code=")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["leaderboard"],
        ["leaderboard", "--format", "html"],
        ["compare", "one", "two"],
        ["check", "two", "--against", "one"],
        ["sql", "SELECT * FROM summary"],
    ],
    ids=" ".join,
)
def test_reading_imports_no_torch(database, arguments):
    assert loaded("torch,sklearn,methods", *arguments, "--db", str(database)) == "0 loaded=[]"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["run", "--help"], ["train", "--help"]], ids=" ".join)
def test_help_imports_hardly_anything(arguments):
    assert loaded("torch,pandas,duckdb,numpy,matplotlib,scipy,jinja2", *arguments) == "0 loaded=[]"


@pytest.mark.parametrize("kind", ["methods", "suites", "datasets"])
def test_wrong_names_are_told_without_pandas_or_matplotlib(kind):
    assert loaded("pandas,matplotlib,scipy", "list", kind).endswith("loaded=[]")
