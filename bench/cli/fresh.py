"""What `demo --fresh` removes: files that a demo wrote, in a folder that a demo has marked as its own."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from bench.errors import BadPlace
from bench.files import write_text

MARKER = "demo.txt"
SAID = "This folder is of 'evenbench demo'; with --fresh it removes what it wrote here and starts over.\n"

_NETWORK = r"[^/]+-s\d+-[0-9a-f]{8}"
_OURS = re.compile(
    rf"{re.escape(MARKER)}"
    r"|bench\.duckdb(\.wal)?|leaderboard\.(md|html)"
    r"|figures/(heatmap|fairness|bars|curves)-[^/]+\.png"
    rf"|checkpoints/{_NETWORK}(\.last)?\.safetensors|checkpoints/{_NETWORK}\.epochs/\d+\.safetensors"
    rf"|(figures|checkpoints|checkpoints/{_NETWORK}\.epochs)"
)
"""Paths in the folder that a demo writes, the folders it makes among them; beside them locks and unfinished files."""
_LEFT = re.compile(r"\.lock$|\.\d+\.\d+\.partial(\.wal)?$")


def mark(folder: Path) -> None:
    """Mark a folder as a demo's, if there is nothing in it yet."""
    if not folder.is_dir() or not any(folder.iterdir()):
        write_text(folder / MARKER, SAID)


def clear(folder: Path) -> None:
    """Remove what demos wrote into a folder, and nothing else; links are removed, and what they point to stays.

    Raises:
        BadPlace: the folder holds files, and is not marked as a demo's.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    marker = folder / MARKER
    if not marker.is_file() or marker.read_bytes()[: len(SAID) + 1] != SAID.encode():
        raise BadPlace(
            f"{folder} has no {MARKER} that says that it is of 'evenbench demo', so nothing in it is removed; name "
            "another folder with --out, or remove what is in it yourself"
        )
    found = [
        path
        for path in folder.rglob("*")  # does not follow links
        if _OURS.fullmatch(_LEFT.sub("", path.relative_to(folder).as_posix()))
    ]
    for path in sorted(found, reverse=True):  # what is in a folder comes before it
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()  # but for one with files of others in it
        elif path != marker:
            path.unlink(missing_ok=True)
