"""The inner maximisation of adversarial training, with the choices in which papers differ made explicit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.attacks.ascent import ascend
from bench.norms import LINF
from bench.training.ranges import Count, Ranged
from bench.training.recipe import Objective
from bench.training.values import Context, Reach

Mode = Literal["train", "eval"]


@contextmanager
def switched(model: nn.Module, mode: Mode) -> Iterator[None]:
    """The model in train or eval mode for a while."""
    was = model.training
    model.train(mode == "train")
    try:
        yield
    finally:
        model.train(was)


@dataclass(frozen=True)
class Inner(Ranged):
    """Projected gradient ascent while training."""

    steps: Count = 10
    start: Literal["uniform", "gaussian"] = "uniform"
    """Uniform in the ball, or 0.001 times a standard normal."""
    mode: Mode = "eval"
    """Mode of the model during the attack; in train mode BatchNorm uses and updates batch statistics."""

    def __call__(self, ctx: Context, gain: Callable[[Tensor], Tensor], x: Tensor, reach: Reach) -> Tensor:
        """Adversarial images (B,C,H,W) within reach of `x`, climbing `gain` (B,C,H,W) -> (B,)."""
        streams = ctx.streams.fork("start")
        if self.start == "uniform":
            start = LINF.noise(streams, x, reach.eps)
        else:
            start = 0.001 * streams.normal(tuple(x.shape[1:]))
        with switched(ctx.model, self.mode), torch.enable_grad():
            return ascend(gain, x, reach.eps, reach.step, steps=self.steps, start=start)


class Adversarial(Ranged, Objective):
    """An objective that perturbs by its field `inner`; inherit from it."""

    inner: Inner

    def attack_steps(self) -> int:
        """Those of `inner`."""
        return self.inner.steps
