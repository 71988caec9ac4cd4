from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from bench.attacks.trial import plan
from bench.data.load import load
from bench.errors import BadData, DiskFull
from bench.evaluation.adversarials import RECORD, Keeper

_, TRIAL = plan(["pgd-sat"], eps=Fraction(8, 255), batch_size=8)


@pytest.fixture
def keeper(tmp_path):
    return Keeper.of(tmp_path / "kept", load("digits").take(20, 0), "0123456789abcdef")


def content(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[RECORD])  # noqa: SIM118  # no mapping


def test_a_chunk_is_a_file_that_says_what_it_is(keeper):
    delta = torch.arange(3 * 64, dtype=torch.float32).reshape(3, 1, 8, 8)
    keeper(TRIAL, np.array([40, 7, 12], np.uint32), delta)
    (path,) = keeper.folder.rglob("*.*")
    assert path.relative_to(keeper.folder).as_posix() == (
        f"0123456789abcdef/pgd-sat-{TRIAL.attack_id}/00000007.safetensors"
    )
    tensors, record = content(path)
    assert tensors["sample"].tolist() == [40, 7, 12]
    assert torch.equal(tensors["delta"], delta)
    assert record == {
        "format": 1,
        "dataset": "digits",
        "split": "test",
        "dataset_id": keeper.dataset_id,
        "checkpoint_id": "0123456789abcdef",
        "attack": "pgd-sat",
        "attack_id": TRIAL.attack_id,
        "spec": dict(TRIAL.spec),
        "norm": "Linf",
        "eps": "8/255",
    }


def test_a_name_with_brackets_makes_a_folder_without():
    trial = replace(TRIAL, name="torchattacks:PGD(alpha=0.1,steps=2)")
    place = Keeper.of(Path("k"), load("digits"), "c").place(trial)
    assert place.as_posix() == f"k/c/torchattacks-PGD-alpha=0.1-steps=2-{trial.attack_id}"


def test_a_chunk_that_is_done_again_replaces_its_file_and_what_a_kill_left(keeper):
    place = keeper.place(TRIAL)
    place.mkdir(parents=True)
    (place / "00000003.safetensors.4194305.7.partial").write_bytes(b"half a file")
    for value in (1.0, 2.0):
        keeper(TRIAL, np.array([3], np.uint32), torch.full((1, 1, 8, 8), value))
    (path,) = place.iterdir()
    assert content(path)[0]["delta"].unique().tolist() == [2.0]


def test_a_full_disk_and_a_place_that_cannot_be_written(keeper, monkeypatch, tmp_path):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    sample, delta = np.array([3], np.uint32), torch.zeros(1, 1, 8, 8)
    (tmp_path / "file").touch()
    with pytest.raises(BadData, match=r"cannot be written .*; choose another --keep-adversarials"):
        replace(keeper, folder=tmp_path / "file")(TRIAL, sample, delta)
    keeper(TRIAL, sample, delta)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DiskFull, match=r"no space left to write .*00000003\.safetensors"):
        keeper(TRIAL, sample, delta + 1)
    (path,) = keeper.place(TRIAL).iterdir()
    assert torch.equal(content(path)[0]["delta"], delta)
