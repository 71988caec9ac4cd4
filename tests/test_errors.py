"""The tree of errors: as drawn, and with a hint where a name is nearly right."""

from __future__ import annotations

import inspect
import re

from bench import errors
from bench.errors import BenchError, UnknownName, visible


def leaves() -> dict[str, type[BaseException]]:
    return {name: one for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception)}


def test_the_drawing_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    (?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)  ", line)
        if found:
            depth = len(found["branch"]) // 4
            above = [*above[:depth], found["name"]]
            drawn[found["name"]] = above[depth - 1] if depth else "Exception"
    assert drawn == {name: one.__bases__[0].__name__ for name, one in leaves().items()}


def test_every_error_says_what_it_is_for() -> None:
    for one in leaves().values():
        assert one.__doc__
        assert issubclass(one, BenchError)


def test_a_near_name_is_suggested() -> None:
    error = UnknownName.among("method", "trade", ["trades", "rslad"], "'evenbench list methods'")
    assert str(error) == "no method is called 'trade'; did you mean 'trades'? 'evenbench list methods' shows all 2"


def test_a_far_name_is_not() -> None:
    assert str(UnknownName.among("attack", "xyz", ["pgd", "fgsm"])) == "no attack is called 'xyz'; known: fgsm, pgd"
    assert str(UnknownName.among("attack", "xyz", [])) == "no attack is called 'xyz'; known: none"


def test_what_a_terminal_would_obey_is_shown_and_not_obeyed():
    assert visible("plain é 😀") == "plain é 😀"
    assert visible("\x1b[31mred\u202e\x00\ud800") == r"\x1b[31mred\u202e\x00\ud800"
