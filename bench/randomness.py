"""Counter-based randomness: one independent stream per image.

Every random number is a pure function of (seed, names forked on the way, image, draw), so a result does not
depend on batch size, order, sharding, device or on what was drawn before, and nothing has to be saved to
resume. The bits are SplitMix64 (Steele et al., OOPSLA 2014) of a counter, computed in int64 tensor arithmetic.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as an unsigned `value`."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


def _splitmix(z: Tensor) -> Tensor:
    """Finaliser of SplitMix64; int64 wraps as uint64 does, shifts are made logical by masking."""
    for shift, factor in _MIX:
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return z ^ ((z >> 31) & ((1 << 33) - 1))


@dataclass(frozen=True)
class Streams:
    """Randomness for a batch of images.

    Attributes:
        seed: names the whole experiment.
        samples: (B,) int64, identity of each image (its row in the data set's split).
    """

    seed: int
    samples: Tensor

    def fork(self, name: str | int) -> Streams:
        """Independent streams for a purpose: an attack, an epoch, a restart."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return replace(self, seed=_signed(int.from_bytes(digest[:8], "big")))

    def select(self, rows: Tensor) -> Streams:
        """The streams of some images; `rows` is an index or a boolean mask."""
        return replace(self, samples=self.samples[rows])

    def uniform(self, shape: tuple[int, ...], draw: int = 0) -> Tensor:
        """(B, *shape) float32, uniform on [0, 1); another `draw` gives fresh numbers."""
        size = math.prod(shape)
        start = _splitmix(self.samples * _GOLDEN + _signed(self.seed))
        counter = torch.arange(draw * size + 1, (draw + 1) * size + 1, device=self.samples.device)
        bits = _splitmix(start[:, None] + counter * _GOLDEN)
        mantissa = (bits >> 40) & ((1 << 24) - 1)
        return (mantissa.to(torch.float32) * 2**-24).reshape(-1, *shape)

    def normal(self, shape: tuple[int, ...], draw: int = 0) -> Tensor:
        """(B, *shape) float32, standard normal by Box and Muller's transform."""
        u, v = self.uniform((2, *shape), draw).unbind(1)
        return (-2 * torch.log1p(-u)).sqrt() * torch.cos(2 * math.pi * v)


def permutation(seed: int, n: int) -> Tensor:
    """(n,) a random order of 0..n-1, the same for the same seed on every device."""
    return Streams(seed, torch.arange(n)).uniform(()).argsort(stable=True)
