"""A training run as a value: what determines it, and the hash by which it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from bench.data.images import Images
from bench.errors import BadCheckpoint, BadRecipe
from bench.fingerprint import fingerprint
from bench.models.architecture import Architecture, load_state
from bench.models.foreign import read_foreign
from bench.training.checkpoint import read
from bench.training.method import Plan
from bench.training.recipe import as_json

START = "start"
"""The role of a parent whose weights a training starts from; it does not teach."""
VERSION = 1
"""Of the training procedure; raised when the same run would train to something else."""


@dataclass(frozen=True)
class Parent:
    """A trained network that a training needs: a teacher, or the one that it starts from.

    Attributes:
        checkpoint_id: hash of its weights.
        recipe_id: hash of its training without the seed; of the weights for a foreign network.
        path: its file.
        architecture: of a foreign state dict; None for a checkpoint, which knows its own.
    """

    checkpoint_id: str
    recipe_id: str
    path: Path
    architecture: Architecture | None = None

    def built_as(self) -> Architecture:
        """What its network is.

        Raises:
            BadCheckpoint: the file is missing or damaged.
        """
        return self.architecture or read(self.path).architecture

    def network(self) -> nn.Module:
        """The network in eval mode, frozen.

        Raises:
            BadCheckpoint: the file is missing, damaged, or no longer what it was.
        """
        if self.architecture is not None:
            return load_state(self.architecture, read_foreign(self.path)).eval().requires_grad_(False)
        checkpoint = read(self.path)
        if checkpoint.checkpoint_id != self.checkpoint_id:
            raise BadCheckpoint(f"{self.path} holds {checkpoint.checkpoint_id}, not the teacher {self.checkpoint_id}")
        return checkpoint.network()


@dataclass(frozen=True)
class Run:
    """All that determines one training.

    Attributes:
        plan: recipe and schedule.
        architecture: the network.
        images: the training split, before anything is held out.
        seed: of the initial weights and of every random choice.
        teachers: by role; the one it starts from too.
    """

    plan: Plan
    architecture: Architecture
    images: Images
    seed: int
    teachers: Mapping[str, Parent]

    def __post_init__(self) -> None:
        """Every teacher that the plan needs is there, and no other.

        Raises:
            BadRecipe: a role is empty, or a teacher is given that no slot asks for.
        """
        for role in self.plan.teachers:
            if role not in self.teachers:
                raise BadRecipe(f"{self.plan.method!r} needs a {role}; name its checkpoint with --teacher {role}=FILE")
        for role in self.teachers:
            if role not in self.plan.teachers:
                raise BadRecipe(f"{self.plan.method!r} has no use for a {role}; leave it out")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """JSON of everything that determines the result."""
        plan = self.plan
        return {
            "version": VERSION,
            "method": plan.method,
            "preset": plan.preset,
            "variant": plan.variant,
            "recipe": as_json(plan.recipe),
            "schedule": as_json(plan.schedule),
            "architecture": as_json(self.architecture),
            "data": {"name": self.images.name, "dataset_id": self.images.dataset_id},
            "seed": self.seed,
            "teachers": {
                role: {"checkpoint_id": parent.checkpoint_id, "recipe_id": parent.recipe_id}
                for role, parent in sorted(self.teachers.items())
            },
        }

    @property
    def run_id(self) -> str:
        """Hash of the identity."""
        return fingerprint(self.identity)


def recipe_id(identity: Mapping[str, Any]) -> str:
    """Hash of a run's identity without its seed and without its teachers' seeds."""
    teachers = {role: parent["recipe_id"] for role, parent in identity["teachers"].items()}
    return fingerprint({**identity, "seed": None, "teachers": teachers})


def prepare(plan: Plan, images: Images, model: str, seed: int, teachers: Mapping[str, Parent]) -> Run:
    """A run on a training split: the named network, fitted to the images.

    Raises:
        UnknownName: no such network.
        BadRecipe: the teachers do not fit the plan.
    """
    architecture = Architecture(model, images.classes, images.shape[0])
    if plan.schedule.normalize:
        mean, std = images.channel_statistics()
        architecture = replace(architecture, mean=mean, std=std)
    return Run(plan, architecture, images, seed, teachers)
