"""Decoded images kept on disk, so that they are decoded once and memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.errors import DiskFull
from bench.files import whole_folder, write_text
from bench.fingerprint import LENGTH, canonical

FORMAT = 1
"""Raised when decoding comes to give other pixels, so that what older versions kept is not used."""

BLOCK = 1024
"""Images whose pixels are read at a time."""


class Decoded(NamedTuple):
    """Pixels (N,C,H,W) uint8, labels (N,) int64 as they came, names of the K classes."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]


def default_cache() -> Path:
    """EVENBENCH_CACHE, else `~/.cache/evenbench`."""
    return Path(os.environ.get("EVENBENCH_CACHE") or "~/.cache/evenbench").expanduser()


def hash_of(path: Path) -> bytes:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def key_of(hashes: Iterable[bytes], *about: str | None) -> str:
    """Hash of the contents of files, in order, and of how they are read; their names do not matter."""
    digest = hashlib.sha256(canonical([FORMAT, *about]).encode())
    for content in hashes:
        digest.update(content)
    return digest.hexdigest()[: 2 * LENGTH]


def remembered(key: str, cache: Path | None, make: Callable[[], Decoded]) -> Decoded:
    """What is kept under a key, memory-mapped, or what `make` gives, which is then kept.

    Something damaged is made anew; where nothing can be written, the result stays in memory.

    Args:
        key: of the content.
        cache: folder; `default_cache` when not given.
        make: decodes.
    """
    try:
        place = (cache or default_cache()) / "decoded" / key
    except RuntimeError:  # no home folder
        return make()
    if (kept := _open(place)) is not None:
        return kept
    made = make()
    try:
        _keep(place, made)
    except (OSError, DiskFull):
        return made
    return _open(place) or made


def _open(place: Path) -> Decoded | None:
    """What is kept, or nothing where it is missing or damaged."""
    try:
        about = json.loads((place / "about.json").read_text(encoding="utf-8"))
        pixels: npt.NDArray[Any] = np.load(place / "pixels.npy", mmap_mode="r", allow_pickle=False)
        labels: npt.NDArray[Any] = np.load(place / "labels.npy", allow_pickle=False)
        if [*pixels.shape] != about["shape"] or pixels.dtype != np.uint8 or labels.shape != pixels.shape[:1]:
            return None
        kept = Decoded(pixels, labels.astype(np.int64), tuple(map(str, about["class_names"])))
        return kept if about["crc32"] == _crc32(kept) else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError):
        return None


def _crc32(decoded: Decoded) -> int:
    """Checksum of pixels, labels and names; read block by block, so that what is memory-mapped is not all in memory."""
    total = zlib.crc32(canonical([*decoded.class_names]).encode(), zlib.crc32(decoded.labels.tobytes()))
    for first in range(0, len(decoded.pixels), BLOCK):
        total = zlib.crc32(np.ascontiguousarray(decoded.pixels[first : first + BLOCK]).reshape(-1).data, total)
    return total


def _keep(place: Path, made: Decoded) -> None:
    with whole_folder(place) as folder:
        np.save(folder / "pixels.npy", made.pixels, allow_pickle=False)
        np.save(folder / "labels.npy", made.labels, allow_pickle=False)
        about = {"shape": [*made.pixels.shape], "class_names": [*made.class_names], "crc32": _crc32(made)}
        write_text(folder / "about.json", json.dumps(about))
