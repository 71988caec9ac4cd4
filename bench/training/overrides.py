"""`slot.field=value` from the command line or a study, typed by the dataclass that holds the field."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from typing import Any, Literal, TypeVar

from bench.budget import exact
from bench.errors import BadRecipe, UnknownName, brief

T = TypeVar("T")


def override(value: T, changes: Mapping[str, Any], at: str) -> T:
    """A copy of a dataclass with fields changed, all at once, so that only what comes out must hold together.

    Args:
        value: a dataclass instance.
        changes: text or TOML values by dotted path, "field" or "field.field".
        at: address of the dataclass, for messages ("schedule").

    Raises:
        UnknownName: no such field.
        BadRecipe: a value that the field cannot hold.
    """
    known = [f.name for f in fields(value)]  # type: ignore[arg-type]  # a dataclass instance
    changed: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for path, new in changes.items():
        name, _, rest = path.partition(".")
        if name not in known:
            raise UnknownName.among(f"field of {type(value).__name__}", name, known)
        if rest:
            below.setdefault(name, {})[rest] = new
        else:
            changed[name] = parse(new, typing.get_type_hints(type(value))[name], f"{at}.{name}")
    for name, deeper in below.items():
        inner = getattr(value, name)
        if not is_dataclass(inner):
            raise BadRecipe(f"'{at}.{name}.{min(deeper)}' goes below {name!r}, which is a plain value")
        changed[name] = override(inner, deeper, f"{at}.{name}")
    return replace(value, **changed)  # type: ignore[type-var]  # a dataclass instance


def field_at(value: object, path: str) -> Any:
    """The value of the field at a dotted path."""
    for name in path.split("."):
        value = getattr(value, name)
    return value


def spell(value: Any) -> str:
    """A value as it would be written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ":".join(spell(v) for v in value)
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def parse(raw: Any, kind: Any, address: str) -> Any:
    """`raw` as a value of type `kind`: bool, int, float, fraction, text, one of several literals, or a tuple.

    A tuple is written with colons: `2.5:2.0`.

    Raises:
        BadRecipe: it cannot be read as one.
    """
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if raw not in choices:
            raise BadRecipe(f"{address}={brief(str(raw))}: choose one of {', '.join(map(str, choices))}")
        return raw
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(raw).lower()]
        if kind is int:
            return int(str(raw))
        if kind is float:
            return float(_fraction(str(raw)))
        if kind is Fraction:
            value = _fraction(str(raw))
            float(value)  # one that no float can hold is refused
            return value
        if kind is str:
            return str(raw)
        if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return _named(raw, kind, address)
        if typing.get_origin(kind) is tuple:
            return tuple(parse(part, typing.get_args(kind)[0], address) for part in _parts(raw))
    except (ArithmeticError, KeyError, TypeError, ValueError):
        pass
    raise BadRecipe(f"{address}={brief(str(raw))}: cannot be read as {_name(kind)}")


def _fraction(text: str) -> Fraction:
    above, slash, below = text.partition("/")
    return exact(above) / exact(below if slash else "1")


def _parts(raw: Any) -> list[Any]:
    return list(raw) if isinstance(raw, (list, tuple)) else str(raw).split(":") if raw != "" else []


def _named(raw: Any, kind: Any, address: str) -> Any:
    parts, hints = _parts(raw), typing.get_type_hints(kind)
    if len(parts) != len(hints):
        raise ValueError
    return kind(*(parse(part, hint, address) for part, hint in zip(parts, hints.values(), strict=True)))


def _name(kind: Any) -> str:
    if isinstance(kind, type) and hasattr(kind, "_fields"):
        return ":".join(kind._fields)
    return {bool: "true or false", int: "a whole number", float: "a number", Fraction: "a fraction"}.get(
        kind, str(kind)
    )
