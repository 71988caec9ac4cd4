"""Everything but the recipe that determines a training run, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from bench.budget import check_radius
from bench.errors import BadBudget, BadRecipe
from bench.training.selection import LAST, RULES

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Schedule:
    """Everything but the recipe that determines a training run on given data and seed."""

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    """Peak learning rate."""
    shape: Literal["piecewise", "cosine", "one-cycle"] = "one-cycle"
    drops: tuple[float, ...] = (0.5, 0.75)
    """Piecewise: where the learning rate is multiplied by `factor`, as fractions of the run."""
    factor: float = 0.1
    rise: float = 0.3
    """One-cycle: fraction of the run in which the learning rate rises to its peak."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    eps: Fraction = Fraction(8, 255)
    """Radius of the threat model trained for, Linf, in units of the pixel range."""
    augment: Literal["none", "crop", "crop-flip"] = "crop-flip"
    """Random crop after padding by an eighth of the side (4 at 32), and random mirror image."""
    normalize: bool = False
    """Whether the model standardises pixels by the training split's mean and deviation per channel."""
    holdout: float = 0.02
    """Fraction of the training split held out of training to select the kept epoch."""
    selection: str = "best-robust"
    """Which epoch's weights are kept, by a rule of `bench.training.selection`."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    precision: Precision = "fp32"
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    """Of weights and feature maps; the second is faster on GPUs and for large images. Rounding differs."""
    compiled: bool = False
    """Whether torch compiles the networks, once for each mode and shape; it pays in long runs. Rounding differs."""

    def __post_init__(self) -> None:
        """A schedule that cannot be run is refused before any work.

        Raises:
            BadRecipe: a count below 1, a rate or fraction out of range, or no rule of that name.
        """
        for name in ("epochs", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise BadRecipe(f"schedule.{name} is {getattr(self, name)}; at least 1 is needed")
        try:
            check_radius(self.eps, "Linf")
        except BadBudget as problem:
            raise BadRecipe(f"schedule.{problem}") from None
        for name in ("lr", "factor", "eps"):
            if getattr(self, name) <= 0:
                raise BadRecipe(f"schedule.{name} is {getattr(self, name)}; it must be larger than 0")
        for name, low, high in (("momentum", 0, 1), ("weight_decay", 0, 10), ("rise", 0, 1), ("holdout", 0, 0.9)):
            if not low <= getattr(self, name) <= high:
                raise BadRecipe(f"schedule.{name} is {getattr(self, name)}; it must lie in [{low}, {high}]")
        if self.nesterov and self.momentum == 0:
            raise BadRecipe("schedule.nesterov needs momentum above 0")
        if self.selection not in RULES:
            raise BadRecipe(f"schedule.selection={self.selection}: choose one of {', '.join(RULES)}")
        if self.holdout == 0 and self.selection != LAST:
            raise BadRecipe(
                f"schedule.selection {self.selection!r} needs a held-out split; set schedule.holdout above 0"
            )

    def first_epochs_of_drops(self) -> list[int]:
        """Epochs (0-based) from which on each cut of a piecewise schedule holds."""
        return [round(drop * self.epochs) for drop in self.drops] if self.shape == "piecewise" else []


def learning_rate(schedule: Schedule, epoch: int, progress: float) -> float:
    """The learning rate of a step.

    Args:
        schedule: its shape and peak.
        epoch: epochs finished.
        progress: share of all steps finished, in [0, 1).
    """
    if schedule.shape == "piecewise":
        return schedule.lr * schedule.factor ** cuts(schedule, epoch)
    if schedule.shape == "one-cycle" and progress < schedule.rise:
        return schedule.lr * progress / schedule.rise
    begin = schedule.rise if schedule.shape == "one-cycle" else 0.0
    return schedule.lr * (1 + math.cos(math.pi * (progress - begin) / (1 - begin))) / 2


def cuts(schedule: Schedule, epoch: int) -> int:
    """How often the learning rate has been cut before an epoch (0-based)."""
    return sum(epoch >= first for first in schedule.first_epochs_of_drops())
