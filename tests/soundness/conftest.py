from __future__ import annotations

from fractions import Fraction

import pytest
from torch import nn

from bench.data.load import load
from bench.models.architecture import Architecture, build
from bench.training.checkpoint import write
from bench.training.loop import train
from bench.training.method import compose
from bench.training.run import Parent, prepare, recipe_id

EPS = Fraction(15, 100)


@pytest.fixture(scope="session")
def images():
    """A part of the digits' test split; a fifth of it is attacked."""
    return load("digits").take(240, seed=0)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Trains a method on the digits for a few epochs; seconds each, once."""
    digits, folder, made = load("digits", "train"), tmp_path_factory.mktemp("honest"), {}

    def checkpoint(name: str):
        if name not in made:
            plan = compose(name, dataset="digits", settings={"schedule.epochs": 3, "schedule.lr": 0.1})
            parents = {}
            for role in plan.teachers:
                teacher, path = checkpoint("pgd-at"), folder / "pgd-at.safetensors"
                write(teacher, path)
                parents[role] = Parent(teacher.checkpoint_id, recipe_id(teacher.run), path)
            *_, made[name] = train(prepare(plan, digits, "convnet-6", 0, parents))
        return made[name]

    return checkpoint


@pytest.fixture(scope="session")
def honest(trained):
    """The network of a method by name, or one that was never trained."""

    def network(name: str) -> nn.Module:
        return build(Architecture("convnet-6", 10, 1)) if name == "untrained" else trained(name).network()

    return network
