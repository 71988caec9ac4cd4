"""A folder with one of each that a user can have: database, bundle, checkpoint, study, images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.cli import run
from bench.study.pool import Inline

from .attempt import tally

STUDY = """
name = "s"
dataset = "digits"
checks = "none"
model = "convnet-2"
eps = "0.15"
attacks = ["fgsm"]
seeds = [0]
n = 20
train_n = 60
epochs = 1
batch_size = 10

[entries.natural]

[entries.rslad]
teacher = "natural"
set = { "objective.natural" = 0.5 }
"""


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as it was made; copy it before anything is done to it."""
    where = tmp_path_factory.mktemp("sound")
    (where / "study.toml").write_text(STUDY)
    np.savez(where / "images.npz", x=np.zeros((20, 3, 8, 8), np.uint8), y=np.arange(20) % 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        train = "train natural --dataset digits --n 60 --model convnet-2 --epochs 1 --eps 0.15"
        judge = "--dataset digits --n 20 --attacks fgsm --checks none --db b.duckdb"
        for command in (
            f"{train} --out at.safetensors",
            f"{train} --seed 1 --out b.safetensors",
            f"evaluate at.safetensors b.safetensors {judge}",
            "export bundle --db b.duckdb",
        ):
            assert run(command.split()) == 0
    return where


@pytest.fixture(scope="session", autouse=True)
def inline() -> Iterator[None]:
    """Studies run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.study.pool.Processes", lambda workers: Inline())
        patch.setenv("MPLBACKEND", "Agg")
        yield


@pytest.fixture(autouse=True)
def counted(record_property: object) -> Iterator[None]:
    """Counts what came of the attempts of each test, for the summary."""
    before = tally.copy()
    yield
    record_property("faults", dict(tally - before))  # type: ignore[operator]
