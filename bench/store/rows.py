"""Rows of the tables that are entered as values, and the key of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from bench.fingerprint import fingerprint


@dataclass(frozen=True)
class DatasetRow:
    """A data set as evaluated, mirroring the table `datasets`."""

    dataset_id: str
    name: str
    split: str
    subset: str
    n: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class AttackRow:
    """An attack as run, mirroring the table `attacks`."""

    attack_id: str
    name: str
    norm: str
    eps_exact: str
    eps: float
    lineup: tuple[str, ...]
    spec: str


@dataclass(frozen=True)
class CheckpointRow:
    """Judged weights and what they are, mirroring the table `checkpoints`."""

    checkpoint_id: str
    method: str
    variant: str
    preset: str
    model: str
    trained_on: str
    seed: int | None
    run_id: str | None
    recipe_id: str
    epoch: int | None
    epochs: int | None
    selection: str
    teacher_id: str | None
    recipe: str
    schedule: str
    provenance: str


@dataclass(frozen=True)
class EpochRow:
    """One class in one epoch of a training, mirroring the table `epochs` without its `checkpoint_id`.

    Attributes:
        epoch: after how many epochs, from 1.
        split: "train" or "valid".
        class_: class index; the column `class`.
        n: samples of the class that were looked at.
        hits_clean: correct without attack; None when the method never looked at clean images.
        hits_adv: correct under the training attack; None when it was not run.
    """

    epoch: int
    split: str
    class_: int
    n: int
    hits_clean: int | None
    hits_adv: int | None


def evaluation_key(checkpoint_id: str, dataset_id: str, attack_id: str) -> str:
    """What one evaluation is called in every database: the hash of what was attacked, on what, and how."""
    return fingerprint([checkpoint_id, dataset_id, attack_id])
