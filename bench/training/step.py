"""One step of training by a recipe: the trainer and the conformance checks go through these lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from bench.training import blame
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
        states = []
        for slot in ("targets", "budget", "average"):
            rule = getattr(recipe, slot)
            with blame.of(slot, rule):
                states.append(rule.init(ctx))
        made = cls(recipe, ctx, optimizer, *states)
        made.check_states()
        return made

    def call(self, batch: Batch) -> tuple[Targets, Reach]:
        """Targets and reach of a batch."""
        recipe, size = self.recipe, len(batch.y)
        with blame.of("targets", recipe.targets):
            targets = recipe.targets(self.ctx, batch, self.targets)
        self.check(blame.check_targets, recipe.targets, targets, size, self.ctx.classes)
        with blame.of("budget", recipe.budget):
            reach = recipe.budget.reach(self.ctx, batch, self.budget)
        self.check(blame.check_reach, recipe.budget, reach, size)
        return targets, reach

    def check(self, refuse: Callable[..., None], *given: object) -> None:
        """Let `refuse` look at what a slot gave; see `blame.py`."""
        refuse(*given)

    def check_states(self) -> None:
        """What the slots remember can be kept in a checkpoint."""
        for slot in ("targets", "budget", "average"):
            self.check(blame.check_state, slot, getattr(self.recipe, slot), getattr(self, slot))

    def step(self, batch: Batch, precision: Precision = "fp32") -> Made:
        """Targets, reach, adversarial images, loss, weights; then the slots look at the losses."""
        recipe, ctx = self.recipe, self.ctx
        autocast = torch.autocast(batch.x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
        with autocast:
            targets, reach = self.call(batch)
            with blame.of("objective", recipe.objective):
                adv = recipe.objective.perturb(ctx, batch, targets, reach)
            self.check(blame.check_adv, recipe.objective, adv, batch.x)

        def objective() -> tuple[Tensor, Losses]:
            with autocast:
                with blame.of("objective", recipe.objective):
                    losses = recipe.objective.losses(ctx, batch, adv, targets)
                self.check(blame.check_losses, recipe.objective, losses, len(batch.y))
                with blame.of("budget", recipe.budget):
                    weights = recipe.budget.weigh(ctx, batch, losses, self.budget)
                self.check(blame.check_weights, recipe.budget, weights, len(batch.y))
                return (weights.fit * losses.fit + weights.smooth * losses.smooth).mean(), losses

        with blame.of("step", recipe.step):
            loss, losses = recipe.step(ctx, self.optimizer, objective)
            losses = detached(losses)
        with blame.of("targets", recipe.targets):
            self.targets = recipe.targets.end_step(ctx, self.targets, losses)
        with blame.of("budget", recipe.budget):
            self.budget = recipe.budget.end_step(ctx, self.budget, losses)
        with blame.of("average", recipe.average):
            self.average = recipe.average.end_step(ctx, self.average, losses)
        return Made(targets, reach, adv, losses, loss.detach())

    def close_epoch(self, tally: Tally) -> None:
        """Let the slots look at what an epoch showed."""
        for slot in ("targets", "budget", "average"):
            rule = getattr(self.recipe, slot)
            with blame.of(slot, rule):
                state = rule.end_epoch(self.ctx, getattr(self, slot), tally)
            setattr(self, slot, state)
        self.check_states()

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
