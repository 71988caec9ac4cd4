"""What tests of the command share: a folder of their own, and a small training in it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from bench.cli import run
from bench.fingerprint import canonical, fingerprint
from bench.outcomes import Outcomes
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow, EpochRow
from bench.study.pool import Inline

from .given import TRAIN

N, CLASSES = 200, 4


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


@pytest.fixture
def db(tmp_path, monkeypatch):
    """Three methods on 200 samples: good is right on 180 of them, bad on 90, other on the same as good."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "b.duckdb")
    store.create()
    store.add_dataset(DatasetRow("d", "digits", "test", "", N, ("ape", "bee", "cat", "dog")))
    clean, fgsm = {"attack": None}, {"attack": {"is": "fgsm"}, "norm": "Linf", "eps": "3/20"}
    store.add_attack(AttackRow(fingerprint(clean), "clean", "none", "0", 0.0, (), canonical(clean)))
    store.add_attack(AttackRow(fingerprint(fgsm), "fgsm", "Linf", "0.15", 0.15, ("fgsm",), canonical(fgsm)))
    label = np.arange(N) % CLASSES
    for number, (method, right) in enumerate({"good": 180, "bad": 90, "other": 180}.items()):
        row = (f"id-{method}", method, "", "p", "m", "digits", 0, f"run{number}", f"r{number}", 2, 2, "last", None)
        epochs = [EpochRow(e, s, k, 50, 10 * e, 9 * e) for e in (1, 2) for s in ("train", "valid") for k in range(4)]
        store.add_checkpoint(CheckpointRow(*row, "{}", "{}", "{}"), epochs)
        for attack in (clean, fgsm):
            predicted = np.where(np.arange(N) < right, label, (label + 1) % CLASSES)
            broken = np.where(predicted == label, 0, 1)
            evaluation = store.begin(f"id-{method}", "d", fingerprint(attack), N)
            store.add_chunk(evaluation, Outcomes(np.arange(N), label, predicted, np.full(N, 0.9), broken))
    return str(store.path)
