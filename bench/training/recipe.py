"""A training method is a recipe of five slots; nearly every paper is a choice of what to put into one or two of them.

    objective   what is fought over: how images are perturbed, which losses follow
    targets     what an image should be called
    budget      how far an image may move and how much it counts
    step        how the weights move, given the loss
    average     which weights are kept beside the trained ones, and which are judged

A recipe is a value: its slots are frozen dataclasses whose fields are typed, addressable as `slot.field` and hashable
as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bench.errors import BadRecipe, brief
from bench.losses import one_hot
from bench.training.ranges import NotNegative, Ranged
from bench.training.values import Batch, Context, Losses, Reach, Tally, Targets, Weights, constant

State = Any
"""State of a slot: None, a tensor, or a NamedTuple of tensors. The trainer passes it in and keeps what comes out."""


class Objective(Protocol):
    """What is fought over. Stateless. Inherit from it, or from `Adversarial` where there is a field `inner`."""

    def perturb(self, ctx: Context, batch: Batch, targets: Targets, reach: Reach) -> Any:
        """Adversarial images (B,C,H,W) in [0, 1], each within its reach; or a NamedTuple that begins with them."""

    def losses(self, ctx: Context, batch: Batch, adv: Any, targets: Targets) -> Losses:
        """The loss of each image, (B,), in two parts, from what `perturb` found."""

    def attack_steps(self) -> int:
        """Steps of the attack on each image, as a forecast: a forward and a backward pass each."""
        return 0


class Rule(Protocol):
    """What remembers from step to step and from epoch to epoch."""

    def init(self, ctx: Context) -> State:
        """State before the first step."""

    def end_step(self, ctx: Context, state: State, losses: Losses) -> State:
        """State after a step."""

    def end_epoch(self, ctx: Context, state: State, tally: Tally) -> State:
        """State after an epoch, from what the epoch showed class by class."""


class TargetRule(Rule, Protocol):
    """What an image should be called."""

    def __call__(self, ctx: Context, batch: Batch, state: State) -> Targets:
        """Distributions over the classes."""


class BudgetRule(Rule, Protocol):
    """How far an image may move and how much it counts."""

    def reach(self, ctx: Context, batch: Batch, state: State) -> Reach:
        """Radius and step of each image, (B,)."""

    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: State) -> Weights:
        """Weight of each image in the two parts of the loss, (B,)."""


class StepRule(Protocol):
    """How the weights move. Stateless."""

    def __call__(
        self, ctx: Context, optimizer: torch.optim.Optimizer, objective: Callable[[], tuple[Tensor, Losses]]
    ) -> tuple[Tensor, Losses]:
        """Make one step; `objective` evaluates loss and losses at the current weights. Returns what it minimised."""


class AverageRule(Rule, Protocol):
    """Which weights are kept beside the trained ones: the ends of steps and epochs move `ctx.averaged`."""

    @property
    def judged(self) -> bool:
        """Whether the averaged weights, rather than the trained ones, are what is validated and evaluated."""


class Stateless(Ranged):
    """A rule that remembers nothing."""

    def init(self, ctx: Context) -> State:
        """No state."""
        return None

    def end_step(self, ctx: Context, state: State, losses: Losses) -> State:
        """Unchanged."""
        return state

    def end_epoch(self, ctx: Context, state: State, tally: Tally) -> State:
        """Unchanged."""
        return state


@dataclass(frozen=True)
class OneHot(Stateless):
    """The label itself."""

    def __call__(self, ctx: Context, batch: Batch, state: State) -> Targets:
        """One-hot distributions, wherever the image has moved."""
        label = one_hot(batch.y, ctx.classes)
        return Targets(label, constant(label))


@dataclass(frozen=True)
class Uniform(Stateless):
    """The same radius, step and weight for every image."""

    step: NotNegative = 0.25
    """Step as a fraction of eps: 2/255 at eps 8/255."""

    def reach(self, ctx: Context, batch: Batch, state: State) -> Reach:
        """Radius eps, step a fraction of it."""
        eps = torch.full_like(batch.y, ctx.eps, dtype=torch.float32)
        return Reach(eps, self.step * eps)

    def weigh(self, ctx: Context, batch: Batch, losses: Losses, state: State) -> Weights:
        """Every image counts 1."""
        one = torch.ones_like(losses.fit)
        return Weights(one, one)


@dataclass(frozen=True)
class Descend:
    """One step of the optimizer down the gradient of the loss."""

    def __call__(
        self, ctx: Context, optimizer: torch.optim.Optimizer, objective: Callable[[], tuple[Tensor, Losses]]
    ) -> tuple[Tensor, Losses]:
        """Evaluate, differentiate, step."""
        optimizer.zero_grad()
        loss, losses = objective()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        return loss, losses


@torch.no_grad()
def blend(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * model, over weights and buffers; counters are copied."""
    sides = ([*network.parameters(), *network.buffers()] for network in (averaged, model))
    pairs = list(zip(*sides, strict=True))
    into = [a for a, _ in pairs if a.is_floating_point()]
    torch._foreach_lerp_(into, [m for a, m in pairs if a.is_floating_point()], 1 - decay)
    for a, m in pairs:
        if not a.is_floating_point():
            a.copy_(m)


@dataclass(frozen=True)
class Last(Stateless):
    """No averaging: the kept weights are the trained ones."""

    judged: bool = False

    def end_step(self, ctx: Context, state: State, losses: Losses) -> State:
        """Copy."""
        blend(ctx.averaged, ctx.model, 0.0)
        return state


@dataclass(frozen=True)
class Recipe:
    """A training method: five choices."""

    objective: Objective
    targets: TargetRule = OneHot()
    budget: BudgetRule = Uniform()
    step: StepRule = Descend()
    average: AverageRule = Last()

    def __post_init__(self) -> None:
        """A slot holds a frozen dataclass instance, so that the recipe can be printed, hashed and overridden."""
        for slot in SLOTS:
            if not is_frozen(filling := getattr(self, slot)):
                raise BadRecipe(
                    f"slot {slot!r} holds {brief(repr(filling))}; a slot is filled by an instance of a frozen dataclass"
                )


def is_frozen(filling: object) -> bool:
    """Whether something is an instance of a frozen dataclass, which may fill a slot."""
    parameters = getattr(type(filling), "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


SLOTS = tuple(f.name for f in fields(Recipe))


def passes_per_image(recipe: Recipe) -> int:
    """Forecast of an image's passes in an epoch: those of the attack and two more, forward and backward each."""
    return 2 * (recipe.objective.attack_steps() + 2)


def as_json(value: Any) -> Any:
    """A recipe, schedule or slot as JSON values: dataclasses become objects with their class's name.

    The package is named but not the file, so that moving a class leaves what it trained valid.
    """
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        body = {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
        return {"is": f"{kind.__module__.partition('.')[0]}:{kind.__qualname__}", **body}
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: as_json(getattr(value, name)) for name in value._fields}
    if isinstance(value, (tuple, list)):
        return [as_json(v) for v in value]
    return value


class Span(NamedTuple):
    """A value that moves along a half cosine over the run."""

    begin: float
    end: float

    def at(self, progress: float) -> float:
        """Value when `progress` in [0, 1] of the run is done.

        Source: Wu et al., ADR (ICLR 2024), section 3.2, annealing of temperature and interpolation.
        """
        return self.end + (self.begin - self.end) * (1 + math.cos(math.pi * progress)) / 2
