"""A recipe is a value, and says what it is: frozen, typed, hashable and documented all the way down."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from inspect import getmembers, isfunction
from typing import Any, Literal

from bench.conformance.watching import require
from bench.errors import BenchError
from bench.fingerprint import canonical, fingerprint
from bench.training.recipe import SLOTS, Recipe, as_json


def named(recipe: Recipe) -> str:
    """What a recipe is called in a complaint: the classes in its slots."""
    return " ".join(type(getattr(recipe, slot)).__name__ for slot in SLOTS)


def _slots(value: object, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every dataclass in a recipe, with its address."""
    for f in fields(value):  # type: ignore[arg-type]  # a dataclass instance
        inner = getattr(value, f.name)
        if is_dataclass(inner) and not isinstance(inner, type):
            yield f"{at}{f.name}", inner
            yield from _slots(inner, f"{at}{f.name}.")


def _another(value: Any, kind: Any) -> Any:
    """A different value of the same type; the same one where there is none."""
    if typing.get_origin(kind) is Literal:
        return next((choice for choice in typing.get_args(kind) if choice != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, Fraction)):
        return value + 1
    if isinstance(value, str):
        return f"{value}_"
    if isinstance(value, tuple) and value:
        changed = (_another(value[0], type(value[0])), *value[1:])
        return type(value)(*changed) if hasattr(value, "_fields") else changed
    return value


def check_is_a_value(recipe: Recipe) -> None:
    """Frozen dataclasses with typed fields all the way down; JSON that tells any two settings apart."""
    identity = fingerprint(as_json(recipe))
    require(identity == fingerprint(as_json(replace(recipe))), f"{named(recipe)}: a copy has another hash")
    canonical(as_json(recipe))
    for address, slot in _slots(recipe):
        kind = type(slot)
        require(kind.__dataclass_params__.frozen, f"{address} is a {kind.__name__}, which is not frozen")
        require(slot == replace(slot), f"{address}: a {kind.__name__} is not equal to its copy")
        hash(slot)
        hints = typing.get_type_hints(kind)
        for f in fields(slot):
            value = getattr(slot, f.name)
            require(f.name in hints and hints[f.name] is not Any, f"{kind.__name__}.{f.name} has no type")
            if is_dataclass(value) or (other := _another(value, hints[f.name])) == value:
                continue
            try:
                changed = replace(slot, **{f.name: other})
            except BenchError:
                continue
            require(
                fingerprint(as_json(changed)) != fingerprint(as_json(slot)),
                f"{kind.__name__}.{f.name} can change without the recipe's hash changing",
            )


def check_is_documented(recipe: Recipe) -> None:
    """Every class that fills a slot, and every public method of it, says what it is for."""
    for address, slot in _slots(recipe):
        kind = type(slot)
        own = kind.__dict__.get("__doc__") or ""
        require(bool(own) and not own.startswith(f"{kind.__name__}("), f"{address}: {kind.__name__} has no docstring")
        for name, function in getmembers(kind, isfunction):
            public = not name.startswith("_") or (name == "__call__" and "." not in address)
            require(not public or bool(function.__doc__), f"{kind.__name__}.{name} has no docstring")
