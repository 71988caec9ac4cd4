"""What SECURITY.md says: each sentence names a test that is there, and what no other test holds is tried here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bench.cli import run

ROOT = Path(__file__).parents[2]
SENTENCES = re.findall(r"^\|[^|]*\| ([^|]+\.) \| `([^`|]+)` \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
STUDY = """
name = "s"
dataset = "digits"
model = "convnet-2"
attacks = ["fgsm"]
n = 20
train_n = 60
epochs = 1
[entries.natural]
"""
CODE = """
from pathlib import Path
Path("ran").touch()
from torch import nn
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_every_sentence_is_read():
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("|")]
    assert len(SENTENCES) == len(rows) - 4 >= 15  # two tables, each with a head and a rule


@pytest.mark.parametrize("held_by", sorted({test for _, test in SENTENCES}))
def test_what_holds_a_sentence_is_there(held_by):
    path, _, name = held_by.partition("::")
    tests = ast.parse((ROOT / path).read_text()).body
    assert name in {test.name for test in tests if isinstance(test, ast.FunctionDef)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        ('"convnet-2"', '"mine.py:make"'),
        ('"digits"', '"mine.py"'),
        ('"fgsm"', '"mine.py:make"'),
        ("[entries.natural]", "[entries.x]\nmethod = 'mine.py:make'"),
        ("[entries.natural]", "[entries.rslad]\nteacher = 'mine.py:make'"),
        ("[entries.natural]", "[entries.rslad]\nteacher = 'mine.py@convnet-2'"),
        ("[entries.natural]", "[entries.natural]\nset = {'objective.inner' = 'mine.py:make'}"),
    ],
)
def test_no_name_in_a_study_runs_a_file(here, change):
    (here / "study.toml").write_text(STUDY.replace(*change))
    assert run(["run", "study.toml", "--db", "b.duckdb", "--workers", "1"]) in (1, 2)
    assert not (here / "ran").exists()


def test_naming_a_python_file_runs_it(here):
    judge = ["evaluate", "mine.py:make", "--dataset", "digits", "--n", "20", "--attacks", "fgsm", "--checks", "none"]
    assert run([*judge, "--db", "b.duckdb"]) == 0
    assert (here / "ran").exists()
