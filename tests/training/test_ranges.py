from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from bench.errors import BadRecipe
from bench.training.ranges import Count, NotNegative, Positive, Range, Ranged, Share, ranges_of


@dataclass(frozen=True)
class Fields(Ranged):
    share: Share = 0.5
    rate: NotNegative = 1.0
    temperature: Positive = 1.0
    steps: Count = 3
    ends: Annotated[tuple[float, float], Range(-1, 1)] = (0.0, 1.0)
    free: float = -5.0


@dataclass(frozen=True)
class More(Fields):
    other: Share = 0.0
    rate: float = 2.0


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("share", 1.1, "lie in [0, 1]"),
        ("rate", -0.1, "be at least 0"),
        ("rate", float("nan"), "be at least 0"),
        ("temperature", 0.0, "be at least 1e-06"),
        ("steps", -1, "be at least 0"),
        ("ends", (0.0, 2.0), "lie in [-1, 1]"),
    ],
)
@pytest.mark.parametrize("kind", [Fields, More])
def test_a_field_outside_its_range_is_refused(kind, field, value, wanted):
    with pytest.raises(BadRecipe) as caught:
        kind(**{field: value})
    assert str(caught.value) == f"{kind.__name__}.{field} is {value}; it must {wanted}"


def test_fields_within_their_ranges_are_taken_and_a_subclass_adds_its_own():
    assert [name for name, _ in ranges_of(More)] == ["share", "rate", "temperature", "steps", "ends", "other"]
    assert More(free=1e9, ends=(-1.0, 1.0)).free == 1e9
