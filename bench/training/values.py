"""The values that travel between the trainer and a recipe's five slots.

| name           | shape     | meaning                                                        |
|----------------|-----------|----------------------------------------------------------------|
| x, adv         | (B,C,H,W) | images in [0, 1], clean and adversarial                        |
| y              | (B,)      | class indices                                                  |
| targets        | (B,K)     | the label is a distribution                                    |
| eps, step      | (B,)      | the budget is a vector, in the unit of x                       |
| fit, smooth    | (B,)      | the loss is a vector, never reduced before it is weighed       |
| class vectors  | (K,)      | what a `Tally` keeps of an epoch                               |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BadRecipe
from bench.losses import kl
from bench.randomness import Streams


class Batch(NamedTuple):
    """Images and labels."""

    x: Tensor
    y: Tensor


class Targets(NamedTuple):
    """What is wanted of the model, as distributions (B,K)."""

    clean: Tensor
    """At the clean images."""
    at: Callable[[Tensor], Tensor]
    """At given adversarial images; usually the same whatever they are."""


def constant(targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Targets that do not depend on the adversarial image."""
    return lambda adv: targets


class Reach(NamedTuple):
    """How far each image may move, (B,) each, in the unit of x."""

    eps: Tensor
    step: Tensor


class Weights(NamedTuple):
    """How much each image counts in the two parts of the loss, (B,) each."""

    fit: Tensor
    smooth: Tensor


class Losses(NamedTuple):
    """The two parts of the loss per image and the logits behind them."""

    fit: Tensor
    smooth: Tensor
    logits_clean: Tensor | None
    """None where the method never looks at the clean images."""
    logits_adv: Tensor | None
    """None where it never looks at adversarial ones."""
    stood: Tensor | None = None
    """(B,) at how many iterates of the attack the image was classified right; None where nobody counts."""


def detached(losses: Losses) -> Losses:
    """The same values without their graph."""
    parts = (None if part is None else part.detach() for part in losses)
    return Losses(*parts)  # type: ignore[arg-type]  # None where it was None


@dataclass
class Tally:
    """Class by class record of an epoch: sums over images, kept on the device, for every method alike."""

    count: Tensor
    """(K,) images seen."""
    count_clean: Tensor
    """(K,) images whose clean logits were seen."""
    count_adv: Tensor
    """(K,) images whose adversarial logits were seen."""
    hits_clean: Tensor
    hits_adv: Tensor
    ce_clean: Tensor
    """(K,) sums of the cross-entropy with the true class, in nats."""
    ce_adv: Tensor
    divergence: Tensor
    """(K,) sums of KL(p(x) || p(x')) in nats, of images of which both logits were seen."""
    stood: Tensor
    """(K,) sums of `Losses.stood`."""
    prob_adv: Tensor
    """(K,K) row k sums the adversarial softmax of the images of class k."""

    @classmethod
    def zeros(cls, classes: int, device: torch.device | str = "cpu") -> Tally:
        """An empty record."""
        vectors = {f.name: torch.zeros(classes, device=device) for f in fields(cls)}
        return cls(**vectors | {"prob_adv": torch.zeros(classes, classes, device=device)})

    @torch.no_grad()
    def add(
        self, y: Tensor, logits_clean: Tensor | None, logits_adv: Tensor | None, stood: Tensor | None = None
    ) -> None:
        """Take in a batch: labels (B,), logits (B,K) and counts (B,) where there are any."""
        one = torch.ones_like(y, dtype=torch.float32)
        self.count.index_add_(0, y, one)
        if logits_clean is not None:
            self.count_clean.index_add_(0, y, one)
            self.hits_clean.index_add_(0, y, (logits_clean.argmax(1) == y).float())
            self.ce_clean.index_add_(0, y, F.cross_entropy(logits_clean.float(), y, reduction="none"))
        if logits_adv is not None:
            self.count_adv.index_add_(0, y, one)
            self.hits_adv.index_add_(0, y, (logits_adv.argmax(1) == y).float())
            self.ce_adv.index_add_(0, y, F.cross_entropy(logits_adv.float(), y, reduction="none"))
            self.prob_adv.index_add_(0, y, logits_adv.float().softmax(1))
        if logits_clean is not None and logits_adv is not None:
            self.divergence.index_add_(0, y, kl(logits_clean.float().softmax(1), logits_adv.float()))
        if stood is not None:
            self.stood.index_add_(0, y, stood.float())

    def risk_clean(self) -> Tensor:
        """(K,) mean clean cross-entropy per class, in nats; 0 for a class that was not seen."""
        return self.ce_clean / self.count_clean.clamp(min=1)

    def risk_adv(self) -> Tensor:
        """(K,) mean adversarial cross-entropy per class, in nats; 0 for a class that was not seen."""
        return self.ce_adv / self.count_adv.clamp(min=1)


def _nothing_held_out(model: nn.Module) -> Tally:
    raise BadRecipe("this recipe looks at a held-out split; set schedule.holdout above 0")


@dataclass
class Context:
    """What a slot may know of the run it serves.

    Attributes:
        model: the network in training.
        averaged: the averaged weights, in eval mode and frozen; kept by the average slot.
        teachers: frozen networks by role.
        classes: K.
        eps: radius of the threat model, in the unit of x.
        epochs: planned length of the run.
        epoch: epochs finished.
        progress: share of all steps finished, in [0, 1).
        drops: how often the learning rate has been cut so far (0 for smooth schedules).
        streams: randomness of the current batch.
        validate: at the end of an epoch, class vectors of a network on the held-out split, clean and under PGD-10.
    """

    model: nn.Module
    averaged: nn.Module
    teachers: Mapping[str, nn.Module]
    classes: int
    eps: float
    epochs: int
    streams: Streams
    validate: Callable[[nn.Module], Tally] = _nothing_held_out
    epoch: int = 0
    progress: float = 0.0
    drops: int = 0

    def teacher(self, role: str = "teacher") -> nn.Module:
        """The teacher of that role.

        Raises:
            BadRecipe: the run was started without it.
        """
        if role not in self.teachers:
            raise BadRecipe(f"this recipe needs a {role!r}, none was given; pass --teacher CHECKPOINT")
        return self.teachers[role]
