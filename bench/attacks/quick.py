"""A small line-up for a first figure: a twentieth of the passes of AutoAttack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from bench.attacks.apgd import APGD
from bench.attacks.base import Passes
from bench.attacks.lineup import LineUp
from bench.attacks.malt import MALT
from bench.attacks.square import Square
from bench.attacks.standing import Search, Standing
from bench.losses import margin
from bench.norms import Norm, growth
from bench.randomness import Streams

PMA = APGD(loss="probability_margin", steps=30)
"""Probability margin attack.

Source: Xie et al. 2024, "Towards million-scale adversarial robustness evaluation with stronger individual attacks".
"""
NEAR_SHARE = 1 / 20
"""Share of the survivors that the forecast takes for near misses; on digits it is 5 to 15 %, but Square costs less."""


@dataclass(frozen=True)
class Pair(LineUp):
    """PMA, then MALT: APGD away from the right class, then towards the four wrong ones that seem nearest."""

    lineup: ClassVar[tuple[str, ...]] = ("pma", "malt")

    pma: APGD = PMA
    malt: MALT = MALT(steps=30)


@dataclass(frozen=True)
class Closer(Pair):
    """The same with fresh starts, then Square, which finds what gradients do not show."""

    lineup: ClassVar[tuple[str, ...]] = (*Pair.lineup, "square")

    square: Square = Square(queries=2000)


@dataclass(frozen=True)
class NearMisses(Search):
    """An attack on near misses alone: images that were almost broken.

    An image is a near miss if its nearest iterate so far is only a small share of eps away from the border, if the
    network were linear from there on. Nearly all images that long attacks break and short ones do not are among these.
    This depends on the image alone, so that results do not depend on the batch.
    """

    attack: Closer = Closer()
    reach: float = 0.08
    """How near that is, as a share of eps."""

    def search(self, standing: Standing, *, eps: float, norm: Norm, streams: Streams) -> None:
        """Attack the near misses, then show what was found to `standing`."""
        _, margins, grad = standing.slope(standing.nearest, margin)
        near = (-margins <= self.reach * eps * growth(grad, norm)).nonzero()[:, 0]
        if not len(near):
            return
        rows = standing.rows[near]
        few = Standing(standing.model, standing.x[near], standing.y[near])
        self.attack.search(few, eps=eps, norm=norm, streams=streams.fork("near-misses").select(rows))
        adv = standing.nearest.index_copy(0, near, few.answer().adv)
        standing.forwards[rows] += few.forwards
        standing.backwards[rows] += few.backwards
        with torch.no_grad():
            standing.see(adv, standing.logits(adv))
        standing.settle()

    def fitted(self, classes: int) -> Self:
        """With its attack as it is run on K classes."""
        return replace(self, attack=self.attack.fitted(classes))

    def passes(self, classes: int) -> Passes:
        """Those that tell whether an image is a near miss, and the attack's for the share that will be one."""
        forwards, backwards = self.attack.passes(classes)
        return Passes(2 + round(NEAR_SHARE * forwards), 1 + round(NEAR_SHARE * backwards))


@dataclass(frozen=True)
class Quick(Pair):
    """PMA and MALT on all images, then again on the near misses, with a short Square.

    Meant for development and for watching many checkpoints: some 400 passes per surviving image, a twentieth of what
    the reference AutoAttack takes; up to three times as many where few survive and most of those are near misses, as
    on digits in L2. On the networks it was tuned on (digits, six training methods, Linf) no more images survive it
    than AutoAttack, to within two in a thousand. It is no AutoAttack and is never shown as one: what gradients do not
    show it looks for on near misses only, so that on a network that masks them, where no image seems near, its figure
    can be far too high.
    """

    lineup: ClassVar[tuple[str, ...]] = (*Pair.lineup, "near-misses")

    near_misses: NearMisses = NearMisses()


QUICK = Quick()
