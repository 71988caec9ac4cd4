"""Radii: exact from the text to the text."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from bench.budget import check_radius, parse_eps, show_eps
from bench.errors import BadBudget


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8/255", Fraction(8, 255)),
        ("0.031", Fraction(31, 1000)),
        (0.15, Fraction(3, 20)),
        (Fraction(1, 3), Fraction(1, 3)),
        (1, Fraction(1)),
        ("1e-3", Fraction(1, 1000)),
        ("0.5/255", Fraction(1, 510)),
    ],
)
def test_parsed_exactly(text: str | float | Fraction, wanted: Fraction) -> None:
    assert parse_eps(text) == wanted


@pytest.mark.parametrize("text", ["8/0", "", "eight", "8/", "nan", "inf", float("nan"), "1//2", "8/255/1", "1/2/3"])
def test_no_number(text: str | float) -> None:
    with pytest.raises(BadBudget, match="is no number"):
        parse_eps(text)


@pytest.mark.parametrize("text", ["1e9999999999", "1e-9999999999", "1/1e9999999999", "1e400", "1e-400", "1e-399"])
def test_out_of_all_proportion_is_refused_at_once(text: str) -> None:
    with pytest.raises(BadBudget, match="is too large or too small for pixels; give a positive fraction"):
        parse_eps(text)


def test_what_came_is_repeated_in_part_where_it_is_long() -> None:
    with pytest.raises(BadBudget, match="is no number") as refused:
        parse_eps("9" * 100_000 + "x")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("eps", "said"), [("8", "did you mean 8/255?"), ("300/255", "eps is 300/255 in Linf"), ("1.5", "such as 8/255")]
)
def test_a_ball_that_holds_every_image(eps: str, said: str) -> None:
    with pytest.raises(BadBudget, match=re.escape(said)):
        check_radius(parse_eps(eps), "Linf")
    check_radius(parse_eps(eps), "L2")
    check_radius(parse_eps("1"), "Linf")


@pytest.mark.parametrize("text", ["0", "-8/255", 0.0, -1, Fraction(0)])
def test_not_positive(text: str | float | Fraction) -> None:
    with pytest.raises(BadBudget, match="larger than 0"):
        parse_eps(text)


@pytest.mark.parametrize(
    ("eps", "wanted"),
    [
        ("8/255", "8/255"),
        ("16/510", "8/255"),
        ("0.15", "0.15"),
        ("1/51", "5/255"),
        ("1/7", "1/7"),
        ("0.5", "0.5"),
        ("3", "3"),
    ],
)
def test_shown_as_the_field_writes_it(eps: str, wanted: str) -> None:
    assert show_eps(parse_eps(eps)) == wanted


@given(
    st.one_of(
        st.integers(1, 2550).map(lambda p: Fraction(p, 2550)), st.integers(1, 10**6).map(lambda p: Fraction(p, 10**6))
    )
)
def test_what_is_shown_is_parsed_again(eps: Fraction) -> None:
    assert parse_eps(show_eps(eps)) == eps
