"""What a verb may replace where a user says that it shall write: what it wrote itself, and with --force any file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import BadPlace
from bench.files import check_writable

BOARDS = (
    b"# Leaderboard\n\nFigures are percent of samples",
    b"<title>Evenbench leaderboard</title>",
    b"dataset,split,subset,norm,eps,attack,",
    b'[\n  {\n    "dataset": ',
)
"""What is in the first lines of a leaderboard as Markdown, as a page, as CSV and as JSON."""
PICTURES = (b"\x89PNG\r\n\x1a\n", b"<svg ")
"""What is in those of a figure."""
HEAD = 4096
"""Bytes that are the first lines."""

Force = Annotated[bool, typer.Option("--force", help="Replace files that this command did not write, too.")]


def place_for(path: Path, marks: Collection[bytes], *, force: bool) -> Path:
    """The path, if a file can be written there and none is lost by it; asked before the work.

    Raises:
        BadPlace: it cannot be written, or holds a file without one of the marks, and `force` is not given.
    """
    check_writable(path)
    if path.is_file() and not force:
        try:
            with path.open("rb") as file:
                head = file.read(HEAD)
        except OSError as problem:
            raise BadPlace(f"{path} cannot be read ({problem.strerror}), so it is not replaced; add --force") from None
        if head and not any(mark in head for mark in marks):
            raise BadPlace(
                f"{path} holds what this command did not write; name another file, or replace it with --force"
            )
    return path
