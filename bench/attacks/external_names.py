"""Attacks of other libraries by name: `torchattacks:PGD(steps=50)` is read here, and nothing of it is executed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import MappingProxyType

from bench.attacks.external import External, Foolbox, TorchAttacks, Value
from bench.errors import BadOption, UnknownName

LIBRARIES: Mapping[str, type[External]] = MappingProxyType({kind.library: kind for kind in (TorchAttacks, Foolbox)})


def parse(text: str) -> External:
    """The attack that a text asks for, `library:Name` or `library:Name(argument=literal, ...)`; imports nothing.

    Raises:
        UnknownName: no such library.
        BadOption: the brackets hold something else than literals by name.
    """
    library, _, call = text.partition(":")
    if library not in LIBRARIES:
        raise UnknownName.among("library of attacks", library, LIBRARIES)
    try:
        node = ast.parse(call.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return LIBRARIES[library](node.id)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
            raise ValueError
        arguments = {str(keyword.arg): literal(keyword.value) for keyword in node.keywords if keyword.arg}
        if len(arguments) < len(node.keywords):
            raise ValueError
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        raise BadOption(
            f"attack {text!r} cannot be read; write {library}:Name or {library}:Name(argument=value, ...) with "
            "numbers, strings, True, False, None or tuples of them as values"
        ) from None
    return LIBRARIES[library](node.func.id, tuple(sorted(arguments.items())))


def literal(node: ast.expr) -> Value:
    """A number, a string, a truth value, None, a quotient of numbers such as 2/255, or a tuple or list of these.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        above, below = literal(node.left), literal(node.right)
        if isinstance(above, int | float) and isinstance(below, int | float):
            return above / below
        raise ValueError
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(literal(item) for item in node.elts)
    value = ast.literal_eval(node)
    if value is not None and not isinstance(value, int | float | str):
        raise ValueError
    return value
