"""Ranges of the fields of slots, said in their types and held when one is made."""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, NamedTuple, get_type_hints

from bench.errors import BadRecipe


class Range(NamedTuple):
    """Numbers from `low` to `high`, for `Annotated`; of a tuple, all of its entries."""

    low: float
    high: float = math.inf


Share = Annotated[float, Range(0, 1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(1e-6)]
Count = Annotated[int, Range(0)]


class Ranged:
    """A dataclass whose fields keep to the ranges in their types; inherit from it."""

    def __post_init__(self) -> None:
        """Refuse a field outside its range.

        Raises:
            BadRecipe: the first that is.
        """
        kind: type = type(self)
        for name, allowed in ranges_of(kind):
            require_range(self, name, *allowed)


@cache
def ranges_of(kind: type) -> list[tuple[str, Range]]:
    """The fields of a class that have a range; one whose default a subclass changes keeps that of its base."""
    ranges = {
        name: note
        for base in reversed(kind.__mro__)
        for name, hint in get_type_hints(base, include_extras=True).items()
        for note in getattr(hint, "__metadata__", ())
        if isinstance(note, Range)
    }
    return list(ranges.items())


def require_range(slot: object, name: str, low: float, high: float = math.inf) -> None:
    """Refuse a field that lies outside [low, high]; for a range that depends on another field, in `__post_init__`.

    Raises:
        BadRecipe: it does.
    """
    value = getattr(slot, name)
    ends = value if isinstance(value, tuple) else (value,)
    if not all(low <= end <= high for end in ends):
        wanted = f"be at least {low:g}" if high == math.inf else f"lie in [{low:g}, {high:g}]"
        raise BadRecipe(f"{type(slot).__name__}.{name} is {value}; it must {wanted}")
