"""Models that seem robust and are not, and attacks that do not attack: each must be caught by a check."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.ascent import gradient
from bench.attacks.base import Attack
from bench.attacks.pgd import PGD
from bench.norms import per_image


class Around(nn.Module):
    """An honest network with something done to its pixels or its logits."""

    def __init__(
        self,
        net: nn.Module,
        *,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


def thousandfold(net: nn.Module) -> nn.Module:
    """Logits so large that the cross-entropy has no gradient left."""
    return Around(net, after=lambda logits: 1000 * logits)


def probabilities(net: nn.Module) -> nn.Module:
    """Probabilities in the place of logits."""
    return Around(net, after=lambda logits: logits.softmax(1))


def quantised(net: nn.Module) -> nn.Module:
    """Pixels of five levels; rounding has no gradient."""
    return Around(net, before=lambda x: (4 * x).round() / 4)


def thermometer(net: nn.Module) -> nn.Module:
    """Pixels as the number of thresholds that they pass (Buckman et al. 2018)."""

    def encoded(x: Tensor) -> Tensor:
        thresholds = torch.arange(1, 9).reshape(-1, 1, 1, 1, 1) / 8.5
        return (x > thresholds).float().mean(0) + 0 * x

    return Around(net, before=encoded)


def sign_layer(net: nn.Module) -> nn.Module:
    """Black or white pixels by a sign, whose gradient is zero."""
    return Around(net, before=lambda x: (1 + (x - 0.5).sign()) / 2)


def shattered(net: nn.Module) -> nn.Module:
    """A fine ripple on the pixels: the gradient is never zero and points to the next ripple, not to the next class."""
    return Around(net, before=lambda x: x + 0.01 * (2000 * x).sin())


def noisy(net: nn.Module) -> nn.Module:
    """Fresh noise on the pixels at every question."""
    return Around(net, before=lambda x: x + 0.2 * torch.randn_like(x))


class StubbornBatchNorm(nn.BatchNorm2d):
    """Stays in training mode whatever it is told."""

    def train(self, mode: bool = True) -> StubbornBatchNorm:
        return super().train(True)


def training(net: nn.Module) -> nn.Module:
    """BatchNorm layers that cannot be put into eval mode."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = StubbornBatchNorm
            module.train()
    return net


def batch_statistics(net: nn.Module) -> nn.Module:
    """In eval mode, but with BatchNorm layers that normalise by the batch they see."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    return net


def normalised_outside(net: nn.Module) -> nn.Module:
    """A network for pixels that the data loader has standardised by (x - 0.3) / 0.38."""
    return Around(net, before=lambda z: 0.38 * z + 0.3)


def detached(net: nn.Module) -> nn.Module:
    """Copies its pixels out of the graph; its weights are in it."""
    return Around(net, before=lambda x: x.detach())


def blinding(net: nn.Module) -> nn.Module:
    """The root of the square of a pixel: where it is 0 the gradient is no number."""
    return Around(net, before=lambda x: (x * x).sqrt())


MODELS: Mapping[Callable[[nn.Module], nn.Module], tuple[str, ...]] = {
    thousandfold: ("logit-scale", "zero-gradient"),
    probabilities: ("logits",),
    quantised: ("zero-gradient", "black-box"),
    thermometer: ("zero-gradient",),
    sign_layer: ("zero-gradient",),
    shattered: ("finite-difference",),
    noisy: ("determinism",),
    training: ("eval-mode",),
    batch_statistics: ("batch-invariance",),
    normalised_outside: ("input-domain",),
    detached: ("finite-difference",),
    blinding: ("nan-gradient",),
}
"""What makes each impostor of an honest network, and the checks that must fail it."""


@dataclass(frozen=True)
class Lazy(Attack):
    """Returns its input."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        return x


@dataclass(frozen=True)
class Overshooting(Attack):
    """Takes eps for a little more than it is."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        return PGD()(model, x, y, eps=1.01 * eps, norm=norm, streams=streams).adv


@dataclass(frozen=True)
class Backwards(Attack):
    """Goes down the loss."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        adv = x.clone().requires_grad_()
        grad = gradient(nn.functional.cross_entropy(model(adv), y, reduction="none"), adv)
        return (x - eps * norm.steepest(grad)).clamp(0, 1)


@dataclass(frozen=True)
class Forgetful(Attack):
    """Breaks images and then gives them back almost as they were."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        adv = PGD()(model, x, y, eps=eps, norm=norm, streams=streams).adv
        return x + per_image(torch.full(y.shape, 0.01), x) * (adv - x)
