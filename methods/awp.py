"""AWP: adversarial weight perturbation; descend from the worst weights near the current ones.

The loss is flattened in weight space: each kernel is moved up the gradient by a fraction of its own norm, the step
is computed there, and the perturbation is taken back.

Paper:   Wu et al., NeurIPS 2020 (arXiv 2004.05884)
Code:    csdongxian/AWP @ a7acf5d, utils_awp.py
Claim:   CIFAR-10, AutoAttack: AT-AWP WideResNet-34-10 53.97, TRADES-AWP 56.17 (official README)
Departs: no proxy network: its step size cancels, the perturbation is gamma ||w|| g / ||g|| (equal to 1e-7).
         The release forwards the last iterate, and after the step the clean images, once more in train mode.
         ADR's release moves every parameter, biases and BatchNorm too (`step.tensors=all`), and takes BatchNorm
         statistics from the pass before the perturbation, not from the one at the perturbed weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.api import Context, Count, Descend, Losses, Method, NotNegative, Ranged
from methods.combinations import in_company


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm in train mode without moving its running statistics or counters."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    was = [(m.momentum, m.num_batches_tracked) for m in layers]
    for m in layers:
        m.momentum = 0.0
        m.num_batches_tracked = None if m.num_batches_tracked is None else m.num_batches_tracked.clone()
    try:
        yield
    finally:
        for m, (momentum, counter) in zip(layers, was, strict=True):
            m.momentum, m.num_batches_tracked = momentum, counter


@contextmanager
def moved(weights: list[Tensor], offsets: list[Tensor]) -> Iterator[None]:
    """The weights displaced, and taken back by the same displacement afterwards."""
    with torch.no_grad():
        torch._foreach_add_(weights, offsets)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_sub_(weights, offsets)


@dataclass(frozen=True)
class AWP(Ranged):
    """One step of descent at the perturbed weights."""

    gamma: NotNegative = 0.01
    """Size of the perturbation relative to the norm of what is moved."""
    begin: Count = 0
    """Epochs of plain descent before."""
    tensors: Literal["kernels", "all"] = "kernels"
    """What is moved, each tensor by its own norm: weights of two or more dimensions, or every parameter."""

    def __call__(
        self, ctx: Context, optimizer: torch.optim.Optimizer, objective: Callable[[], tuple[Tensor, Losses]]
    ) -> tuple[Tensor, Losses]:
        """Climb in weight space, descend from there, step back."""
        descend = Descend()
        if ctx.epoch < self.begin:
            return descend(ctx, optimizer, objective)
        named = list(ctx.model.named_parameters())
        weights: list[Tensor] = [w for n, w in named if self.tensors == "all" or (w.ndim > 1 and "weight" in n)]
        with statistics_kept(ctx.model):
            gradients = torch.autograd.grad(objective()[0], weights)
        with torch.no_grad():
            offsets = [self.gamma * w.norm() * g / (g.norm() + 1e-20) for w, g in zip(weights, gradients, strict=True)]
        with moved(weights, offsets):
            return descend(ctx, optimizer, objective)


METHOD = Method(slots={"step": AWP()}, on="pgd-at", module=__name__, presets=in_company("awp", step=AWP()))
