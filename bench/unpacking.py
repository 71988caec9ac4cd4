"""Files whose content is many times larger than they are: their size is told before anything of them is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

from bench.errors import BadData

LARGE = 1 << 30
"""Bytes below which anything may be unpacked."""
TIMES = 100
"""How many times as large as the file its content may be above that. Weights and images shrink to a half at best."""


def check_size(path: Path, size: int) -> None:
    """Refuse content of so many bytes in a file.

    Raises:
        BadData: it is more than a GiB, and more than a hundred times as large as the file.
    """
    if size > LARGE and size > TIMES * path.stat().st_size:
        raise BadData(
            f"{path} has {path.stat().st_size:,} bytes and would unpack to {size:,}; no honest file "
            "does, fetch it from somebody you trust"
        )


def check_zip(path: Path) -> None:
    """Refuse a zip file, as `.pt` and `.npz` are, whose directory announces too much; other files pass.

    Raises:
        BadData: see `check_size`.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            check_size(path, sum(entry.file_size for entry in file.infolist()))
