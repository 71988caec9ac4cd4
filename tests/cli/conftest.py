"""What tests of the command share: a folder of their own, and a small training in it."""

from __future__ import annotations

import shutil

import pytest

from bench.cli import run
from bench.study.pool import Inline

from .given import TRAIN


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own; studies run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.study.pool.Processes", lambda workers: Inline())
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


@pytest.fixture(scope="session")
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
