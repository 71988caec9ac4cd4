"""The images of a batch that stand, that is, are not broken yet, so that an attack works on those alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.ascent import gradient
from bench.attacks.base import Attack, Attributed
from bench.losses import margin
from bench.norms import Norm, per_image
from bench.randomness import Streams

FALLEN = torch.inf
"""What stands for the margin of an image that is broken."""

Objective = Callable[[Tensor, Tensor], Tensor]
"""From logits (B,K) and true classes (B,) to the value (B,) that is climbed."""


def patience(device: torch.device) -> int:
    """After how many iterates fallen images are looked for.

    On the CPU after each, so that an image leaves with the iterate that breaks it. On a GPU the question makes the host
    wait for the device, which takes longer than a few passes in vain.
    """
    return 1 if device.type == "cpu" else 10


class Standing:
    """The images that stand. An image that is broken has fallen: it leaves, and the iterate that broke it is kept.

    For an image that never falls the iterate with the largest margin is kept. It is the one nearest to being broken, by
    a measure that is the same for every loss, target and attack.

    Attributes:
        model: pixels to logits, as the attack sees it. If it has an attribute `confirm`, which classifies in fp32 what
            was found in another precision, an image has fallen only if that agrees.
        rows: (A,) int64, positions of the standing images in the batch.
        x: (A,C,H,W) those images, unperturbed.
        y: (A,) their classes.
        nearest: (A,C,H,W) the iterate of each with the largest margin so far; x before the first.
        margin: (A,) that margin; -inf before the first.
        forwards: (B,) int64, passes of every image of the batch so far.
        backwards: (B,) likewise.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """All images of a batch (B,C,H,W) with their classes (B,) stand."""
        self.model = model
        self.rows = torch.arange(len(y), device=y.device)
        self.x, self.y, self.nearest = x, y, x
        self.margin = torch.full(y.shape, -torch.inf, dtype=x.dtype, device=x.device)
        self.forwards, self.backwards = torch.zeros_like(y), torch.zeros_like(y)
        self._adv = x.clone()
        self._fallen = torch.zeros_like(y, dtype=torch.bool)
        self._patience = patience(x.device)
        self._unasked = 0

    def __len__(self) -> int:
        """How many stand."""
        return len(self.rows)

    @property
    def fallen(self) -> Tensor:
        """(B,) bool, which images have left."""
        return self._fallen

    def logits(self, adv: Tensor) -> Tensor:
        """(A,K) the model's answer to an iterate (A,C,H,W), counted as a forward pass of each image."""
        self.forwards[self.rows] += 1
        answer: Tensor = self.model(adv)
        return answer

    def slope(self, adv: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (A,K), objective (A,) and its gradient (A,C,H,W) at an iterate; one pass forward and one backward."""
        logits, values, grads = self.slopes(adv, [objective])
        return logits, values[:, 0], grads[:, 0]

    def slopes(self, adv: Tensor, objectives: Sequence[Objective]) -> tuple[Tensor, Tensor, Tensor]:
        """As `slope`, for T objectives: (A,K), (A,T) and (A,T,C,H,W); one pass forward and T backward."""
        adv = adv.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.logits(adv)
            values = [objective(logits, self.y) for objective in objectives]
        grads = [gradient(value, adv, again=value is not values[-1]) for value in values]
        self.backwards[self.rows] += len(grads)
        return logits.detach(), torch.stack(values, 1).detach(), torch.stack(grads, 1)

    @torch.no_grad()
    def see(self, adv: Tensor, logits: Tensor, within: Tensor | None = None) -> Tensor | None:
        """Look at an iterate; images that it breaks fall and leave.

        Args:
            adv: (A,C,H,W) the iterate.
            logits: (A,K) the model's answer to it.
            within: (A,) bool, whose iterate lies in its ball and counts; None where all do.

        Returns:
            (a,) which of the A rows still stand, to select the attack's own state by; None if all do.
        """
        margins = margin(logits, self.y).where(logits.argmax(1) == self.y, FALLEN)
        if within is not None:
            margins = margins.where(within, -torch.inf)
        better = margins > self.margin
        self.nearest = adv.where(per_image(better, adv), self.nearest)
        self.margin = self.margin.maximum(margins)
        self._unasked += 1
        return self.settle() if self._unasked >= self._patience else None

    @torch.no_grad()
    def settle(self) -> Tensor | None:
        """Let the fallen leave now; returns what `see` does."""
        self._unasked = 0
        fallen = (self.margin == FALLEN).nonzero()[:, 0]
        confirm = getattr(self.model, "confirm", None)
        if len(fallen) and confirm is not None:
            logits = confirm(self.nearest[fallen])
            self.forwards[self.rows[fallen]] += 1
            right = logits.argmax(1) == self.y[fallen]
            self.margin[fallen[right]] = margin(logits, self.y[fallen])[right]
            fallen = fallen[~right]
        if not len(fallen):
            return None
        self._adv[self.rows[fallen]] = self.nearest[fallen]
        self._fallen[self.rows[fallen]] = True
        stay = (self.margin != FALLEN).nonzero()[:, 0]
        self.rows, self.x, self.y = self.rows[stay], self.x[stay], self.y[stay]
        self.nearest, self.margin = self.nearest[stay], self.margin[stay]
        return stay

    def answer(self, last: Tensor | None = None) -> Attributed:
        """What became of the batch. Images that stand come back as their nearest iterate, or as `last` (A,C,H,W)."""
        stay = self.settle()
        if last is None:
            last = self.nearest
        elif stay is not None:
            last = last[stay]
        self._adv[self.rows] = last
        by = torch.where(self._fallen, 0, -1)
        return Attributed(self._adv.detach(), by, self.forwards, self.backwards)


@dataclass(frozen=True)
class Search(Attack):
    """An attack on the images that stand, by itself or in a line-up, with the same result either way."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams
    ) -> Attributed:
        """Adversarial images, and which were broken; see `Attack`."""
        standing = Standing(model, x, y)
        self.search(standing, eps=eps, norm=norm, streams=streams)
        return standing.answer()

    @abstractmethod
    def search(self, standing: Standing, *, eps: float, norm: Norm, streams: Streams) -> None:
        """Try to break the images that stand, of which there is at least one.

        Args:
            standing: the images; every iterate that may count is shown to it.
            eps: radius of the ball.
            norm: its geometry.
            streams: randomness of the whole batch; `streams.select(standing.rows)` is that of those that stand.
        """
