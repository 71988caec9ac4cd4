"""Content hashes: equal values, equal hashes; the text is canonical."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from bench.fingerprint import LENGTH, canonical, fingerprint

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_canonical_text_is_json_of_the_value(value: object) -> None:
    assert json.loads(canonical(value)) == value


@given(st.dictionaries(st.text(), st.integers(), max_size=6))
def test_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


def test_known_hash() -> None:
    # echo -n '{"a":[1,2.5,null,true],"é":"x"}' | sha256sum
    assert canonical({"é": "x", "a": [1, 2.5, None, True]}) == '{"a":[1,2.5,null,true],"é":"x"}'
    assert fingerprint({}) == "44136fa355b3678a"
    assert len(fingerprint([1])) == LENGTH


def test_different_values_differ() -> None:
    made = [fingerprint(value) for value in ({}, [], None, 0, "", [0], [[0]], {"a": 0}, "0", False, [""])]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_has_no_text(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"x": value})
