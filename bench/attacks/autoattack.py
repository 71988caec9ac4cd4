"""AutoAttack's standard line-up, natively."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.attacks.apgd import APGD, APGD_CE, APGD_T
from bench.attacks.fab import FAB, FAB_T
from bench.attacks.lineup import LineUp
from bench.attacks.square import SQUARE, Square


@dataclass(frozen=True)
class AutoAttack(LineUp):
    """APGD on the cross-entropy, targeted APGD on the DLR, targeted FAB and Square, each on what the ones before left.

    Budgets are those of the standard: 100 iterations for each of the first three, nine targets ranked by the clean
    logits (fewer where there are fewer other classes), 5,000 queries. It differs from the reference implementation
    (`autoattack-reference`) where that does work without effect or lets images of a batch share randomness: an
    image's result depends on the seed and the image alone.

    Source: Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks"; Andriushchenko et al. 2020 for Square.
    """

    lineup: ClassVar[tuple[str, ...]] = ("apgd-ce", "apgd-t", "fab-t", "square")

    apgd_ce: APGD = APGD_CE
    apgd_t: APGD = APGD_T
    fab_t: FAB = FAB_T
    square: Square = SQUARE


AUTOATTACK = AutoAttack()
