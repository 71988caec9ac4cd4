"""How a recipe and a method describe themselves: values all the way down, documented, with a page and slots."""

from __future__ import annotations

import ast
import typing
import warnings
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from importlib import import_module
from inspect import getmembers, getsource, isfunction
from typing import Any, Literal

from bench.conformance.watching import require
from bench.errors import BadRecipe, BenchError
from bench.fingerprint import canonical, fingerprint
from bench.training.method import Method
from bench.training.recipe import SLOTS, Recipe, as_json

HEAD = ("Paper:", "Code:", "Claim:", "Departs:")
LONGEST = 110
"""Lines of a method's file, imports apart; what is longer may be more than one method, or belong to `bench`."""


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


def check_page(method: Method) -> None:
    """The head of its file says what it is, and names paper, code, claim and departures; a long file is warned of."""
    page = method.page()
    require(bool(page.splitlines()[:1]), f"{method.module} has no docstring")
    for word in HEAD:
        lines = [line for line in page.splitlines() if line.startswith(word)]
        require(len(lines) == 1 and len(lines[0]) > len(word) + 1, f"the head of {method.module} lacks {word!r}")
    length = _lines(getsource(import_module(method.module)))
    if length > LONGEST:
        warnings.warn(
            f"{method.module} has {length} lines besides its imports; a method reads well in {LONGEST}", stacklevel=2
        )


def _lines(source: str) -> int:
    """Lines that are not of the imports at the head."""
    imports = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return len(source.splitlines()) - sum((node.end_lineno or 0) - node.lineno + 1 for node in imports)


def check_slots(method: Method) -> None:
    """It fills slots that there are, by itself or on a method below, and its presets fill slots too."""
    filled = {*method.slots, *method.brings, *(slot for preset in method.presets.values() for slot in preset.slots)}
    require(bool(method.slots), f"{method.module}: fills no slot")
    require(filled <= set(SLOTS), f"{method.module}: {sorted(filled - set(SLOTS))} are no slots")
    require("objective" in method.slots or bool(method.on), f"{method.module}: needs an objective or a method below")
    for key in method.presets:
        require(key.count("/") == 1, f"{method.module}: preset {key!r} should be called 'dataset/preset'")
    for slot, filling in (*method.slots.items(), *method.brings.items()):
        try:
            Recipe(**{"objective": filling, slot: filling})  # type: ignore[arg-type]  # only whether it is refused
        except BadRecipe as problem:
            raise AssertionError(f"{method.module}: {problem}") from None
