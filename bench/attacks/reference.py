"""AutoAttack's standard line-up by its reference implementation, the package pyautoattack."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pyautoattack
import torch
from torch import Tensor, nn

from bench.attacks.base import Attack, Attributed, Passes
from bench.attacks.prepare import own_randomness, prepared
from bench.attacks.target_classes import MAX_TARGETS
from bench.errors import BadModel
from bench.norms import Norm
from bench.randomness import Streams

LINEUP = ("apgd-ce", "apgd-t", "fab-t", "square")
QUERIES = 5000

_quiet = logging.Logger("bench.attacks.reference")
_quiet.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class AutoAttackReference(Attack):
    """APGD on the cross-entropy, targeted APGD, targeted FAB and Square, each on what the ones before left.

    The package's four attacks are run as its own standard evaluation runs them: in this order, on the survivors only,
    from the clean image, with the seed set before each, a break confirmed by one more pass. The package's printed
    checks are left out, and with fewer than 10 classes there are as many targets as there are other classes. Images
    that survive come back unchanged. It draws its randomness per batch, so that a result depends on the batch.

    Raises:
        BadModel: fewer than 4 classes, which the targeted loss cannot do, or images too small for Square in L2.

    Source: Croce and Hein 2020; package pyautoattack, autoattack.py, run_standard_evaluation.
    """

    lineup: ClassVar[tuple[str, ...]] = LINEUP
    batch_dependent: ClassVar[bool] = True
    min_classes: ClassVar[int] = 4
    uses: ClassVar[tuple[str, ...]] = ("pyautoattack",)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams
    ) -> Attributed:
        """Adversarial images and which of the four found them."""
        if norm.name == "L2" and min(x.shape[2:]) < 5:
            raise BadModel(
                f"autoattack-reference in L2 needs images of at least 5x5 pixels, these are {tuple(x.shape[2:])}"
            )
        clean = x.contiguous()
        adv, by = clean.clone(), torch.full_like(y, -1)
        with prepared(model), own_randomness():
            with torch.no_grad():
                logits = model(clean)
            alive = (logits.argmax(1) == y).nonzero()[:, 0]
            searches = standard(model, logits.shape[1], eps=eps, norm=norm, seed=streams.seed, device=x.device)
            for position, search in enumerate(searches):
                if len(alive) == 0:
                    break
                found = search(clean[alive], y[alive]).detach()
                with torch.no_grad():
                    broken = model(found).argmax(1) != y[alive]
                adv[alive[broken]] = found[broken]
                by[alive[broken]] = position
                alive = alive[~broken]
        return Attributed(adv, by)

    def passes(self, classes: int) -> Passes:
        """An image that survives all four: 102 passes per walk of APGD, 203 per target of FAB, and the queries."""
        targets = min(MAX_TARGETS, classes - 1)
        forwards = 1 + 102 + (1 + 102 * targets) + (1 + 203 * targets) + (QUERIES + 3) + len(LINEUP)
        return Passes(forwards, 101 + 101 * targets + 100 * targets)


def standard(
    model: nn.Module, classes: int, *, eps: float, norm: Norm, seed: int, device: torch.device
) -> tuple[Callable[[Tensor, Tensor], Tensor], ...]:
    """The four attacks of the line-up, images and labels to images.

    Raises:
        BadModel: fewer than 4 classes.
    """
    if classes < 4:
        raise BadModel(
            f"the reference autoattack needs at least 4 classes, the model has {classes}; use pgd-sat, cw or pgd-100"
        )

    def predict(x: Tensor) -> Tensor:
        # Through a flat view, so that the gradient arrives contiguous even if the model works in channels_last.
        answer: Tensor = model(x.flatten(1).reshape(x.shape))
        return answer

    reference = pyautoattack.AutoAttack(predict, norm=norm.name, eps=eps, seed=seed, device=device)
    apgd, apgd_t, fab, square = reference.apgd, reference.apgd_targeted, reference.fab, reference.square
    apgd.loss, fab.targeted = "ce", True
    apgd.logger = apgd_t.logger = _quiet
    apgd_t.n_target_classes = fab.n_target_classes = min(MAX_TARGETS, classes - 1)

    @torch.inference_mode()
    def squares(x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = square.perturb(x, y)
        return found

    return apgd.perturb, apgd_t.perturb, fab.perturb, lambda x, y: squares(x, y).clone()


REFERENCE = AutoAttackReference()
