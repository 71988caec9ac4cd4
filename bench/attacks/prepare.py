"""A model made ready to be attacked, and put back as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.ascent import gradient
from bench.attacks.folding import fold

SMALL = 16 * 16
"""Pixels of an image below which passes without gradient keep the layout that torch has by default.

Measured on one thread of an x86 CPU with AVX-512 (torch 2.13), folded convnets in channels_last against those in the
default layout. Passes with gradient: 0.9 to 2.2 times as fast, whatever the size. Passes without: 0.6 to 0.9 times on
8x8 and 12x12 pixels, 0.9 to 1.2 on 16x16, 1.1 to 1.4 from 28x28 on. ResNet-18 on 32x32: 1.05 and 1.0.
"""
ROUNDING = 1000
"""Logits of the faster network may differ by so many units in the last place of their length; folding takes a few.

Gradients may differ by the root of that: they jump where rounding carries an activation over its kink.
"""


@contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """For a while the model is in eval mode with frozen parameters; then every mode and flag is what it was.

    Frozen parameters cost no gradients, and an attack that calls `backward` cannot leave any in them. Convolutions on
    CUDA compute in full fp32 meanwhile, not in the TF32 that is torch's default.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with _full_precision():
        try:
            model.eval()
            model.requires_grad_(False)
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, wanted in flags:
                parameter.requires_grad_(wanted)


@contextmanager
def _full_precision() -> Iterator[None]:
    tf32 = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def own_randomness() -> Iterator[None]:
    """Within, code may seed and draw global randomness; then torch's, numpy's and Python's are what they were."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def search_model(model: nn.Module, probe: Tensor) -> nn.Module:
    """The same network made faster, for attacks to search with; the evaluator asks the original.

    It is a frozen copy in eval mode, with BatchNorm folded and, on the CPU, in channels_last. On the probe its logits
    and gradients must be those of the original up to rounding. If they are not, less is changed. If nothing can be
    changed (the network cannot be copied, its answers are random, it has hooks), the original itself is returned. The
    original is never called here.

    torch.compile is left out: it took 80 s to make passes 5 % faster (ResNet-18, one CPU thread).

    Args:
        model: pixels (B,C,H,W) in [0, 1] to logits (B,K).
        probe: (B,C,H,W) a few of the images to be attacked, on the model's device.
    """
    if any(_watched(module) for module in model.modules()):
        return model
    with own_randomness(), _full_precision(), torch.enable_grad():
        for folded, relaid in ((True, True), (True, False), (False, True)):
            try:
                twin = _twin(model, probe, folded=folded, relaid=relaid)
                if twin is not None and _agree(_answers(_copy(model), probe), _answers(twin, probe)):
                    return twin
            except Exception:  # whatever fails in a foreign network here, the original does not need it
                continue
    return model


class ByUse(nn.Module):
    """A network in two forms, one for passes with gradient and one for those without. Gradients come out contiguous."""

    def __init__(self, slopes: nn.Module, answers: nn.Module) -> None:
        """Take both, in eval mode."""
        super().__init__()
        self.slopes, self.answers = slopes, answers
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) pixels to (B,K) logits."""
        if torch.is_grad_enabled() and x.requires_grad:
            # Through a flat view: on the way back through it the gradient leaves channels_last.
            logits: Tensor = self.slopes(x.flatten(1).reshape(x.shape))
        else:
            logits = self.answers(x)
        return logits


def _watched(module: nn.Module) -> bool:
    """Whether a hook watches its passes, or it is compiled."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or hasattr(module, "_orig_mod") or module._compiled_call_impl is not None


def _twin(model: nn.Module, probe: Tensor, *, folded: bool, relaid: bool) -> nn.Module | None:
    """A faster copy; None if nothing would become faster."""
    twin = _copy(model)
    folds = fold(twin, probe) if folded else 0
    if relaid and probe.device.type == "cpu" and any(weight.ndim == 4 for weight in twin.parameters()):
        answers = copy.deepcopy(twin) if probe.shape[2:].numel() < SMALL else twin
        slopes = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        return ByUse(slopes, answers)
    return twin if folds else None


def _copy(model: nn.Module) -> nn.Module:
    """A frozen copy in eval mode that shares nothing with the original.

    Raises:
        ValueError: its way of being copied leaves it sharing something.
    """
    twin = copy.deepcopy(model)
    own, copied = (
        {id(part) for part in (*network.modules(), *network.parameters(), *network.buffers())}
        for network in (model, twin)
    )
    if own & copied:
        raise ValueError("the copy shares modules or tensors with the original")
    twin.eval()
    twin.requires_grad_(False)
    return twin


def _answers(network: nn.Module, probe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B,K) without and with gradient, and the gradient (B,C,H,W) of a random linear functional of them."""
    with torch.no_grad():
        alone: Tensor = network(probe.clone())
    leaf = probe.detach().clone().requires_grad_()
    logits: Tensor = network(leaf.clone())
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
    grad = gradient((logits * direction).sum(1), leaf) if logits.requires_grad else torch.zeros_like(leaf)
    return alone, logits.detach(), grad


def _agree(wanted: tuple[Tensor, Tensor, Tensor], found: tuple[Tensor, Tensor, Tensor]) -> bool:
    """Whether answers are the same up to rounding. NaN never are."""
    slack = ROUNDING * torch.finfo(wanted[0].dtype).eps
    return all(
        bool((one - other).norm() <= tolerance * one.norm())
        for one, other, tolerance in zip(wanted, found, (slack, slack, slack**0.5), strict=True)
    )
