"""Images in a folder of class folders: `root/split/class/*.png`, or `root/class/*.png`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.data.decode import decode
from bench.data.images import Images, images_from_arrays
from bench.data.splits import SPELLINGS, split_name
from bench.errors import BadData, UnknownName

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"))


def load_folder(folder: Path, split: str) -> Images:
    """One split of a folder; classes in the order of their names, images in that of theirs.

    Where the folder has no folders of splits, all its images are taken and the split is only a label. A class that is
    in any split is a class in all, so that labels agree between them.

    Raises:
        UnknownName: there are folders of splits, but not of this one.
        BadData: no class folders, no images, or some that cannot be read.
    """
    name = folder.resolve().name or "images"
    roots = split_folders(folder)
    if roots and split_name(split) not in roots:
        raise UnknownName.among(f"split of {name}", split, roots)
    classes = sorted({inner.name for root in roots.values() or [folder] for inner in folders_in(root)})
    root = roots.get(split_name(split), folder)
    _refuse_twice(root, classes)
    if not classes:
        raise BadData(f"{root} holds neither Parquet files nor folders of classes; put each class's images in one")
    files, labels = [], []
    for k, one in enumerate(classes):
        inside = sorted(path for path in (root / one).rglob("*") if _shown(path) and path.suffix.lower() in SUFFIXES)
        files += inside
        labels += [k] * len(inside)
    if not files:
        raise BadData(f"{root} holds no images in its {len(classes)} folders; wanted files such as {classes[0]}/1.png")
    pixels = decode(files, lambda i: str(files[i]))
    return images_from_arrays(name, split_name(split), pixels, np.array(labels), classes)


def _refuse_twice(root: Path, classes: list[str]) -> None:
    """Refuse folders by whose links the same images would be in two classes.

    Raises:
        BadData: a class is a link to a folder above it, or to that of another class.
    """
    places: dict[Path, str] = {}
    for one in classes:
        place = (root / one).resolve()
        if root.resolve().is_relative_to(place):
            raise BadData(f"{root / one} links to {place}, which holds it; put the images of the class into a folder")
        if place.exists() and (same := places.setdefault(place, one)) != one:
            raise BadData(f"{root / one} and {root / same} are one folder; each class needs its own images")


def split_folders(folder: Path) -> Mapping[str, Path]:
    """The folders of splits, by split: those called so that hold folders themselves."""
    return {
        split_name(one.name): one for one in folders_in(folder) if one.name.lower() in SPELLINGS and folders_in(one)
    }


def folders_in(folder: Path) -> list[Path]:
    """Folders in a folder that are not hidden, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and _shown(path))


def _shown(path: Path) -> bool:
    return not path.name.startswith(".")
