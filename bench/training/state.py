"""A training in flight, as a value that can be put into a checkpoint and taken out again."""

from __future__ import annotations

import platform
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import BadRecipe
from bench.models.architecture import build, load_state
from bench.randomness import Streams
from bench.training.checkpoint import Checkpoint
from bench.training.run import START, Run
from bench.training.schedule import Schedule
from bench.training.step import Learner
from bench.training.values import Context, Tally


def _to_fp32(model: nn.Module, images: object, logits: Tensor) -> Tensor:
    return logits.float()


@dataclass
class TrainingState:
    """A training in flight: everything that a checkpoint must hold to go on."""

    run: Run
    learner: Learner
    tally: Tally
    history: list[dict[str, Any]]
    step: int = 0

    @property
    def ctx(self) -> Context:
        """What the slots know of the run."""
        return self.learner.ctx

    @classmethod
    def begin(cls, run: Run, device: str) -> TrainingState:
        """A run before its first step."""
        schedule = run.plan.schedule
        model = placed(untrained(run), schedule, device)
        if schedule.precision == "bf16":
            model.register_forward_hook(_to_fp32)  # losses and softmaxes are computed in fp32
        ctx = Context(
            model=model,
            averaged=deepcopy(model).eval().requires_grad_(False),
            teachers={
                role: placed(parent.network(), schedule, device)
                for role, parent in run.teachers.items()
                if role != START
            },
            classes=run.architecture.classes,
            eps=float(schedule.eps),
            epochs=schedule.epochs,
            streams=Streams(run.seed, torch.arange(0, device=device)),
        )
        if schedule.compiled:
            for network in (ctx.model, ctx.averaged, *ctx.teachers.values()):
                network.compile()
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=schedule.lr,
            momentum=schedule.momentum,
            nesterov=schedule.nesterov,
            weight_decay=schedule.weight_decay,
        )
        learner = Learner.begin(run.plan.recipe, ctx, optimizer)
        return cls(run, learner, Tally.zeros(ctx.classes, device), [])

    @classmethod
    def resume(cls, run: Run, checkpoint: Checkpoint, device: str) -> TrainingState:
        """A run where a checkpoint of it left off."""
        state = cls.begin(run, device)
        parts = {part: {k: v.to(device) for k, v in held.items()} for part, held in checkpoint.tensors.items()}
        for network in ("model", "averaged"):
            parts[network] = load_state(run.architecture, parts[network]).state_dict()
        state.learner.load(parts)
        if parts["tally"]:
            state.tally = Tally(**parts["tally"])
        state.history = deepcopy(checkpoint.history)
        state.ctx.epoch, state.step = checkpoint.epoch, checkpoint.step
        return state

    def checkpoint(self) -> Checkpoint:
        """Everything that `resume` needs, on the CPU and apart from what trains on."""
        tally = {f.name: getattr(self.tally, f.name) for f in fields(Tally)} if self.step else {}
        tensors = {**self.learner.tensors(), "tally": tally}
        return Checkpoint(
            architecture=self.run.architecture,
            tensors={part: {k: v.detach().cpu().clone() for k, v in held.items()} for part, held in tensors.items()},
            judged="averaged" if self.run.plan.recipe.average.judged else "model",
            run=self.run.identity,
            history=deepcopy(self.history),
            epoch=self.ctx.epoch,
            step=self.step,
            versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        )


def untrained(run: Run) -> nn.Module:
    """The network before the first step: random, or with the weights of another training.

    Raises:
        BadRecipe: those are of another network.
    """
    start = run.teachers.get(START)
    if start is None:
        return build(run.architecture, run.seed)
    if (other := start.built_as()) != run.architecture:
        raise BadRecipe(
            f"{run.plan.method!r} trains {run.architecture} and cannot start from {other}; give it one of the same"
        )
    return load_state(run.architecture, start.network().state_dict())


def placed(network: nn.Module, schedule: Schedule, device: str) -> nn.Module:
    """The network on the device, its weights in the layout that is asked for."""
    layout = torch.channels_last if schedule.layout == "channels_last" else torch.contiguous_format
    laid: nn.Module = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
    return laid
