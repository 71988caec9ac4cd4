from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, strategies as st

from bench.errors import BadRecipe, UnknownName
from bench.training.overrides import field_at, override, parse, spell


class Range(NamedTuple):
    """Two ends."""

    begin: float
    end: float


@dataclass(frozen=True)
class Deep:
    """Innermost."""

    steps: int = 10
    mode: Literal["train", "eval"] = "eval"


@dataclass(frozen=True)
class Thing:
    """One field of every type."""

    flag: bool = False
    count: int = 1
    rate: float = 0.1
    eps: Fraction = Fraction(8, 255)
    name: str = "a"
    span: Range = Range(1.0, 2.0)
    drops: tuple[float, ...] = (0.5,)
    inner: Deep = Deep()
    maybe: int | None = None


@dataclass(frozen=True)
class Bound:
    """Two fields that must agree."""

    low: int = 0
    high: int = 1

    def __post_init__(self):
        if self.low > self.high:
            raise BadRecipe("low above high")


@pytest.mark.parametrize(
    ("path", "raw", "value"),
    [
        ("flag", "true", True),
        ("flag", "False", False),
        ("flag", True, True),
        ("count", "7", 7),
        ("count", 7, 7),
        ("count", "-2", -2),
        ("rate", "0.25", 0.25),
        ("rate", "1/3", 1 / 3),
        ("rate", "5e-4", 5e-4),
        ("rate", 3, 3.0),
        ("eps", "4/255", Fraction(4, 255)),
        ("eps", "0.15", Fraction(3, 20)),
        ("eps", 0.5, Fraction(1, 2)),
        ("name", "b", "b"),
        ("span", "2.5:2.0", Range(2.5, 2.0)),
        ("span", [2.5, 2], Range(2.5, 2.0)),
        ("drops", "0.5:0.75:0.9", (0.5, 0.75, 0.9)),
        ("drops", [0.5, 0.75], (0.5, 0.75)),
        ("drops", "0.5", (0.5,)),
        ("drops", [], ()),
        ("drops", "", ()),
        ("inner.steps", "20", 20),
        ("inner.mode", "train", "train"),
        ("maybe", "3", 3),
    ],
)
def test_every_type_is_read_from_text_and_from_toml(path, raw, value):
    after = override(Thing(), {path: raw}, "slot")
    assert field_at(after, path) == value
    assert type(field_at(after, path)) is type(value)
    assert override(after, {path: spell(value)}, "slot") == after


@pytest.mark.parametrize(
    ("path", "raw", "complaint"),
    [
        ("flag", "yes", "slot.flag=yes: cannot be read as true or false"),
        ("flag", 1, "slot.flag=1: cannot be read as true or false"),
        ("count", "1.5", "slot.count=1.5: cannot be read as a whole number"),
        ("count", "many", "slot.count=many: cannot be read as a whole number"),
        ("count", True, "slot.count=True: cannot be read as a whole number"),
        ("rate", "fast", "slot.rate=fast: cannot be read as a number"),
        ("rate", "nan", "slot.rate=nan: cannot be read as a number"),
        ("rate", "inf", "slot.rate=inf: cannot be read as a number"),
        ("rate", "1e400", "slot.rate=1e400: cannot be read as a number"),
        ("rate", float("nan"), "slot.rate=nan: cannot be read as a number"),
        ("rate", "", "slot.rate=: cannot be read as a number"),
        ("eps", "8/0", "slot.eps=8/0: cannot be read as a fraction"),
        ("eps", [1], "slot.eps=.1.: cannot be read as a fraction"),
        ("span", "1", "slot.span=1: cannot be read as begin:end"),
        ("span", "1:2:3", "slot.span=1:2:3: cannot be read as begin:end"),
        ("span", "1:b", "slot.span=b: cannot be read as a number"),
        ("drops", "0.5:", "slot.drops=: cannot be read as a number"),
        ("inner.mode", "test", "slot.inner.mode=test: choose one of train, eval"),
        ("inner.steps", "x", "slot.inner.steps=x: cannot be read as a whole number"),
        ("inner", "3", "slot.inner=3: cannot be read as "),
        ("count.deeper", "3", "'slot.count.deeper' goes below 'count', which is a plain value"),
    ],
)
def test_wrong_values_are_one_line_with_the_address(path, raw, complaint):
    with pytest.raises(BadRecipe, match=complaint) as caught:
        override(Thing(), {path: raw}, "slot")
    assert "\n" not in str(caught.value)


def test_unknown_fields_are_told_with_the_nearest():
    with pytest.raises(UnknownName, match="no field of Thing is called 'rat'; did you mean 'rate'"):
        override(Thing(), {"rat": 1}, "slot")
    with pytest.raises(UnknownName, match="no field of Deep is called 'step'; did you mean 'steps'"):
        override(Thing(), {"inner.step": 1}, "slot")
    with pytest.raises(UnknownName, match="no field of Thing is called ''"):
        override(Thing(), {"": 1}, "slot")


def test_several_changes_are_made_at_once():
    after = override(Thing(), {"inner.steps": 3, "inner.mode": "train", "count": 2}, "slot")
    assert after == Thing(count=2, inner=Deep(3, "train"))
    assert override(Bound(), {"low": 5, "high": 9}, "slot") == Bound(5, 9)  # neither holds alone in this order
    assert override(Bound(5, 9), {"high": 1, "low": 0}, "slot") == Bound(0, 1)
    with pytest.raises(BadRecipe, match="low above high"):
        override(Bound(), {"low": 5}, "slot")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_spelled_so_that_they_can_be_read_back(value):
    assert parse(spell(value), float, "x") == value


def test_spelling():
    assert [spell(v) for v in (True, 5e-4, 6.0, Fraction(8, 255), (0.5, 0.75), "last", 1 / 3)] == [
        "true",
        "0.0005",
        "6",
        "8/255",
        "0.5:0.75",
        "last",
        "0.3333333333333333",
    ]


@pytest.mark.parametrize("path", ["rate", "eps"])
@pytest.mark.parametrize("raw", ["1e9999999999", "1e-9999999999", "1/1e9999999999", "9" * 100_000])
def test_a_number_out_of_all_proportion_is_refused_at_once(path, raw):
    with pytest.raises(BadRecipe, match="cannot be read as") as refused:
        override(Thing(), {path: raw}, "thing")
    assert len(str(refused.value)) < 300
