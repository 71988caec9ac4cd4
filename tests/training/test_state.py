"""How a training begins: from random weights or another's, in the layout and precision asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.data.images import images_from_arrays
from bench.errors import BadRecipe
from bench.evaluation.network import teacher_of
from bench.models.architecture import Architecture
from bench.training.checkpoint import write
from bench.training.loop import train
from bench.training.method import Plan
from bench.training.recipe import Recipe
from bench.training.run import Parent, Run
from bench.training.schedule import Schedule
from bench.training.state import TrainingState
from methods.natural import Natural

SCHEDULE = Schedule(epochs=1, batch_size=16, augment="none", holdout=0.0, selection="last")
SMALL = Architecture("convnet-2", 4, 2)


def images():
    draw = np.random.default_rng(0)
    pixels, labels = draw.integers(0, 255, (32, 2, 8, 8), dtype=np.uint8), np.arange(32) % 4
    return images_from_arrays("toy", "train", pixels, labels, [str(k) for k in range(4)])


def a_run(architecture=SMALL, teachers=None, **schedule):
    roles = tuple(teachers or ())
    plan = Plan("own", "toy", "", Recipe(Natural()), replace(SCHEDULE, **schedule), roles)
    return Run(plan, architecture, images(), 3, teachers or {})


@pytest.fixture
def trained(tmp_path) -> Parent:
    *_, last = train(a_run())
    write(last, tmp_path / "c.safetensors")
    return teacher_of(str(tmp_path / "c.safetensors"), images())


def test_a_training_may_start_from_anothers_weights(trained):
    job = TrainingState.begin(a_run(teachers={"start": trained}), "cpu")
    for name, value in trained.network().state_dict().items():
        assert torch.equal(job.ctx.model.state_dict()[name], value)
        assert torch.equal(job.ctx.averaged.state_dict()[name], value)
    assert all(weight.requires_grad for weight in job.ctx.model.parameters())
    assert not job.ctx.teachers, "who is started from does not teach"


def test_it_starts_from_the_same_network_only(trained):
    wider = Architecture("convnet-4", 4, 2)
    with pytest.raises(BadRecipe, match=r"'own' trains .*convnet-4.* and cannot start from .*convnet-2"):
        TrainingState.begin(a_run(wider, {"start": trained}), "cpu")
    normalised = replace(SMALL, mean=(0.5, 0.5), std=(0.2, 0.2))
    with pytest.raises(BadRecipe, match="cannot start from"):
        TrainingState.begin(a_run(normalised, {"start": trained}), "cpu")


def test_layout_is_that_of_every_network(trained):
    job = TrainingState.begin(a_run(teachers={"teacher": trained}, layout="channels_last"), "cpu")
    for network in (job.ctx.model, job.ctx.averaged, job.ctx.teacher()):
        kernel = next(weight for weight in network.parameters() if weight.ndim == 4 and weight.shape[1] > 1)
        assert kernel.is_contiguous(memory_format=torch.channels_last)
    *_, last = train(a_run(layout="channels_last"))
    *_, plain = train(a_run())
    for name, value in plain.tensors["model"].items():
        torch.testing.assert_close(last.tensors["model"][name], value, rtol=1e-3, atol=1e-4)


def test_networks_are_compiled_when_asked(monkeypatch, trained):
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: asked.append(self))
    job = TrainingState.begin(a_run(teachers={"teacher": trained}, compiled=True), "cpu")
    assert asked == [job.ctx.model, job.ctx.averaged, job.ctx.teacher()]
