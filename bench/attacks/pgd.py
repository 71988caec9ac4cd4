"""Attacks that follow the gradient of a loss: FGSM, PGD and CW_inf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.attacks.ascent import ascend
from bench.attacks.base import Attack, Attributed, Passes, require_one
from bench.attacks.standing import Standing
from bench.errors import BadOption
from bench.losses import dlr, margin
from bench.norms import Norm
from bench.randomness import Streams

Loss = Literal["cross_entropy", "margin", "dlr"]


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, y, reduction="none")


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"cross_entropy": _cross_entropy, "margin": margin, "dlr": dlr}
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
    """Projected gradient ascent; it returns the first iterate that breaks the image, else the last one.

    The loops of the papers go on with an image that is broken, and may end in the right class again. Here it counts as
    broken and takes no more passes.

    Source: Madry et al. 2018, section 2.1; with the margin loss, CW_inf as in the released code of that paper.

    Raises:
        BadOption: a count below 1, a stride that is not positive, or an unknown loss or start.
    """

    version: ClassVar[int] = 2

    steps: int = 20
    stride: float = 0.25
    """Length of a step as a fraction of eps: 2/255 at eps 8/255."""
    loss: Loss = "cross_entropy"
    start: Literal["uniform", "zero"] = "uniform"
    """Where the walk begins: uniform in the ball, or at the image."""
    restarts: int = 1
    """Walks per image; of several, the iterate with the largest margin is returned."""

    def __post_init__(self) -> None:
        """Options that make no attack are refused."""
        require_one("a PGD", steps=self.steps, restarts=self.restarts)
        if not self.stride > 0:
            raise BadOption(f"stride of a PGD is {self.stride}; it is a fraction of eps and must be larger than 0")
        if self.loss not in LOSSES:
            raise BadOption(f"loss of a PGD is {self.loss!r}; choose one of {', '.join(LOSSES)}")
        if self.start not in ("uniform", "zero"):
            raise BadOption(f"start of a PGD is {self.start!r}; choose uniform or zero")
        if self.start == "zero" and self.restarts > 1:
            raise BadOption(f"{self.restarts} restarts of a PGD from zero are all the same; start from uniform")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams
    ) -> Attributed:
        """Where the walks end; an image's walk ends with the first iterate that breaks it."""
        standing = Standing(model, x, y)
        loss, own = LOSSES[self.loss], streams.fork(repr(self))
        logits = torch.empty(0)

        def gain(adv: Tensor) -> Tensor:
            nonlocal logits
            logits = standing.logits(adv)
            return loss(logits, standing.y)

        def leave(adv: Tensor) -> Tensor | None:
            standing.backwards[standing.rows] += 1
            return standing.see(adv, logits.detach())

        for restart in range(self.restarts):
            radius = torch.full(standing.y.shape, eps, dtype=x.dtype, device=x.device)
            drawn = own.fork(restart).select(standing.rows)
            start = norm.noise(drawn, standing.x, radius) if self.start == "uniform" else torch.zeros_like(standing.x)
            stride = self.stride * radius
            last = ascend(gain, standing.x, radius, stride, steps=self.steps, start=start, norm=norm, leave=leave)
            if self.restarts == 1:
                return standing.answer(last)
            if len(standing):
                with torch.no_grad():
                    standing.see(last, standing.logits(last))
            if not len(standing):
                break
        return standing.answer()

    def passes(self, classes: int) -> Passes:
        """One of each per step, and with several walks one more forward at the end of each."""
        return Passes(self.restarts * (self.steps + (self.restarts > 1)), self.restarts * self.steps)


FGSM_ATTACK = FGSM()
PGD_SAT = PGD()
PGD_TRADES = PGD(stride=0.003 * 255 / 8)
"""Steps of 0.003 at eps 8/255."""
CW = PGD(steps=30, loss="margin")
PGD_100 = PGD(steps=100, stride=0.1, loss="margin", restarts=5)
