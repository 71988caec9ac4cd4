"""Data sets by name, path or Hub id, as `Images`."""

from __future__ import annotations

from pathlib import Path

from bench.data.images import Images, images_from_arrays
from bench.errors import UnknownName

__all__ = ["Images", "dataset_names", "images_from_arrays", "load"]


def dataset_names() -> dict[str, str]:
    """What can be named, with a line on each."""
    return {"digits": "1,797 handwritten digits of scikit-learn, 8x8, 10 classes"}


def load(
    source: str,
    split: str = "test",
    *,
    revision: str | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
) -> Images:
    """A split of a data set."""
    from bench.data.digits import load_digits

    if source == "digits":
        return load_digits(split)
    raise UnknownName.among("data set", source, dataset_names(), "'evenbench list datasets'")
