"""Training on a toy, step by step as the trainer does it: 16 images in 4 classes that any network can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bench.models.architecture import Architecture, build
from bench.randomness import Streams
from bench.training.inner import switched
from bench.training.recipe import Recipe
from bench.training.schedule import Precision
from bench.training.step import Learner, Made
from bench.training.values import Batch, Context, Reach, Tally, Targets

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


@dataclass
class Rig(Learner):
    """A small network in training, in a run of 2 epochs of 4 steps."""

    done: int = 0

    @classmethod
    def build(cls, recipe: Recipe, classes: int = CLASSES) -> Rig:
        """At the start of the run."""
        architecture = Architecture("convnet-2", classes, 2)
        model, averaged = build(architecture).train(), build(architecture).eval().requires_grad_(False)
        ctx = Context(model, averaged, _EveryRole(classes), classes, EPS, 2, Streams(0, torch.arange(0)))
        return cls.begin(recipe, ctx, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))

    def call(self, batch: Batch) -> tuple[Targets, Reach]:
        """Targets and reach of a batch, at the step that is next."""
        self.ctx.epoch, self.ctx.progress = self.done // 4, self.done / 8
        self.ctx.streams = Streams(0, torch.arange(len(batch.y))).fork(self.done)
        return super().call(batch)

    def step(self, batch: Batch, precision: Precision = "fp32") -> Made:
        """One step."""
        made = super().step(batch, precision)
        self.done += 1
        return made

    def check(self, refuse: Callable[..., None], *given: object) -> None:
        """Let it pass: the conformance checks look at what slots give themselves."""

    def end_epoch(self, batch: Batch, made: Made) -> None:
        """Let the slots look at what a step showed."""
        tally = Tally.zeros(self.ctx.classes)
        tally.add(batch.y, made.losses.logits_clean, made.losses.logits_adv, made.losses.stood)
        self.ctx.validate = partial(glanced, batch=batch, classes=self.ctx.classes)
        self.close_epoch(tally)

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, copied, by "part/name"."""
        return {f"{part}/{k}": v.detach().clone() for part, held in self.tensors().items() for k, v in held.items()}

    def restore(self, state: Mapping[str, Tensor], done: int) -> Rig:
        """Go on from there."""
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in self.tensors()}
        for address, value in state.items():
            part, _, name = address.partition("/")
            parts[part][name] = value.clone()
        self.load(parts)
        self.done = done
        return self


def glanced(model: nn.Module, batch: Batch, classes: int) -> Tally:
    """Class vectors of a network on images and on brighter ones."""
    tally = Tally.zeros(classes)
    with torch.no_grad(), switched(model, "eval"):
        tally.add(batch.y, model(batch.x), model((batch.x + EPS).clamp(0, 1)))
    return tally
