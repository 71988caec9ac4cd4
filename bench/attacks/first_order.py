"""Attacks that follow the gradient of a loss: FGSM, PGD and CW_inf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from bench.attacks.attack import Attack, Passes
from bench.attacks.engine import ascend
from bench.errors import BadModel, BadOption
from bench.losses import dlr, margin
from bench.norms import Norm
from bench.streams import Streams

Loss = Literal["cross_entropy", "margin", "dlr"]


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, y, reduction="none")


def _dlr(logits: Tensor, y: Tensor) -> Tensor:
    if logits.shape[1] < 3:
        raise BadModel(f"the dlr loss needs at least 3 classes, the model has {logits.shape[1]}; use the margin loss")
    return dlr(logits, y)


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"cross_entropy": _cross_entropy, "margin": margin, "dlr": _dlr}
)


@dataclass(frozen=True)
class FGSM(Attack):
    """One step of length eps along the steepest direction of the cross-entropy.

    Source: Goodfellow et al. 2015, section 4.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams) -> Tensor:
        """(B,C,H,W) the images after the step; nothing is random."""
        radius = torch.full(y.shape, eps, dtype=x.dtype, device=x.device)
        return ascend(
            lambda adv: _cross_entropy(model(adv), y), x, radius, radius, steps=1, start=torch.zeros_like(x), norm=norm
        )

    def passes(self, classes: int) -> Passes:
        """One of each."""
        return Passes(1, 1)


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent; the last image of the walk is returned.

    Source: Madry et al. 2018, section 2.1; with the margin loss, CW_inf as in the released code of that paper.

    Raises:
        BadOption: a count below 1, a stride that is not positive, or an unknown loss or start.
    """

    steps: int = 20
    stride: float = 0.25
    """Length of a step as a fraction of eps: 2/255 at eps 8/255."""
    loss: Loss = "cross_entropy"
    start: Literal["uniform", "zero"] = "uniform"
    """Where the walk begins: uniform in the ball, or at the image."""
    restarts: int = 1
    """Walks per image; the last image of the one with the largest margin counts, which is a broken one if any is."""

    def __post_init__(self) -> None:
        """Options that make no attack are refused."""
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise BadOption(f"{name} of a PGD is {getattr(self, name)}; at least 1 is needed")
        if not self.stride > 0:
            raise BadOption(f"stride of a PGD is {self.stride}; it is a fraction of eps and must be larger than 0")
        if self.loss not in LOSSES:
            raise BadOption(f"loss of a PGD is {self.loss!r}; choose one of {', '.join(LOSSES)}")
        if self.start not in ("uniform", "zero"):
            raise BadOption(f"start of a PGD is {self.start!r}; choose uniform or zero")
        if self.start == "zero" and self.restarts > 1:
            raise BadOption(f"{self.restarts} restarts of a PGD from zero are all the same; start from uniform")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams) -> Tensor:
        """(B,C,H,W) where the walks end."""
        loss = LOSSES[self.loss]
        radius = torch.full(y.shape, eps, dtype=x.dtype, device=x.device)
        own = streams.fork(repr(self))

        def walk(restart: int) -> Tensor:
            start = norm.noise(own.fork(restart), x, radius) if self.start == "uniform" else torch.zeros_like(x)
            return ascend(
                lambda adv: loss(model(adv), y),
                x,
                radius,
                self.stride * radius,
                steps=self.steps,
                start=start,
                norm=norm,
            )

        best = walk(0)
        if self.restarts == 1:
            return best
        with torch.no_grad():
            height = margin(model(best), y)
        for restart in range(1, self.restarts):
            adv = walk(restart)
            with torch.no_grad():
                reached = margin(model(adv), y)
            better = reached > height
            best[better] = adv[better]
            height = height.maximum(reached)
        return best

    def passes(self, classes: int) -> Passes:
        """One of each per step, and a forward one per walk where walks are compared."""
        return Passes(self.restarts * (self.steps + (self.restarts > 1)), self.restarts * self.steps)


FGSM_ATTACK = FGSM()
PGD_SAT = PGD()
PGD_TRADES = PGD(stride=0.003 * 255 / 8)
"""Steps of 0.003 at eps 8/255."""
CW = PGD(steps=30, loss="margin")
PGD_100 = PGD(steps=100, stride=0.1, loss="margin", restarts=5)
