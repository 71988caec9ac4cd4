"""One step of training by a recipe: the trainer and the conformance checks go through these lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from bench.training.recipe import Recipe, State
from bench.training.schedule import Precision
from bench.training.values import Batch, Context, Losses, Reach, Tally, Targets, detached


class Made(NamedTuple):
    """What a step made on its way."""

    targets: Targets
    reach: Reach
    adv: Any
    losses: Losses
    loss: Tensor


@dataclass
class Learner:
    """A network in training, and what the slots of its recipe remember."""

    recipe: Recipe
    ctx: Context
    optimizer: torch.optim.SGD
    targets: State
    budget: State
    average: State

    @classmethod
    def begin(cls, recipe: Recipe, ctx: Context, optimizer: torch.optim.SGD) -> Self:
        """Before the first step."""
        states = (rule.init(ctx) for rule in (recipe.targets, recipe.budget, recipe.average))
        return cls(recipe, ctx, optimizer, *states)

    def call(self, batch: Batch) -> tuple[Targets, Reach]:
        """Targets and reach of a batch."""
        targets = self.recipe.targets(self.ctx, batch, self.targets)
        return targets, self.recipe.budget.reach(self.ctx, batch, self.budget)

    def step(self, batch: Batch, precision: Precision = "fp32") -> Made:
        """Targets, reach, adversarial images, loss, weights; then the slots look at the losses."""
        recipe, ctx = self.recipe, self.ctx
        autocast = torch.autocast(batch.x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
        with autocast:
            targets, reach = self.call(batch)
            adv = recipe.objective.perturb(ctx, batch, targets, reach)

        def objective() -> tuple[Tensor, Losses]:
            with autocast:
                losses = recipe.objective.losses(ctx, batch, adv, targets)
                weights = recipe.budget.weigh(ctx, batch, losses, self.budget)
                return (weights.fit * losses.fit + weights.smooth * losses.smooth).mean(), losses

        loss, losses = recipe.step(ctx, self.optimizer, objective)
        losses = detached(losses)
        self.targets = recipe.targets.end_step(ctx, self.targets, losses)
        self.budget = recipe.budget.end_step(ctx, self.budget, losses)
        self.average = recipe.average.end_step(ctx, self.average, losses)
        return Made(targets, reach, adv, losses, loss.detach())

    def close_epoch(self, tally: Tally) -> None:
        """Let the slots look at what an epoch showed."""
        self.targets = self.recipe.targets.end_epoch(self.ctx, self.targets, tally)
        self.budget = self.recipe.budget.end_epoch(self.ctx, self.budget, tally)
        self.average = self.recipe.average.end_epoch(self.ctx, self.average, tally)

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All that must be kept to go on, by part of a checkpoint; not copied."""
        momentum = {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.ctx.model.named_parameters()
            if self.optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        return {
            "model": self.ctx.model.state_dict(),
            "averaged": self.ctx.averaged.state_dict(),
            "momentum": momentum,
            "targets": pack(self.targets),
            "budget": pack(self.budget),
            "average": pack(self.average),
        }

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from what `tensors` gave, of a learner with the same recipe and network."""
        self.ctx.model.load_state_dict(tensors["model"])
        self.ctx.averaged.load_state_dict(tensors["averaged"])
        for name, parameter in self.ctx.model.named_parameters():
            if name in tensors["momentum"]:
                self.optimizer.state[parameter]["momentum_buffer"] = tensors["momentum"][name].clone()
        self.targets = unpack(self.targets, tensors["targets"])
        self.budget = unpack(self.budget, tensors["budget"])
        self.average = unpack(self.average, tensors["average"])


def pack(state: State) -> dict[str, Tensor]:
    """A slot's state as named tensors."""
    if state is None:
        return {}
    return {"state": state} if isinstance(state, Tensor) else dict(state._asdict())


def unpack(initial: State, tensors: Mapping[str, Tensor]) -> State:
    """The state that `pack` took apart, of the type of the initial one."""
    if initial is None:
        return None
    return tensors["state"] if isinstance(initial, Tensor) else type(initial)(**tensors)
