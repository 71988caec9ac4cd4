"""Which split a file belongs to, told from its name as the Hub's data sets spell it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TypeVar

from bench.errors import BadData, UnknownName

P = TypeVar("P", bound=PurePath)

SPELLINGS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "dev": "validation",
}
"""How splits are spelled in file names, and what they are called here."""

SHARD = re.compile(r"(?P<stem>.*)-(?P<index>\d+)-of-(?P<count>\d+)")


def split_name(split: str) -> str:
    """A split's one name: 'val' and 'valid' are 'validation'; what is not known stays."""
    return SPELLINGS.get(split.lower(), split)


def split_of(path: PurePath) -> str:
    """The split of a file: 'test' for `test-00000-of-00001.parquet`, `test.parquet` and `test/0000.parquet`."""
    first = re.split(r"[-_.]", path.stem)[0]
    for word in (first, path.parent.name):
        if word.lower() in SPELLINGS:
            return split_name(word)
    return re.sub(r"[-_.]?\d+(-of-\d+.*)?$", "", path.stem) or path.parent.name


def by_split(paths: Iterable[P]) -> dict[str, list[P]]:
    """The files of each split, sorted."""
    found: dict[str, list[P]] = {}
    for path in sorted(paths):
        found.setdefault(split_of(path), []).append(path)
    return found


def chosen(paths: Iterable[P], split: str, where: str) -> list[P]:
    """The files of one split, all of its shards.

    Raises:
        UnknownName: no file is of that split.
        BadData: a shard is missing.
    """
    found = by_split(paths)
    if split_name(split) not in found:
        raise UnknownName.among(f"split of {where}", split, found)
    return all_shards(found[split_name(split)], where)


def all_shards(paths: Sequence[P], where: str) -> list[P]:
    """The same files, if none of their shards 'i-of-n' is missing or there twice.

    Raises:
        BadData: one is; half a data set would pass for a whole one, or images would count twice.
    """
    indices: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if shard := SHARD.match(path.name):
            present = indices.setdefault((shard["stem"], int(shard["count"])), set())
            if int(shard["index"]) in present:
                raise BadData(
                    f"{where} holds shard {shard['index']} of the {shard['count']} of {shard['stem']!r} twice; "
                    f"take one out, such as {path.name}"
                )
            present.add(int(shard["index"]))
    for stem in {stem for stem, _ in indices}:
        counts = sorted(count for other, count in indices if other == stem)
        whole = [path.name for path in paths if path.stem == stem]
        if len(counts) > 1 or whole:
            both = whole or [f"'{stem}' in {counts[1]} shards"]
            raise BadData(
                f"{where} holds '{stem}' in {counts[0]} shards and {both[0]}, so its images would count twice; take "
                "one generation out"
            )
    for (stem, count), present in sorted(indices.items()):
        if missing := sorted(set(range(count)) - present):
            raise BadData(f"{where} lacks shard {missing[0]:05d} of the {count} of {stem!r}; fetch it")
    return list(paths)


def one_configuration(paths: Sequence[P], where: str, how: str) -> list[P]:
    """The same files, if they lie in one folder, or one per split.

    Args:
        paths: of the files.
        where: what holds them, for the message.
        how: how to name one of several, for the message.

    Raises:
        BadData: they are of several data sets side by side.
    """
    homes = {path.parent.parent if path.parent.name.lower() in SPELLINGS else path.parent for path in paths}
    if len(homes) > 1:
        names = ", ".join(sorted({home.name or "." for home in homes}))
        raise BadData(f"{where} holds several data sets ({names}); {how}")
    return list(paths)
