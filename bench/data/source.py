"""Images by name, so that they need not be sent to another process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from bench.data.images import Images
from bench.data.load import load


@dataclass(frozen=True)
class Source:
    """Images by name, so that they need not be sent to a worker.

    Attributes:
        name: what `bench.data.load` understands.
        split: of it.
        revision: on the Hub; "" for the card's own.
        n: size of a stratified subset; 0 for all.
        seed: of the subset.
    """

    name: str
    split: str
    revision: str = ""
    n: int = 0
    seed: int = 0

    def images(self) -> Images:
        """The images, loaded once per process."""
        return _images(self)


@lru_cache(maxsize=4)
def _images(source: Source) -> Images:
    images = load(source.name, source.split, revision=source.revision or None)
    return images.take(source.n, source.seed) if source.n else images
