"""Whether a count on few images says anything: exact tests, so that a small subset raises no false alarm."""

from __future__ import annotations

import math

RISK = 0.01
"""A count is held against a model only if chance would bring it about less often than this."""


def tail(count: int, n: int, share: float) -> float:
    """Probability of `count` or more among n, each with probability `share`."""
    below = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count))
    return max(0.0, 1 - below)


def beyond(count: int, n: int, share: float) -> bool:
    """Whether `count` of n images is more than `share` of them, beyond chance: of 64 images 3 are beyond 0.5 %."""
    return count > n * share and tail(count, n, share) < RISK


def outweighs(more: int, less: int) -> bool:
    """Whether `more` against `less` images is no fair coin's doing: 7 against none, 14 against 3 (a sign test)."""
    return more > less and tail(more, more + less, 0.5) < RISK
