"""APGD: projected gradient ascent with momentum that finds its step size by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.attacks.base import Passes, require_one
from bench.attacks.standing import Search, Standing
from bench.attacks.target_classes import MAX_TARGETS, ranked_targets
from bench.errors import BadOption
from bench.losses import dlr, margin, probability_margin, targeted_dlr, targeted_margin
from bench.norms import Norm, per_image
from bench.randomness import Streams

Loss = Literal["cross_entropy", "dlr", "margin", "probability_margin"]
AimedObjective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits (A,K), true classes (A,) and the wrong classes to walk to (A,) to the value that is climbed (A,)."""

UNTARGETED: Mapping[str, AimedObjective] = MappingProxyType(
    {
        "cross_entropy": lambda logits, y, goal: F.cross_entropy(logits, y, reduction="none"),
        "dlr": lambda logits, y, goal: dlr(logits, y),
        "margin": lambda logits, y, goal: margin(logits, y),
        "probability_margin": lambda logits, y, goal: probability_margin(logits, y),
    }
)
TARGETED: Mapping[str, AimedObjective] = MappingProxyType({"dlr": targeted_dlr, "margin": targeted_margin})
DLR_CLASSES = 4
"""Classes that the targeted DLR needs; the standard's attacks take the margin where there are fewer."""
MOMENTUM = 0.25
"""Share of the last move in the next one, from the second step on."""


@dataclass(frozen=True)
class APGD(Search):
    """Auto-PGD: a step with momentum, halved where the loss stops rising; the walk then goes on from its best point.

    Source: Croce and Hein 2020, section 3 and algorithm 1; losses: section 4.

    Raises:
        BadOption: a count below 1, an unknown loss, or targets with a loss that has none.
    """

    loss: Loss = "cross_entropy"
    targets: int = 0
    """How many wrong classes it walks to, one after the other, likeliest first; 0 to walk away from the right one."""
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    """Between two checkpoints this share of the steps must raise the loss, or the step is halved."""

    def __post_init__(self) -> None:
        """Options that make no attack are refused."""
        require_one("an APGD", steps=self.steps, restarts=self.restarts)
        if self.targets < 0:
            raise BadOption(f"targets of an APGD is {self.targets}; 0 for none, or how many")
        if self.loss not in self.losses:
            aim = f"with {self.targets} targets" if self.targets else "without targets"
            raise BadOption(f"loss of an APGD {aim} is {self.loss!r}; choose one of {', '.join(self.losses)}")

    @property
    def losses(self) -> Mapping[str, AimedObjective]:
        """The losses that it can climb, by name."""
        return TARGETED if self.targets else UNTARGETED

    def fitted(self, classes: int) -> Self:
        """With the margin if there are too few classes for the DLR, and no more targets than wrong classes."""
        loss: Loss = "margin" if self.loss == "dlr" and classes < DLR_CLASSES else self.loss
        return replace(self, loss=loss, targets=min(self.targets, classes - 1))

    def passes(self, classes: int) -> Passes:
        """A forward one at the start of a walk and after every step, a backward one before every step."""
        targets = min(self.targets, classes - 1)
        walks = self.restarts * max(1, targets)
        return Passes(walks * (self.steps + 1) + (targets > 0), walks * self.steps)

    def search(self, standing: Standing, *, eps: float, norm: Norm, streams: Streams) -> None:
        """One walk per restart and target."""
        own = streams.fork(repr(self))
        goals = self.goals(standing, norm)
        for restart in range(self.restarts):
            for rank in range(goals.shape[1]):
                if len(standing):
                    drawn = own.fork(restart).fork(rank).select(standing.rows)
                    self.walk(standing, goals[standing.rows, rank], eps, norm, drawn)

    def goals(self, standing: Standing, norm: Norm) -> Tensor:
        """(B,T) for each image of the batch the wrong class of each of its walks; 0 where it has no targets."""
        if not self.targets:
            return torch.zeros_like(standing.forwards)[:, None]
        return ranked_targets(standing, self.targets)

    def walk(self, standing: Standing, goal: Tensor, eps: float, norm: Norm, drawn: Streams) -> None:
        """Climb from a random start at distance eps until all images have fallen or the steps are spent.

        Args:
            standing: the images.
            goal: (A,) the wrong class that each image walks to, if there are targets.
            eps: radius of the ball.
            norm: its geometry.
            drawn: randomness of the images that stand.
        """
        objective, ends = self.losses[self.loss], windows(self.steps)
        radius = torch.full_like(standing.margin, eps)
        start = norm.noise(drawn, standing.x, radius)
        start = start * per_image(radius / norm.size(start).clamp(min=1e-12), start)

        def looked(w: _Walk) -> _Walk:
            logits, loss, grad = standing.slope(w.adv, lambda logits, y: objective(logits, y, w.goal))
            rows = standing.see(w.adv, logits)
            return w._replace(loss=loss, grad=grad).select(rows)

        w = looked(_Walk.begun((standing.x + start).clamp(0, 1), goal, radius)).bettered()
        w = w._replace(checked_loss=w.best_loss)
        for step in range(1, self.steps + 1):
            if not len(standing):
                return
            w = w.moved(standing.x, norm, carried=MOMENTUM if step > 1 else 0.0)
            if step < self.steps:  # a slope at the end would lead nowhere
                w = looked(w).counted().bettered()
            if step in ends:
                w = w.checked(self.rho * ends[step])
        with torch.no_grad():
            standing.see(w.adv, standing.logits(w.adv))
        standing.settle()


def windows(steps: int) -> dict[int, int]:
    """The checkpoints: after how many steps the step length is reconsidered, and how many steps after the last time.

    Source: Croce and Hein 2020, section 3.1: windows of 22 % of the steps, each 3 % shorter than the one before and
    none below 6 %: 22, 41, 57, 70, 80, 87, 93 and 99 of 100.
    """
    length, shorter, shortest = (max(steps * share // 100, 1) for share in (22, 3, 6))
    ends = {}
    end = length
    while end < steps:
        ends[end] = length
        length = max(length - shorter, shortest)
        end += length
    return ends


class _Walk(NamedTuple):
    """The state of a walk, a row for each image that stands."""

    adv: Tensor
    """Where each image is, with the loss and its gradient there."""
    loss: Tensor
    grad: Tensor
    last: Tensor
    """Where it was one step ago."""
    goal: Tensor
    radius: Tensor
    step: Tensor
    """Length of the next step."""
    best: Tensor
    """The point of the largest loss, with gradient and loss."""
    best_grad: Tensor
    best_loss: Tensor
    previous: Tensor
    """Loss one step ago; 0 before the first, as in the released code."""
    rises: Tensor
    """Steps since the last checkpoint that raised the loss."""
    checked_loss: Tensor
    """Best loss at the last checkpoint."""
    halved: Tensor
    """Whether the step was halved there; true before the first."""

    @classmethod
    def begun(cls, adv: Tensor, goal: Tensor, radius: Tensor) -> _Walk:
        """At the start, before the model has seen it."""
        none = torch.zeros_like(radius)
        low = torch.full_like(radius, -torch.inf)
        return cls(
            adv, none, adv, adv, goal, radius, 2 * radius, adv, adv, low, none, none, low, torch.ones_like(goal).bool()
        )

    def select(self, rows: Tensor | None) -> _Walk:
        """The walk of some images; None for all."""
        return self if rows is None else _Walk(*(part[rows] for part in self))

    def bettered(self) -> _Walk:
        """With the best point brought up to date."""
        better = self.loss > self.best_loss
        return self._replace(
            best=self.adv.where(per_image(better, self.adv), self.best),
            best_grad=self.grad.where(per_image(better, self.adv), self.best_grad),
            best_loss=self.loss.where(better, self.best_loss),
        )

    def counted(self) -> _Walk:
        """With the last step counted if it raised the loss."""
        return self._replace(rises=self.rises + (self.loss > self.previous), previous=self.loss)

    def checked(self, enough: float) -> _Walk:
        """After a checkpoint.

        The step is halved after too few rises, or if no better point was found since a checkpoint that kept the step.
        """
        stuck = ~self.halved & (self.checked_loss >= self.best_loss)
        halved = (self.rises <= enough) | stuck
        back = per_image(halved, self.adv)
        return self._replace(
            adv=self.best.where(back, self.adv),
            grad=self.best_grad.where(back, self.grad),
            step=torch.where(halved, self.step / 2, self.step),
            rises=torch.zeros_like(self.rises),
            checked_loss=self.best_loss,
            halved=halved,
        )

    def moved(self, x: Tensor, norm: Norm, carried: float) -> _Walk:
        """One step on, with a share of the last move carried along."""

        def inside(point: Tensor) -> Tensor:
            return (x + norm.project(point - x, self.radius)).clamp(0, 1)

        plain = inside(self.adv + per_image(self.step, x) * norm.steepest(self.grad))
        move = (1 - carried) * (plain - self.adv) + carried * (self.adv - self.last)
        return self._replace(adv=inside(self.adv + move), last=self.adv)


APGD_CE = APGD()
APGD_DLR = APGD(loss="dlr")
APGD_T = APGD(loss="dlr", targets=MAX_TARGETS)
APGD_DLR_5 = APGD(loss="dlr", restarts=5)
