"""Square: random search over square windows, by the model's answers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bench.attacks.base import Passes, require_one
from bench.attacks.square_windows import CHANGES, Block, Changes
from bench.attacks.standing import Search, Standing, patience
from bench.errors import BadBudget, BadOption
from bench.losses import margin
from bench.norms import Norm, per_image
from bench.randomness import Streams

HALVINGS = (11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)
"""At each of these queries, counted from 0, the area of the windows is halved."""
AHEAD = 100
"""So many queries are drawn at once."""
REMEMBERED = 2_000
"""If more different queries than this are possible with windows of one side, none is remembered: few would repeat."""
ROUNDING = 3e-6
"""The margin must rise by more than this share of the largest logit. The margin of the same image differs by up to 5e-7
of it from one batch to another; if that counted, the walk would depend on the batch where a change has no effect."""


@dataclass(frozen=True)
class Square(Search):
    """A query changes one window of the best image so far; the change is kept if it raises the margin beyond rounding.

    Beside that it differs from the released code in three points. Every image has windows, signs and patterns of its
    own; there the images of a batch share them. Windows can reach the last row and column; there a rounding prevents
    it. And a query is counted but not put to the model if its answer is known: if it leaves the image as it is, or was
    put before and the image has not changed since.

    Source: Andriushchenko et al. 2020, algorithm 1. The schedule is that of the released code, made for 10,000 queries
    and, as in the standard AutoAttack, not rescaled to fewer.

    Raises:
        BadOption: a count below 1, or a share that is none.
        BadBudget: a geometry that is neither Linf nor L2.
    """

    queries: int = 5000
    p_init: float = 0.8
    """Share of the image that the first windows cover."""
    restarts: int = 1

    def __post_init__(self) -> None:
        """Options that make no attack are refused."""
        require_one("a Square", queries=self.queries, restarts=self.restarts)
        if not 0 < self.p_init <= 1:
            raise BadOption(f"p_init of a Square is {self.p_init}; it is a share of the image, above 0 and at most 1")

    def passes(self, classes: int) -> Passes:
        """At most one at the start and one per query; on small grey images most queries need none."""
        return Passes(self.restarts * (1 + self.queries), 0)

    def spared(self, shape: tuple[int, int, int]) -> int:
        """Queries whose answer is known, in Linf on a CPU, if an image changes once, half way, under windows of a side.

        Of n queries with c codes, each as likely as the others, c (1 - (1 - 1/c)^n) are different.
        """
        changes, asked = CHANGES["Linf"], Counter[int]()
        for first, last, share in self.phases():
            asked[changes.side(share, *shape[1:])] += last - first
        spared = 0.0
        for side, queries in asked.items():
            codes = changes.codes(side, *shape)
            if codes <= REMEMBERED:
                spared += queries - 2 * codes * (1 - (1 - 1 / codes) ** (queries / 2))
        return self.restarts * round(spared)

    def search(self, standing: Standing, *, eps: float, norm: Norm, streams: Streams) -> None:
        """One walk per restart."""
        if norm.name not in CHANGES:
            raise BadBudget(f"Square searches in {' and '.join(CHANGES)}, not in {norm.name}; choose another attack")
        own = streams.fork("square")
        for restart in range(self.restarts):
            if len(standing):
                self.walk(standing, CHANGES[norm.name], eps, own.fork(restart))

    @torch.no_grad()
    def walk(self, standing: Standing, changes: Changes, eps: float, drawn: Streams) -> None:
        """Search until all have fallen or the queries are spent.

        Args:
            standing: the images.
            changes: start and windows.
            eps: radius of the ball.
            drawn: randomness of the whole batch.
        """
        shape = standing.x.shape[1:]
        best = Best(standing, changes.start(standing.x, eps, drawn.fork("start").select(standing.rows)))
        for first, last, share in self.phases():
            side = changes.side(share, *shape[1:])
            best.turn_to(side, changes.codes(side, *shape))
            for draw, begin in enumerate(range(first, last, AHEAD)):
                if best.final:
                    break
                own = drawn.fork(first).select(standing.rows)
                block = changes.block(standing.x, eps, side, AHEAD, own, draw)
                best.ask(block, range(begin, min(begin + AHEAD, last)))
        standing.settle()

    def phases(self) -> Iterator[tuple[int, int, float]]:
        """Phases: the first query, the one after the last, and the share of the image that their windows cover."""
        ends = [0, *(first for first in HALVINGS if first < self.queries), self.queries]
        for halvings, (first, last) in enumerate(pairwise(ends)):
            yield first, last, self.p_init / 2**halvings


class Best:
    """The best images that a walk has found so far, for those that stand.

    Attributes:
        adv: (A,C,H,W).
        margin: (A,) their margins.
        memory: what was asked about them; None where it costs more than it saves.
    """

    def __init__(self, standing: Standing, start: Tensor) -> None:
        """Begin at images (A,C,H,W)."""
        self.adv, self.margin = start, torch.full_like(standing.margin, -torch.inf)
        self.memory: Memory | None = None
        self._standing = standing
        self._look(start, standing.logits(start))

    def turn_to(self, side: int, codes: int) -> None:
        """From now on windows have another side, and so many different queries are possible with them.

        Nothing is remembered where queries hardly repeat, nor on a GPU, where leaving images out would make the host
        wait for the device.
        """
        if self.memory is not None and self.memory.side == side:
            return
        known = codes <= REMEMBERED and patience(self.margin.device) == 1
        self.memory = Memory(side, codes, self.margin) if known else None

    @property
    def final(self) -> bool:
        """Whether no query with these windows can change anything."""
        return not len(self._standing) or (self.memory is not None and self.memory.exhausted)

    def ask(self, block: Block, numbers: range) -> None:
        """Put queries of a block to the model, from its first on, and keep what is better; they have these numbers."""
        for turn, number in enumerate(numbers):
            if not len(self._standing):
                return
            rows = self._ask(block, turn, number)
            if rows is not None:
                block = block.select(rows)

    def _ask(self, block: Block, turn: int, number: int) -> Tensor | None:
        """Put one query; answers which rows go on, None for all."""
        if self.memory is None:
            adv = block.candidate(turn, self.adv)
            return self._look(adv, self._standing.logits(adv))
        fresh = self.memory.fresh(block.code[:, turn], number)
        if not fresh.any():
            return None
        adv = block.candidate(turn, self.adv)
        useful = fresh & (adv != self.adv).flatten(1).any(1)
        rows = useful.nonzero()[:, 0]
        return self._look(adv, _answers(self._standing, adv, rows), useful, number) if len(rows) else None

    def _look(self, adv: Tensor, logits: Tensor, useful: Tensor | None = None, number: int = 0) -> Tensor | None:
        """Keep those images (A,C,H,W) whose answers (A,K) are better; answers which rows go on, None for all."""
        margins = margin(logits, self._standing.y)
        better = margins > self.margin + ROUNDING * logits.abs().amax(1)
        if useful is not None:
            better = better & useful
        self.adv = adv.where(per_image(better, adv), self.adv)
        self.margin = margins.where(better, self.margin)
        if self.memory is not None:
            self.memory.changed(better, number)
        rows = self._standing.see(adv, logits, useful)
        if rows is not None:
            self.adv, self.margin = self.adv[rows], self.margin[rows]
            if self.memory is not None:
                self.memory.select(rows)
        return rows


def _answers(standing: Standing, adv: Tensor, rows: Tensor) -> Tensor:
    """(A,K) the logits of the images (A,C,H,W) at `rows`, one forward pass each; 0 for all others."""
    standing.forwards[standing.rows[rows]] += 1
    answer: Tensor = standing.model(adv[rows])
    return answer.new_zeros(len(adv), answer.shape[1]).index_copy_(0, rows, answer)


class Memory:
    """Which queries were put with windows of one side, so that none is put again in vain.

    Attributes:
        side: of the windows.
    """

    def __init__(self, side: int, codes: int, images: Tensor) -> None:
        """Nothing was asked yet about `images` (A,), of which `codes` different queries are possible."""
        self.side = side
        self._asked = torch.full((len(images), codes), -1, dtype=torch.int32, device=images.device)
        self._changed = torch.full_like(self._asked[:, 0], -1)

    @property
    def exhausted(self) -> bool:
        """Whether every query was put about every image since it changed last."""
        return bool((self._asked > self._changed[:, None]).all())

    def fresh(self, code: Tensor, number: int) -> Tensor:
        """(A,) whether the query of this code (A,) is new since the image changed last; from now on it is not."""
        fresh = self._asked.gather(1, code[:, None])[:, 0] <= self._changed
        self._asked.scatter_(1, code[:, None], number)
        return fresh

    def changed(self, better: Tensor, number: int) -> None:
        """Note that query `number` changed the images marked in `better` (A,)."""
        self._changed = self._changed.masked_fill(better, number)

    def select(self, rows: Tensor) -> None:
        """Forget all images but those of these rows."""
        self._asked, self._changed = self._asked[rows], self._changed[rows]


SQUARE = Square()
