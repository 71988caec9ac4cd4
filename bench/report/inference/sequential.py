"""Looking while the images come in: evidence that may be read after every image and keeps its level all the same.

An e-process is a bet against a hypothesis that gains nothing on average where the hypothesis holds; that it ever
reaches 1 / alpha has the probability alpha at most (Ville), however often one looks. Images are to come in an order
that has nothing to do with the outcomes.

Source: Ramdas, Gruenwald, Vovk and Shafer, Game-theoretic statistics and safe anytime-valid inference, Statistical
    Science 38 (2023); Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, J. Royal
    Statistical Society B 86 (2024).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaln, logsumexp

Array = npt.NDArray[np.float64]

_STAKES = np.geomspace(0.003, 0.95, 24)
"""Shares of the capital, of which each plays for itself; the sum of all is the bet against a margin."""


def log_evidence_of_loss(lost: npt.ArrayLike, won: npt.ArrayLike) -> Array:
    """Logarithm of the evidence that more is lost than won, elementwise.

    E = 2^D 2 int_.5^1 t^lost (1 - t)^won dt with D = lost + won: the likelihood of the discordant images, averaged over
    all shares of losses above one half, against that of one half.

    Args:
        lost: images that only the baseline has got right so far.
        won: images that only the candidate has.
    """
    a, b = np.asarray(lost, dtype=np.float64), np.asarray(won, dtype=np.float64)
    with np.errstate(divide="ignore"):
        above = np.log(betainc(b + 1, a + 1, 0.5))
    made: Array = (a + b + 1) * np.log(2) + betaln(a + 1, b + 1) + above
    return made


def log_evidence_within(lost: npt.ArrayLike, won: npt.ArrayLike, seen: npt.ArrayLike, margin: float) -> Array:
    """Logarithm of the evidence that the accuracy falls by less than a margin, elementwise.

    The mean over stakes s of prod (1 + s (d_i + margin)), d_i in {-1, 0, 1}: where E d_i is -margin or less, no factor
    has a mean above 1.

    Args:
        lost: images that only the baseline has got right so far.
        won: images that only the candidate has.
        seen: images so far.
        margin: in [0, 1).
    """
    a, b, n = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64)[..., None] for x in (lost, won, seen)))
    logs = (
        b * np.log1p(_STAKES * (1 + margin))
        + a * np.log1p(_STAKES * (margin - 1))
        + (n - a - b) * np.log1p(_STAKES * margin)
    )
    made: Array = logsumexp(logs, axis=-1) - np.log(len(_STAKES))
    return made


def decided(
    lost: int, won: int, seen: int, *, margin: float = 0.01, alpha: float = 0.05
) -> Literal["worse", "not worse"] | None:
    """What is sure by now, each with `alpha`, whenever one stops; None where nothing is."""
    enough = -np.log(alpha)
    if log_evidence_of_loss(lost, won) >= enough:
        return "worse"
    return "not worse" if log_evidence_within(lost, won, seen, margin) >= enough else None
