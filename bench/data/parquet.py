"""Image classification in Parquet files, in the layout of the Hub's data sets.

A struct column holds the encoded image in its field `bytes`, an integer column the label; what they are called is
found from the schema. Class names come from the metadata under the key 'huggingface', where there are any.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

from bench.data.cache import Decoded, hash_of, key_of, remembered
from bench.data.decode import decode
from bench.data.images import MOST_CLASSES, Images, images_from_arrays
from bench.data.splits import SPELLINGS, by_split, chosen, one_configuration, split_name
from bench.duck import connect
from bench.errors import BadData, brief
from bench.unpacking import check_size

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
"""Taken in this order where a file has several columns of the right type."""
WHOLE = {f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "", "big", "huge")} | {
    "integer",
    "uinteger",
}
"""DuckDB's names of integer types."""

MEMORY = "1GiB"
"""What looking through a file may take."""


class Columns(NamedTuple):
    """What the image and the label column of a file are called."""

    image: str
    label: str


def load_parquet(
    files: Sequence[Path],
    *,
    name: str,
    split: str,
    image: str | None = None,
    label: str | None = None,
    cache: Path | None = None,
) -> Images:
    """One split from its files, in the order of files and rows.

    Args:
        files: shards of the split, at least one.
        name: of the data set.
        split: of it.
        image: column of images; found from the schema when not given.
        label: column of labels; likewise.
        cache: folder where decoded images are kept.

    Raises:
        BadData: a file is damaged, empty, of another layout, or holds what is no image or no label.
    """
    for file in files:
        if file.exists() and not file.is_file():  # reading a pipe or a device may never end
            raise BadData(f"{file} is no file; wanted a Parquet file, take it out of the folder or name another")
    try:
        hashes = [hash_of(file) for file in files]
    except OSError as problem:
        raise BadData(
            f"{name}/{split} cannot be read ({problem.strerror}: {problem.filename}); mend its permissions or fetch it"
        ) from None
    first: dict[bytes, Path] = {}
    for file, content in zip(files, hashes, strict=True):
        if (same := first.setdefault(content, file)) != file:
            raise BadData(f"{file} holds the same as {same}, so its images would count twice; take one of them out")
    key = key_of(hashes, image, label)
    decoded = remembered(key, cache, lambda: read(files, image, label))
    return images_from_arrays(name, split, decoded.pixels, decoded.labels, decoded.class_names)


def load_matching(files: Sequence[Path], split: str, *, cache: Path | None = None) -> Images:
    """One split from files that were named themselves, by path or glob.

    The split is then only a label, unless the files' own names speak of splits: files of several are chosen from as in
    a folder, and those of one are refused as another; a validation split alone may stand as the test split.
    A study needs a training and a test split, so it is given the folder.

    Raises:
        UnknownName: files of several splits, not of this one.
        BadData: as `load_parquet`, or files of another split.
    """
    name = files[0].stem if len(files) == 1 and split_word(files[0]) is None else files[0].resolve().parent.name
    words = {word for file in files if (word := split_word(file))}
    if len(words) > 1:
        files = chosen(files, split, name)
    elif words and split_name(split) not in words and (words, split) != ({"validation"}, "test"):
        word = words.pop()
        raise BadData(
            f"{files[0]} is of the {word} split by its name, and {split!r} was asked for; "
            f"ask for {word!r}, or give the folder that holds both"
        )
    return load_parquet(files, name=name or "images", split=split_name(split), cache=cache)


def split_word(path: Path) -> str | None:
    """The split that a file's own name speaks of, if it is one of the usual."""
    (split,) = by_split([Path(path.name)])
    return split if split in SPELLINGS.values() else None


def load_shards(folder: Path, files: Sequence[Path], split: str, *, cache: Path | None = None) -> Images:
    """One split from a folder of shards, chosen by file names.

    Raises:
        UnknownName: no file is of that split; lists those there are.
        BadData: as `load_parquet`, or a shard is missing, or the folder holds several data sets.
    """
    files = one_configuration(files, str(folder), "give the folder of one of them")
    name = folder.resolve().name or "images"
    return load_parquet(chosen(files, split, name), name=name, split=split_name(split), cache=cache)


def shards_in(folder: Path) -> list[Path]:
    """The Parquet files of a folder: its own, or those up to two levels below."""
    for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet"):
        if found := sorted(path for path in folder.glob(pattern) if not path.name.startswith(".")):
            return found
    return []


def read(files: Sequence[Path], image: str | None = None, label: str | None = None) -> Decoded:
    """Everything in some files, decoded.

    Raises:
        BadData: as `load_parquet`.
    """
    encoded: list[bytes | Path] = []
    labels: list[int] = []
    starts: list[int] = []
    names: tuple[str, ...] | None = None

    def called(i: int) -> str:
        shard = bisect_right(starts, i) - 1
        return f"row {i - starts[shard]} of {files[shard]}"

    with connect() as connection:
        for path in files:
            starts.append(len(labels))
            try:
                columns = columns_of(connection, path, image, label)
                _check_size(connection, path, columns)
                own = class_names(connection, path, columns.label)
                rows = _rows(connection, path, columns)
            except BadData:
                raise
            except Exception as problem:  # damaged bytes lead DuckDB to errors of Python's too
                what = str(problem).splitlines()[0].replace(f" '{escape(str(path))}'", "").replace(f" '{path}'", "")
                raise BadData(f"{path} is no Parquet file that can be read ({brief(what)}); fetch it again") from None
            if path != files[0] and own != names:
                raise BadData(f"{path} has other class names than {files[0]}; they are not of one data set")
            names = own
            encoded += [row[0] for row in rows]
            labels += [row[1] for row in rows]
    if not labels:
        raise BadData(f"{files[0]} holds no rows; at least one image is needed")
    columns_read: tuple[tuple[str, Sequence[object]], ...] = (("image bytes", encoded), ("label", labels))
    for what, values in columns_read:
        if None in values:
            raise BadData(f"{called(values.index(None))} has no {what}; every row needs both")
    try:
        y = np.array(labels, np.int64)
    except OverflowError:
        raise BadData(f"{files[0]} has a label beyond 64 bits; wanted whole numbers from 0") from None
    if names is None and y.max() >= MOST_CLASSES:
        raise BadData(
            f"{called(int(y.argmax()))} has label {y.max()}, and the file names no classes; wanted labels from 0 to "
            f"{MOST_CLASSES - 1}, number the classes from 0"
        )
    return Decoded(decode(encoded, called), y, names or tuple(str(k) for k in range(int(y.max()) + 1)))


def _check_size(connection: duckdb.DuckDBPyConnection, path: Path, columns: Columns) -> None:
    """Refuse a file that unpacks to many times its size, by its footer and by its images, which only pass by.

    Raises:
        BadData: see `bench.unpacking`.
    """
    announced = connection.execute(
        "SELECT sum(total_uncompressed_size)::BIGINT FROM parquet_metadata($1)", [escape(str(path))]
    ).fetchone()
    check_size(path, (announced and announced[0]) or 0)
    with connect() as narrow:
        narrow.execute(f"SET memory_limit = '{MEMORY}'; SET threads = 1")
        try:
            held = narrow.execute(
                f"SELECT sum(octet_length(struct_extract({_quoted(columns.image)}, 'bytes')))::BIGINT "
                "FROM read_parquet($1, hive_partitioning = false)",
                [escape(str(path))],
            ).fetchone()
        except duckdb.OutOfMemoryException:
            raise BadData(
                f"{path} unpacks to blocks of more than {MEMORY}; write it anew with images of a usual size"
            ) from None
    check_size(path, (held and held[0]) or 0)


def _quoted(name: str) -> str:
    return f'"{name.replace(chr(34), 2 * chr(34))}"'


def _rows(connection: duckdb.DuckDBPyConnection, path: Path, columns: Columns) -> list[Any]:
    image, label = map(_quoted, columns)
    return connection.execute(
        f"SELECT struct_extract({image}, 'bytes'), {label} FROM read_parquet($1, hive_partitioning = false)",
        [escape(str(path))],
    ).fetchall()


def columns_of(
    connection: duckdb.DuckDBPyConnection, path: Path, image: str | None = None, label: str | None = None
) -> Columns:
    """The image and the label column of a file.

    Raises:
        BadData: there is none, or which of several cannot be told.
    """
    table = connection.read_parquet(escape(str(path)), hive_partitioning=False)
    kinds = dict(zip(table.columns, table.types, strict=True))
    images = [
        column
        for column, kind in kinds.items()
        if kind.id == "struct" and any(field == "bytes" and str(part) == "BLOB" for field, part in kind.children)
    ]
    labels = [column for column, kind in kinds.items() if kind.id in WHOLE]
    return Columns(
        _one(path, kinds, images, image, IMAGE_NAMES, "struct column with encoded 'bytes' of an image"),
        _one(path, kinds, labels, label, LABEL_NAMES, "integer column of labels"),
    )


def _one(
    path: Path, kinds: Mapping[str, Any], fitting: list[str], wanted: str | None, usual: Sequence[str], what: str
) -> str:
    if wanted is not None:
        if wanted not in fitting:
            raise BadData(f"{path} has no {what} called {wanted!r}; its columns are {', '.join(kinds)}")
        return wanted
    if not fitting:
        raise BadData(f"{path} has no {what}; its columns are {', '.join(f'{c} ({k})' for c, k in kinds.items())}")
    if len(fitting) > 1:
        named = [name for name in usual if name in fitting]
        if not named:
            raise BadData(
                f"{path} has more than one {what}: {', '.join(fitting)}; call the one that is meant {usual[0]!r}"
            )
        return named[0]
    return fitting[0]


def class_names(connection: duckdb.DuckDBPyConnection, path: Path, label: str) -> tuple[str, ...] | None:
    """The names of the classes, from a file's metadata; None where it has none that can be read."""
    row = connection.execute(
        "SELECT decode(value) FROM parquet_kv_metadata($1) WHERE decode(key) = 'huggingface'", [escape(str(path))]
    ).fetchone()
    try:
        names = json.loads(row[0])["info"]["features"][label]["names"] if row else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=lambda key: (len(key), key))]
    return tuple(map(str, names)) if isinstance(names, list) and names else None
