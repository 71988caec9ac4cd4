"""A console that shows what a name holds instead of obeying it."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from bench.report.formats import lines


class Terminal(Console):
    """As rich's, but lines of text never carry signs that a terminal obeys: names come from imports and plug-ins."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print lines, and tables, whose cells are told in `bench.report.formats`."""
        super().print(*(lines(each) if isinstance(each, str) else each for each in objects), **options)
