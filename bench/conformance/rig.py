"""Training on a toy, step by step as the trainer does it: 16 images in 4 classes that any network can tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.models.architecture import Architecture, build
from bench.randomness import Streams
from bench.training.inner import switched
from bench.training.recipe import Recipe
from bench.training.state import pack, unpack
from bench.training.values import Batch, Context, Losses, Reach, Tally, Targets, detached

EPS = 0.1
CLASSES = 4


def separable(n: int = 16) -> Batch:
    """Images (n,2,8,8), the quadrant that is bright being the class, and their labels."""
    y = torch.arange(n) % CLASSES
    x = 0.2 + 0.1 * Streams(0, torch.arange(n)).uniform((2, 8, 8))
    for row, label in enumerate(y.tolist()):
        top, left = 4 * (label // 2), 4 * (label % 2)
        x[row, :, top : top + 4, left : left + 4] += 0.5
    return Batch(x, y)


class _Teacher(nn.Module):
    """A fixed random network, sharp enough to have an opinion."""

    def __init__(self, seed: int, classes: int) -> None:
        super().__init__()
        self.network = build(Architecture("convnet-2", classes, 2), seed)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 5 * self.network(x)
        return logits


class _EveryRole(dict[str, nn.Module]):
    """A teacher for whatever role is asked for."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def __missing__(self, role: str) -> nn.Module:
        self[role] = _Teacher(len(self) + 1, self.classes).eval().requires_grad_(False)
        return self[role]

    def __contains__(self, role: object) -> bool:
        return True


class Made(NamedTuple):
    """What one step made on its way."""

    targets: Targets
    reach: Reach
    adv: Any
    losses: Losses
    loss: Tensor


@dataclass
class Rig:
    """A small network in training with a recipe, step by step, as `bench.training.loop` does it."""

    recipe: Recipe
    ctx: Context
    optimizer: torch.optim.SGD
    targets: Any
    budget: Any
    average: Any
    done: int = 0

    @classmethod
    def build(cls, recipe: Recipe, classes: int = CLASSES) -> Rig:
        """At the start of a run of 2 epochs of 4 steps."""
        architecture = Architecture("convnet-2", classes, 2)
        model, averaged = build(architecture).train(), build(architecture).eval().requires_grad_(False)
        ctx = Context(model, averaged, _EveryRole(classes), classes, EPS, 2, Streams(0, torch.arange(0)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        states = (rule.init(ctx) for rule in (recipe.targets, recipe.budget, recipe.average))
        return cls(recipe, ctx, optimizer, *states)

    def call(self, batch: Batch) -> tuple[Targets, Reach]:
        """Targets and reach of a batch."""
        self.ctx.epoch, self.ctx.progress = self.done // 4, self.done / 8
        self.ctx.streams = Streams(0, torch.arange(len(batch.y))).fork(self.done)
        targets = self.recipe.targets(self.ctx, batch, self.targets)
        return targets, self.recipe.budget.reach(self.ctx, batch, self.budget)

    def step(self, batch: Batch) -> Made:
        """One step."""
        recipe, ctx = self.recipe, self.ctx
        targets, reach = self.call(batch)
        adv = recipe.objective.perturb(ctx, batch, targets, reach)

        def objective() -> tuple[Tensor, Losses]:
            losses = recipe.objective.losses(ctx, batch, adv, targets)
            weights = recipe.budget.weigh(ctx, batch, losses, self.budget)
            return (weights.fit * losses.fit + weights.smooth * losses.smooth).mean(), losses

        loss, losses = recipe.step(ctx, self.optimizer, objective)
        losses = detached(losses)
        self.targets = recipe.targets.end_step(ctx, self.targets, losses)
        self.budget = recipe.budget.end_step(ctx, self.budget, losses)
        self.average = recipe.average.end_step(ctx, self.average, losses)
        self.done += 1
        return Made(targets, reach, adv, losses, loss.detach())

    def end_epoch(self, batch: Batch, made: Made) -> None:
        """Let the slots look at what a step showed."""
        tally = Tally.zeros(self.ctx.classes)
        tally.add(batch.y, made.losses.logits_clean, made.losses.logits_adv, made.losses.stood)
        self.ctx.validate = partial(glanced, batch=batch, classes=self.ctx.classes)
        self.targets = self.recipe.targets.end_epoch(self.ctx, self.targets, tally)
        self.budget = self.recipe.budget.end_epoch(self.ctx, self.budget, tally)
        self.average = self.recipe.average.end_epoch(self.ctx, self.average, tally)

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, copied."""
        parts = {
            "model": self.ctx.model.state_dict(),
            "averaged": self.ctx.averaged.state_dict(),
            "momentum": {
                name: self.optimizer.state[weight]["momentum_buffer"]
                for name, weight in self.ctx.model.named_parameters()
                if self.optimizer.state.get(weight)
            },
            "targets": pack(self.targets),
            "budget": pack(self.budget),
            "average": pack(self.average),
        }
        return {f"{part}/{k}": v.detach().clone() for part, state in parts.items() for k, v in state.items()}

    def restore(self, state: Mapping[str, Tensor], done: int) -> Rig:
        """Go on from there."""

        def part(name: str) -> dict[str, Tensor]:
            return {k.partition("/")[2]: v.clone() for k, v in state.items() if k.startswith(f"{name}/")}

        self.ctx.model.load_state_dict(part("model"))
        self.ctx.averaged.load_state_dict(part("averaged"))
        momentum = part("momentum")
        for name, weight in self.ctx.model.named_parameters():
            if name in momentum:
                self.optimizer.state[weight]["momentum_buffer"] = momentum[name]
        self.targets, self.budget = unpack(self.targets, part("targets")), unpack(self.budget, part("budget"))
        self.average, self.done = unpack(self.average, part("average")), done
        return self


def glanced(model: nn.Module, batch: Batch, classes: int) -> Tally:
    """Class vectors of a network on images and on brighter ones."""
    tally = Tally.zeros(classes)
    with torch.no_grad(), switched(model, "eval"):
        tally.add(batch.y, model(batch.x), model((batch.x + EPS).clamp(0, 1)))
    return tally
