"""The command itself: help for everybody, one line for every mistake, and honest exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from bench.cli import run
from bench.cli.command import app

ROOT = Path(__file__).parents[2]
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group of verbs


def test_the_verbs_are_those_of_the_design():
    wanted = {"demo", "list", "show", "train", "select", "evaluate", "run"}
    wanted |= {"leaderboard", "plot", "compare", "check", "soundness", "export", "import", "sql"}
    assert set(VERBS) == wanted | {"checks"}  # the old spelling of soundness


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_and_option_has_help_with_an_example(verb, capsys):
    assert run([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"Example:\s+evenbench {verb}", shown), shown
    for parameter in VERBS[verb].params:
        assert getattr(parameter, "help", None), f"{verb} {parameter.name} has no help"


def test_the_short_form_of_help_and_no_arguments_at_all(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for arguments in (["-h"], []):
        assert run(arguments) == 0
        assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'"),
        (["list"], "Missing argument 'kind'"),
        (["list", "methods", "--jsn"], "No such option: --jsn"),
        (["list", "methods", "more"], "more"),
        (["train", "pgd-at", "--model", "convnet-2"], "Missing option '--dataset'"),
        (["train", "pgd-at", "--dataset", "digits", "--model", "convnet-2", "--epochs", "ten"], "'--epochs'"),
        (["train", "pgd-at", "--dataset", "digits", "--model", "convnet-2", "--seed", "-1"], "'--seed'"),
        (["check", "a"], "Missing option '--against'"),
        (["select", "at.safetensors"], "Missing option '--rule'"),
    ],
)
def test_a_wrong_command_line_is_one_line_with_the_way_to_help(arguments, said, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
    assert "--help' shows how it is used" in err


def test_ctrl_c_anywhere_is_130(monkeypatch, capsys):
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.store.database.Store.shown", pressed)
    assert run(["sql", "SELECT 1"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("bench.report.leaderboard.boards", lambda *_, **__: [])
    assert run(["leaderboard", "--format", "json", "--out", "/dev/full"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "no space left" in err


def test_output_into_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f'"{sys.executable}" -c "from bench.cli import main; main()" show trades | head -n 1; echo ${{PIPESTATUS[0]}}',
        shell=True,
        executable="/bin/bash",
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
