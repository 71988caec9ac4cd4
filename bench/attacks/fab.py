"""FAB: looks for the nearest misclassified point instead of the largest loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from bench.attacks.base import Passes, require_one
from bench.attacks.fab_projections import TINY, moves_onto
from bench.attacks.standing import Search, Standing
from bench.attacks.target_classes import MAX_TARGETS, ranked_targets
from bench.errors import BadOption
from bench.losses import targeted_margin
from bench.norms import Norm, growth, per_image
from bench.randomness import Streams

SHORTEST = 1e-8
"""Two moves are weighed by their lengths; a shorter one than this counts as so long."""


@dataclass(frozen=True)
class FAB(Search):
    """Fast adaptive boundary attack: to and fro across the border between two classes, ever nearer to the image.

    From an iterate that is classified correctly it goes to the border and a little beyond, and is pulled a little
    towards the image. The border is taken for a hyperplane, as the gradient has it. From a misclassified iterate it
    steps back towards the image. It ends with the first misclassified iterate within eps; eps plays no other part.

    Every iterate takes one forward pass, which both says whether it is misclassified and gives the gradient; the
    released code takes two. The released code also steps back only once, where this one steps back until the iterate
    is classified correctly. Until that makes a difference, both see the same iterates.

    Source: Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
    algorithm 1, without its final search, as in AutoAttack; targets: Croce and Hein 2020 (AutoAttack), section 4.

    Raises:
        BadOption: a count below 1, or a number outside its range.
    """

    targets: int = 0
    """How many wrong classes it aims at, one after the other, likeliest first; 0 to go for the nearest border."""
    steps: int = 100
    """Moves per walk."""
    restarts: int = 1
    """Walks per target; the first begins at the image, the others at a random point half of eps away."""
    alpha_max: float = 0.1
    """Largest pull towards the image."""
    eta: float = 1.05
    """How far a move goes; 1 is onto the border."""
    beta: float = 0.9
    """What a step back leaves of the distance to the image."""

    def __post_init__(self) -> None:
        """Options that make no attack are refused."""
        require_one("a FAB", steps=self.steps, restarts=self.restarts)
        if self.targets < 0:
            raise BadOption(f"targets of a FAB is {self.targets}; 0 for none, or how many")
        if not 0 <= self.alpha_max <= 1:
            raise BadOption(f"alpha_max of a FAB is {self.alpha_max}; it is a weight from 0 to 1")
        if not self.eta > 0:
            raise BadOption(f"eta of a FAB is {self.eta}; it must be larger than 0")
        if not 0 < self.beta < 1:
            raise BadOption(f"beta of a FAB is {self.beta}; it must lie between 0 and 1")

    def fitted(self, classes: int) -> Self:
        """With no more targets than wrong classes."""
        return replace(self, targets=min(self.targets, classes - 1))

    def passes(self, classes: int) -> Passes:
        """Forward: to rank the targets, at the start of a walk and after a move. Backward: per move and border."""
        targets = min(self.targets, classes - 1)
        walks, borders = self.restarts * max(1, targets), 1 if targets else classes - 1
        return Passes(1 + walks * (self.steps + 1), walks * self.steps * borders)

    def search(self, standing: Standing, *, eps: float, norm: Norm, streams: Streams) -> None:
        """One walk per restart and target."""
        own = streams.fork(repr(self))
        goals = ranked_targets(standing, self.targets or None)
        per_walk = goals[:, :, None].unbind(1) if self.targets else (goals,)
        for restart in range(self.restarts):
            for rank, borders in enumerate(per_walk):
                if len(standing):
                    drawn = own.fork(restart).fork(rank).select(standing.rows)
                    start = around(standing.x, eps / 2, norm, drawn) if restart else standing.x
                    self.walk(standing, start, borders[standing.rows], eps, norm)

    def walk(self, standing: Standing, adv: Tensor, goals: Tensor, eps: float, norm: Norm) -> None:
        """Go to and fro until all images have fallen or the moves are spent.

        Args:
            standing: the images.
            adv: (A,C,H,W) where the walk begins.
            goals: (A,T) wrong classes; it goes to the nearest of their borders.
            eps: radius of the ball.
            norm: its geometry.
        """
        for _ in range(self.steps):
            differences = [partial(targeted_margin, goal=goal) for goal in goals.unbind(1)]
            logits, values, grads = standing.slopes(adv, differences)
            value, grad = nearest(values, grads, norm)
            misled = logits.argmax(1) != standing.y
            rows = standing.see(adv, logits, within=norm.size(adv - standing.x) <= eps)
            if rows is not None:
                if not len(rows):
                    return
                adv, goals, value, grad, misled = (part[rows] for part in (adv, goals, value, grad, misled))
            adv = torch.where(
                per_image(misled, adv),
                standing.x + self.beta * (adv - standing.x),
                self.beyond(adv, standing.x, value, grad, norm),
            )
        with torch.no_grad():
            standing.see(adv, standing.logits(adv), within=norm.size(adv - standing.x) <= eps)
        standing.settle()

    def beyond(self, adv: Tensor, x: Tensor, value: Tensor, grad: Tensor, norm: Norm) -> Tensor:
        """(A,C,H,W) points a little beyond the border: the hyperplane where value + grad * (point - adv) is 0."""
        gap_at_x = (grad * (adv - x)).flatten(1).sum(1) - value
        moves = moves_onto(torch.stack((adv, x)), grad, torch.stack((-value, gap_at_x)), norm)
        from_adv, from_x = norm.size(moves.flatten(0, 1)).clamp(min=SHORTEST).reshape(2, -1)
        alpha = (from_adv / (from_adv + from_x)).clamp(max=self.alpha_max)
        return torch.lerp(adv + self.eta * moves[0], x + self.eta * moves[1], per_image(alpha, x)).clamp(0, 1)


def nearest(values: Tensor, grads: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Choose for each image the border that seems nearest, if the network were linear.

    Args:
        values: (A,T) how far the image is from being on the other side of each border; 0 is on the border.
        grads: (A,T,C,H,W) the gradients of these values.
        norm: geometry in which near is meant.

    Returns:
        The value (A,) and the gradient (A,C,H,W) of the border that was chosen.
    """
    if values.shape[1] == 1:
        return values[:, 0], grads[:, 0]
    flat = grads.flatten(0, 1)
    rise = growth(flat, norm).reshape(values.shape)
    distance = values.abs() / rise.clamp(min=TINY)
    chosen = distance.nan_to_num(nan=torch.inf).argmin(1)
    rows = torch.arange(len(chosen), device=chosen.device)
    return values[rows, chosen], grads[rows, chosen]


def around(x: Tensor, distance: float, norm: Norm, drawn: Streams) -> Tensor:
    """(A,C,H,W) a random point at this distance from each image, or nearer where the box of pixels ends before."""
    radius = torch.full((len(x),), distance, dtype=x.dtype, device=x.device)
    start = norm.noise(drawn, x, radius)
    return (x + start * per_image(radius / norm.size(start).clamp(min=TINY), x)).clamp(0, 1)


FAB_UNTARGETED = FAB()
FAB_T = FAB(targets=MAX_TARGETS)
