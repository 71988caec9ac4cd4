"""Norm balls as values: what an attack needs to know of a threat model's geometry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from bench.errors import BadBudget
from bench.randomness import Streams


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(B,) values shaped (B,1,...,1), to broadcast over images `like` (B,...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def growth(grad: Tensor, norm: Norm) -> Tensor:
    """(B,) how much a linear function with gradient `grad` (B,...) grows at most per unit of `norm`: its dual norm."""
    return (grad * norm.steepest(grad)).flatten(1).sum(1)


class Norm(Protocol):
    """Geometry of one kind of ball. Perturbations are (B,...), radii (B,), in the unit of the pixels."""

    @property
    def name(self) -> str:
        """As it is written in studies and databases."""

    def size(self, delta: Tensor) -> Tensor:
        """(B,) norm of each perturbation."""

    def steepest(self, grad: Tensor) -> Tensor:
        """The perturbation of norm 1 along which a linear function with gradient `grad` grows most."""

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        """The nearest perturbation within `eps`."""

    def noise(self, streams: Streams, like: Tensor, eps: Tensor) -> Tensor:
        """A random start within `eps`, shaped as the images `like`."""


@dataclass(frozen=True)
class LinfNorm:
    """Largest change of any pixel."""

    name: str = "Linf"

    def size(self, delta: Tensor) -> Tensor:
        """(B,) largest absolute entry."""
        return delta.flatten(1).abs().amax(1)

    def steepest(self, grad: Tensor) -> Tensor:
        """Sign of the gradient; 0 where it is 0."""
        return grad.sign()

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        """Clamp every entry to [-eps, eps]."""
        radius = per_image(eps, delta)
        return delta.clamp(-radius, radius)

    def noise(self, streams: Streams, like: Tensor, eps: Tensor) -> Tensor:
        """Uniform in the cube."""
        return (2 * streams.uniform(tuple(like.shape[1:])) - 1) * per_image(eps, like)


@dataclass(frozen=True)
class L2Norm:
    """Euclidean length of the change over all pixels."""

    name: str = "L2"

    def size(self, delta: Tensor) -> Tensor:
        """(B,) Euclidean length."""
        length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return length

    def steepest(self, grad: Tensor) -> Tensor:
        """Gradient scaled to length 1; 0 where it vanishes.

        It is scaled by its largest entry first: the squares of a saturated loss's gradient, 1e-22 and below, are 0 in
        float32, and the attack would be blind.
        """
        largest = LINF.size(grad)
        scaled = grad / per_image(largest.where(largest > 0, 1), grad)
        length = self.size(scaled)
        return scaled / per_image(length.where(length > 0, 1), grad)

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        """Shorten what is longer than eps."""
        length = self.size(delta)
        return delta * per_image((eps / length).where(length > eps, 1), delta)

    def noise(self, streams: Streams, like: Tensor, eps: Tensor) -> Tensor:
        """Uniform direction; radius such that the density is uniform in the ball."""
        shape = tuple(like.shape[1:])
        direction = self.steepest(streams.normal(shape))
        radius = streams.fork("radius").uniform(()) ** (1 / direction[0].numel()) if len(direction) else eps
        return direction * per_image(eps * radius, like)


LINF: Norm = LinfNorm()
L2: Norm = L2Norm()
NORMS: Mapping[str, Norm] = MappingProxyType({"Linf": LINF, "L2": L2})


def norm(name: str) -> Norm:
    """The norm called `name`.

    Raises:
        BadBudget: none is called so.
    """
    if name not in NORMS:
        raise BadBudget(f"norm {name!r} is not supported; choose one of {', '.join(NORMS)}")
    return NORMS[name]
