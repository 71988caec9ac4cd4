"""Attacks in a row, each on what the ones before left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from bench.attacks.base import Attributed, Passes
from bench.attacks.standing import Search, Standing
from bench.norms import Norm
from bench.randomness import Streams


@dataclass(frozen=True)
class LineUp(Search):
    """Inherit from this class; make the attacks its only fields, in their order, and list their names in `lineup`.

    The first attack that breaks an image ends the work on it. For an image that survives them all, the iterate with the
    largest margin over all attacks is returned.
    """

    @property
    def parts(self) -> tuple[Search, ...]:
        """The attacks in their order."""
        return tuple(vars(self).values())

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams
    ) -> Attributed:
        """Adversarial images, and which attack broke each; see `Attack`."""
        standing = Standing(model, x, y)
        by = torch.full_like(y, -1)
        for position, part in enumerate(self.parts):
            part.search(standing, eps=eps, norm=norm, streams=streams)
            standing.settle()
            by = by.where((by >= 0) | ~standing.fallen, position)
            if not len(standing):
                break
        return standing.answer()._replace(by=by)

    def search(self, standing: Standing, *, eps: float, norm: Norm, streams: Streams) -> None:
        """Run them all as a part of a longer line-up."""
        for part in self.parts:
            if len(standing):
                part.search(standing, eps=eps, norm=norm, streams=streams)
                standing.settle()

    def fitted(self, classes: int) -> Self:
        """With every attack as it is run on so many classes."""
        return replace(self, **{name: part.fitted(classes) for name, part in vars(self).items()})

    def passes(self, classes: int) -> Passes:
        """The sum over the attacks."""
        counts = [part.passes(classes) for part in self.parts]
        return Passes(sum(count.forwards for count in counts), sum(count.backwards for count in counts))

    def spared(self, shape: tuple[int, int, int]) -> int:
        """The sum over the attacks."""
        return sum(part.spared(shape) for part in self.parts)
