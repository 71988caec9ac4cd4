"""The random changes of square windows that Square puts to the model, drawn for a block of queries at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.norms import per_image
from bench.randomness import Streams

TINY = 1e-12
"""Keeps a window without any perturbation from being divided by 0."""


class Block(Protocol):
    """N queries about each of the A images that stand."""

    @property
    def code(self) -> Tensor:
        """(A,N) int64 in [0, codes): queries of the same code change an image in the same way."""

    def candidate(self, turn: int, best: Tensor) -> Tensor:
        """(A,C,H,W) the best images so far, as query `turn` changes them."""

    def select(self, rows: Tensor) -> Self:
        """The queries about some of the images."""


class Changes(Protocol):
    """What Square changes in one geometry. Every image has its own windows, signs and patterns."""

    def start(self, x: Tensor, eps: float, streams: Streams) -> Tensor:
        """(A,C,H,W) where the walk begins."""

    def side(self, share: float, height: int, width: int) -> int:
        """Side in pixels of a window that covers about that share of the image."""

    def codes(self, side: int, channels: int, height: int, width: int) -> int:
        """How many different queries there are with windows of that side."""

    def block(self, x: Tensor, eps: float, side: int, count: int, streams: Streams, draw: int) -> Block:
        """`count` queries about each image of `x`; another `draw` gives fresh ones."""


@dataclass(frozen=True)
class Flips:
    """Linf: within a window each channel is set to x - eps or x + eps, clipped to [0, 1]. The start is such stripes.

    Source: Andriushchenko et al. 2020, section 3.3 and algorithm 2.
    """

    def start(self, x: Tensor, eps: float, streams: Streams) -> Tensor:
        """Stripes of random sign, one pixel wide."""
        _, channels, _, width = x.shape
        low, high = _interval(x, eps)
        return high.where(streams.uniform((channels, 1, width)) < 0.5, low)

    def side(self, share: float, height: int, width: int) -> int:
        """At least 1."""
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    def codes(self, side: int, channels: int, height: int, width: int) -> int:
        """A corner and a sign per channel."""
        return ((height - side + 1) * (width - side + 1)) << channels

    def block(self, x: Tensor, eps: float, side: int, count: int, streams: Streams, draw: int) -> FlipBlock:
        """Windows anywhere in the image, a sign per channel."""
        _, channels, height, width = x.shape
        drawn = streams.uniform((count, 2 + channels), draw)
        top, left = _corner(drawn[..., 0], height - side), _corner(drawn[..., 1], width - side)
        up = drawn[..., 2:] < 0.5
        # More than the 2 eps from end to end, so that rounding leaves no pixel short of the end.
        step = torch.where(up, 3 * eps, -3 * eps)[..., None, None] * _within(top, side, height)[:, :, None, :, None]
        columns = _within(left, side, width)[:, :, None, None]
        low, high = _interval(x, eps)
        code = _numbered((top, left), up, (height - side + 1, width - side + 1))
        return FlipBlock(low, high, step, columns, code)


@dataclass(frozen=True)
class FlipBlock:
    """Queries in Linf."""

    low: Tensor
    """(A,C,H,W) ends of each pixel's interval."""
    high: Tensor
    step: Tensor
    """(A,N,C,H,1) by how much to change the rows of the window."""
    columns: Tensor
    """(A,N,1,1,W) 1 in the columns of the window, else 0."""
    code: Tensor

    def candidate(self, turn: int, best: Tensor) -> Tensor:
        """The window set to one end of the interval."""
        return best.addcmul(self.step[:, turn], self.columns[:, turn]).clamp(self.low, self.high)

    def select(self, rows: Tensor) -> FlipBlock:
        """The queries about some of the images."""
        return FlipBlock(self.low[rows], self.high[rows], self.step[rows], self.columns[rows], self.code[rows])


@dataclass(frozen=True)
class Transfers:
    """L2: the perturbation of one window is removed; another gets its length, and a pattern of two bumps on top.

    The perturbation has norm eps before it is clipped to [0, 1]; what the clipping takes away can be used again by the
    next change. The start is a grid of such patterns.

    Source: Andriushchenko et al. 2020, section 3.4, algorithm 3 and supplement B.
    """

    def start(self, x: Tensor, eps: float, streams: Streams) -> Tensor:
        """Patterns a fifth of the shorter side wide, as many as fit, centred."""
        count, channels, height, width = x.shape
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        drawn = streams.uniform((down, across, 1 + channels))
        tiles = patterns(side, x.device)[(drawn[..., 0] < 0.5).long()]  # (A,down,across,side,side)
        signs = _signs(drawn[..., 1:]).permute(0, 3, 1, 2)[..., None, None]
        grid = (signs * tiles[:, None]).transpose(3, 4).reshape(count, channels, down * side, across * side)
        above, before = (height - down * side) // 2, (width - across * side) // 2
        rest = (before, width - across * side - before, above, height - down * side - above)
        return _at_distance(x, F.pad(grid, rest), eps)

    def side(self, share: float, height: int, width: int) -> int:
        """Odd and at least 3, or the image's shorter side."""
        side = max(round(math.sqrt(share * height * width)), 3)
        return min(side + (side % 2 == 0), height, width)

    def codes(self, side: int, channels: int, height: int, width: int) -> int:
        """Two corners, a pattern and a sign per channel."""
        return ((height - side + 1) * (width - side + 1)) ** 2 << (1 + channels)

    def block(self, x: Tensor, eps: float, side: int, count: int, streams: Streams, draw: int) -> TransferBlock:
        """Two windows anywhere in the image, a pattern upright or lying, a sign per channel."""
        _, channels, height, width = x.shape
        drawn = streams.uniform((count, 5 + channels), draw)
        tops, lefts = _corner(drawn[..., :2], height - side), _corner(drawn[..., 2:4], width - side)
        rows = torch.arange(height, device=x.device) - tops[..., :1]
        columns = torch.arange(width, device=x.device) - lefts[..., :1]
        # Read from the two patterns with a border of 0s, where all that is outside the window lands.
        bordered = F.pad(patterns(side, x.device), (1, 1, 1, 1)).flatten()
        lying = (drawn[..., 4:5] < 0.5) * (side + 2)
        corners = (tops[..., 0], lefts[..., 0], tops[..., 1], lefts[..., 1])
        return TransferBlock(
            x,
            eps,
            bordered,
            ((rows.clamp(-1, side) + 1 + lying) * (side + 2))[..., None],
            (columns.clamp(-1, side) + 1)[..., None, :],
            _within(tops, side, height)[..., None],
            _within(lefts, side, width)[..., None, :],
            _signs(drawn[..., 5:])[..., None, None],
            _numbered(corners, drawn[..., 4:] < 0.5, (height - side + 1, width - side + 1) * 2),
        )


@dataclass(frozen=True)
class TransferBlock:
    """Queries in L2."""

    x: Tensor
    """(A,C,H,W)."""
    eps: float
    bordered: Tensor
    """The two patterns, flat, with a border of 0s."""
    down: Tensor
    """(A,N,H,1) where each row is in `bordered`."""
    along: Tensor
    """(A,N,1,W) and how much further each column."""
    rows: Tensor
    """(A,N,2,H,1) 1 in the rows of the two windows, else 0."""
    columns: Tensor
    """(A,N,2,1,W) likewise."""
    signs: Tensor
    """(A,N,C,1,1)."""
    code: Tensor

    def candidate(self, turn: int, best: Tensor) -> Tensor:
        """The first window has the length of both, the second none."""
        delta = best - self.x
        windows = self.rows[:, turn] * self.columns[:, turn]
        first, both = windows[:, :1], torch.maximum(windows[:, :1], windows[:, 1:])
        there, moved = delta * first, delta * both
        spare = (self.eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp(min=0)
        budget = spare / delta.shape[1] + moved.square().sum((2, 3), keepdim=True)
        place = self.down[:, turn] + self.along[:, turn]
        pattern = self.bordered.index_select(0, place.flatten()).view_as(place)[:, None]
        shape = there / (_length(there) + TINY) + self.signs[:, turn] * pattern
        return _at_distance(self.x, delta - moved + shape * (budget.sqrt() / (_length(shape) + TINY)), self.eps)

    def select(self, rows: Tensor) -> TransferBlock:
        """The queries about some of the images."""
        return replace(
            self,
            x=self.x[rows],
            down=self.down[rows],
            along=self.along[rows],
            rows=self.rows[rows],
            columns=self.columns[rows],
            signs=self.signs[rows],
            code=self.code[rows],
        )


CHANGES: Mapping[str, Changes] = MappingProxyType({"Linf": Flips(), "L2": Transfers()})


def patterns(side: int, device: torch.device) -> Tensor:
    """(2,side,side) of norm 1: a bump above a trough, and the two side by side.

    Source: Andriushchenko et al. 2020, supplement B; square.py of the released code.
    """
    above = side // 2
    upright = torch.cat([_bump(above, side, device), -_bump(side - above, side, device)])
    upright = upright / torch.linalg.vector_norm(upright)
    return torch.stack([upright, upright.T])


def _bump(height: int, width: int, device: torch.device) -> Tensor:
    """(height,width) of norm 1, falling from the centre: the sum of 1/(k+1)^2 over k from the distance on."""
    down = torch.arange(height, device=device) - height // 2
    along = torch.arange(width, device=device) - width // 2
    distance = torch.maximum(down.abs()[:, None], along.abs())
    terms = torch.arange(1, max(height, width) // 2 + 2, device=device, dtype=torch.float32) ** -2
    bump: Tensor = terms.flip(0).cumsum(0).flip(0)[distance]
    bump /= torch.linalg.vector_norm(bump)
    return bump


def _interval(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Lowest and highest value that each pixel may have."""
    return (x - eps).clamp(min=0), (x + eps).clamp(max=1)


def _corner(uniform: Tensor, last: int) -> Tensor:
    """First row or column of a window, uniform on 0 to `last`, from numbers uniform on [0, 1)."""
    return (uniform * (last + 1)).long()


def _within(first: Tensor, side: int, size: int) -> Tensor:
    """(...,size) float: 1 for the `side` places from `first` (...) on, else 0."""
    place = torch.arange(size, device=first.device)
    return ((place >= first[..., None]) & (place < first[..., None] + side)).to(torch.float32)


def _numbered(corners: Sequence[Tensor], bits: Tensor, places: Sequence[int]) -> Tensor:
    """(A,N) a number for each combination of corners (A,N), of so many places each, and bits (A,N,bits)."""
    code = torch.zeros_like(corners[0])
    for corner, count in zip(corners, places, strict=True):
        code = code * count + corner
    for bit in bits.unbind(-1):
        code = code * 2 + bit
    return code


def _signs(uniform: Tensor) -> Tensor:
    """1 or -1, from numbers uniform on [0, 1)."""
    return torch.where(uniform < 0.5, 1.0, -1.0)


def _length(delta: Tensor) -> Tensor:
    """(A,C,1,1) Euclidean length of each channel."""
    length: Tensor = torch.linalg.vector_norm(delta, dim=(2, 3), keepdim=True)
    return length


def _at_distance(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """x + delta, with delta brought to length eps, clipped to [0, 1]."""
    length = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return (x + delta * per_image(eps / (length + TINY), delta)).clamp(0, 1)
