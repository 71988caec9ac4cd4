"""How a method is registered: its page, and the slots that it fills."""

from __future__ import annotations

import ast
import warnings
from importlib import import_module
from inspect import getsource

from bench.conformance.watching import require
from bench.errors import BadRecipe
from bench.training.method import Method
from bench.training.recipe import SLOTS, Recipe

HEAD = ("Paper:", "Code:", "Claim:", "Departs:")
LONGEST = 110
"""Lines of a method's file, imports apart; what is longer may be more than one method, or belong to `bench`."""


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
