"""Data sets by name, path or Hub id, as `Images`.

What needs a library imports it where it is used: this file alone imports only numpy.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from bench.data.cards import CARDS
from bench.data.hub import PREFIX, load_hub
from bench.data.images import Images
from bench.errors import BadData, BadOption, BenchError, UnknownName, brief


def dataset_names() -> dict[str, str]:
    """What can be named, with a line on each."""
    digits = {"digits": "1,797 handwritten digits of scikit-learn, 8x8, 10 classes"}
    return digits | {name: card.about for name, card in CARDS.items()}


def load(
    source: str,
    split: str = "test",
    *,
    revision: str | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
) -> Images:
    """A split of a data set.

    Args:
        source: one of `dataset_names`; hub:owner/name; a folder of Parquet shards (`train-*`, `test-*`, ...), or of
            class folders, in one for each split; a Parquet file or a glob of them, which is one split however it is
            called. A name wins over a folder of that name: `./cifar10` is the folder. Local data are called by the
            folder's (or file's) base name, so that presets for `cifar10` hold for a folder `cifar10`.
        split: of it: 'train', 'test', 'validation' (also 'val', 'valid') or another that the data have.
        revision: branch, tag or commit on the Hub.
        cache: folder for decoded images and downloads; EVENBENCH_CACHE or ~/.cache/evenbench, and huggingface_hub's
            own, when not given.
        endpoint: address of the Hub, where it is not the usual one.

    Raises:
        UnknownName: no data set or split is called so.
        BadData: there is nothing at that path or id, or it cannot be read.
        BadOption: a revision of data that are not on the Hub.
    """
    if source in CARDS or source.startswith(PREFIX):
        return load_hub(source, split, revision=revision, cache=cache, endpoint=endpoint)
    if revision is not None:
        raise BadOption(f"revision {revision!r} was given, but {source!r} is not on the Hub; leave it out")
    if source == "digits":
        from bench.data.digits import load_digits

        return load_digits(split)
    return _load_path(source, split, cache)


def _load_path(source: str, split: str, cache: Path | None) -> Images:
    try:
        path = Path(source).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as problem:  # too long, a NUL character, nobody's home
        said = getattr(problem, "strerror", None) or str(problem)
        raise BadData(f"no data at {brief(repr(source))} ({brief(said)}); give a path that the system knows") from None
    if source and path.is_dir():
        from bench.data.folder import load_folder
        from bench.data.parquet import load_shards, shards_in

        shards = shards_in(path)
        return load_shards(path, shards, split, cache=cache) if shards else load_folder(path, split)
    matches = sorted(map(Path, glob.glob(str(path))))  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [path] if path.is_file() else [match for match in matches if match.is_file()]
    if files:
        from bench.data.parquet import load_matching

        return load_matching(files, split, cache=cache)
    if re.fullmatch(r"[\w-]+", source):
        raise UnknownName.among("data set", source, dataset_names(), "'evenbench list datasets'")
    on_hub = f"; did you mean 'hub:{brief(source)}'?" if re.fullmatch(r"[\w-]+/[\w.-]+", source) else ";"
    raise BadData(
        f"no data at {brief(repr(source))}{on_hub} wanted a name ('evenbench list datasets'), a folder "
        "of Parquet shards or of class folders, a Parquet file or glob, or hub:owner/name"
    )


def check_test_split(train: Images, source: str) -> None:
    """Refuse to train on local data whose test split has other classes; data without one, or on the Hub, pass.

    Raises:
        BadData: it has.
    """
    if source in dataset_names() or source.startswith(PREFIX):
        return
    try:
        test = load(source, "test")
    except BenchError:  # to be told by who evaluates on it
        return
    check_same_classes(train, test)


def check_same_classes(train: Images, test: Images) -> None:
    """Refuse splits with different classes: no network trained on the one could be judged on the other.

    Raises:
        BadData: they differ; says in which class.
    """
    if train.class_names == test.class_names:
        return
    alone = [name for name in (*train.class_names, *test.class_names) if name not in train.class_names]
    alone += [name for name in train.class_names if name not in test.class_names]
    differ = f"only one of them has {brief(repr(alone[0]))}" if alone else "they are in another order"
    raise BadData(
        f"{train.name}/{train.split} has {train.classes} classes and {test.name}/{test.split} has {test.classes}, and "
        f"{differ}; give both splits the same classes, in one order"
    )
