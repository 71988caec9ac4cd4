"""Verbs that show what there is, with plugins that work and plugins that do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from bench.cli import run
from bench.cli.registries import KINDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed(kind, capsys):
    assert run(["list", kind, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found
    assert all(name and line for name, line in found.items())
    assert run(["list", kind]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in found)


def test_what_the_issue_names_is_there(capsys):
    wanted = {
        "methods": {"natural", "pgd-at", "trades", "rslad", "absld", "adr", "awp"},
        "attacks": {"fgsm", "pgd-sat", "pgd-trades", "cw", "autoattack"},
        "suites": {"smoke", "standard", "full"},
        "datasets": {"digits", "cifar10", "cifar100", "tiny-imagenet", "svhn", "fashion-mnist", "mnist"},
    }
    for kind, names in wanted.items():
        assert run(["list", kind, "--json"]) == 0
        assert names <= set(json.loads(capsys.readouterr().out))


def test_show_tells_slots_schedule_paper_and_teachers(capsys):
    assert run(["show", "rslad+awp", "--dataset", "digits"]) == 0
    said = capsys.readouterr()
    for word in ("RSLAD", "Paper:", "objective", "targets", "schedule", "preset digits", "epochs=40"):
        assert word in said.out
    assert "needs a teacher: --teacher CHECKPOINT" in said.err
    assert run(["show", "rslad+awp", "--dataset", "digits", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["method"], facts["preset"], facts["teachers"]) == ("rslad+awp", "digits", ["teacher"])
    assert facts["schedule"]["eps"] == "3/20"


PLUGIN = '''
"""Doubtful: labels with a constant doubt."""

from dataclasses import dataclass
from bench.api import Method, Stateless, Targets, constant, one_hot


@dataclass(frozen=True)
class Doubtful(Stateless):
    """One-hot labels, softened by a constant."""

    doubt: float = 0.1

    def __call__(self, ctx, batch, state):
        soft = (1 - self.doubt) * one_hot(batch.y, ctx.classes) + self.doubt / ctx.classes
        return Targets(soft, constant(soft))


METHOD = Method(slots={"targets": Doubtful()}, on="pgd-at", module=__name__)
'''


@pytest.fixture
def plugins(tmp_path):
    """A command in whose environment one package registers a method that works and others that do not."""
    about = tmp_path / "somebodys-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        dedent(
            """
            [evenbench.methods]
            doubtful = doubtful_plugin:METHOD
            broken = broken_plugin:METHOD
            missing = no_such_plugin:METHOD
            nonsense = nonsense_plugin:METHOD
            [evenbench.attacks]
            weird = broken_plugin:ATTACK
            """
        )
    )
    (tmp_path / "doubtful_plugin.py").write_text(PLUGIN)
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no [licence] today [/]')")
    (tmp_path / "nonsense_plugin.py").write_text("METHOD = 'no method'")

    def command(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", "from bench.cli import main; main()", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return command


def test_a_plugin_that_cannot_be_imported_is_named_and_the_rest_is_listed(plugins):
    code, out, _ = plugins("list", "methods")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "method 'broken' of somebodys cannot be imported" in lines["broken"]
    assert "ModuleNotFoundError" in out
    assert "labels with a constant doubt" in lines["doubtful"]
    assert "PGD-AT" in lines["pgd-at"]
    assert "cannot be used" in lines["nonsense"]
    code, out, _ = plugins("list", "attacks", "--json")
    assert code == 0
    assert "no [licence] today [/]" in json.loads(out)["weird"]
    assert "FGSM" in json.loads(out)["fgsm"]


def test_asking_for_what_cannot_be_imported_is_one_line(plugins):
    for method, said in (("trades+broken", "of somebodys cannot be imported"), ("nonsense", "registered as str")):
        code, out, err = plugins("train", method, "--dataset", "digits", "--model", "convnet-2")
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert said in err


def test_a_method_of_another_package_trains(plugins, tmp_path):
    arguments = "--dataset digits --n 60 --model convnet-2 --epochs 1 --set targets.doubt=0.3 --out d.safetensors"
    code, out, err = plugins("train", "trades+doubtful", *arguments.split())
    assert (code, out) == (0, "d.safetensors\n"), err
    assert (tmp_path / "d.safetensors").exists()
