"""A training in flight, as a value that can be put into a checkpoint and taken out again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
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
from bench.training.values import Context, Tally


def _to_fp32(model: nn.Module, images: object, logits: Tensor) -> Tensor:
    return logits.float()


@dataclass
class TrainingState:
    """A training in flight: everything that a checkpoint must hold to go on."""

    run: Run
    ctx: Context
    optimizer: torch.optim.SGD
    targets: Any
    budget: Any
    average: Any
    tally: Tally
    history: list[dict[str, Any]]
    step: int = 0

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
        recipe = run.plan.recipe
        targets, budget, average = (rule.init(ctx) for rule in (recipe.targets, recipe.budget, recipe.average))
        return cls(run, ctx, optimizer, targets, budget, average, Tally.zeros(ctx.classes, device), [])

    @classmethod
    def resume(cls, run: Run, checkpoint: Checkpoint, device: str) -> TrainingState:
        """A run where a checkpoint of it left off."""
        state = cls.begin(run, device)
        parts = {part: {k: v.to(device) for k, v in held.items()} for part, held in checkpoint.tensors.items()}
        state.ctx.model.load_state_dict(load_state(run.architecture, parts["model"]).state_dict())
        state.ctx.averaged.load_state_dict(load_state(run.architecture, parts["averaged"]).state_dict())
        for name, parameter in state.ctx.model.named_parameters():
            if name in parts["momentum"]:
                state.optimizer.state[parameter]["momentum_buffer"] = parts["momentum"][name].clone()
        state.targets, state.budget = unpack(state.targets, parts["targets"]), unpack(state.budget, parts["budget"])
        state.average = unpack(state.average, parts["average"])
        if parts["tally"]:
            state.tally = Tally(**parts["tally"])
        state.history = deepcopy(checkpoint.history)
        state.ctx.epoch, state.step = checkpoint.epoch, checkpoint.step
        return state

    def checkpoint(self) -> Checkpoint:
        """Everything that `resume` needs, on the CPU and apart from what trains on."""
        momentum = {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.ctx.model.named_parameters()
            if self.optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        tensors = {
            "model": self.ctx.model.state_dict(),
            "averaged": self.ctx.averaged.state_dict(),
            "momentum": momentum,
            "targets": pack(self.targets),
            "budget": pack(self.budget),
            "average": pack(self.average),
            "tally": {f.name: getattr(self.tally, f.name) for f in fields(Tally)} if self.step else {},
        }
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


def pack(state: Any) -> dict[str, Tensor]:
    """A slot's state as named tensors."""
    if state is None:
        return {}
    return {"state": state} if isinstance(state, Tensor) else dict(state._asdict())


def unpack(initial: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `pack` took apart, of the type of the initial one."""
    if initial is None:
        return None
    return tensors["state"] if isinstance(initial, Tensor) else type(initial)(**tensors)
