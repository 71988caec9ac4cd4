"""Data sets from the Hub, by card or by id and revision, through huggingface_hub and its cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeVar

from bench.data.cards import CARDS, Card
from bench.data.images import Images
from bench.data.splits import all_shards, chosen, one_configuration, split_name
from bench.errors import BadData, DiskFull, UnknownName
from bench.files import is_full

T = TypeVar("T")

PREFIX = "hub:"


@dataclass(frozen=True)
class Hub:
    """A revision of a data set on the Hub.

    Attributes:
        repo: owner and name.
        revision: branch, tag or commit.
        cache: folder of huggingface_hub's cache; its own when not given.
        endpoint: address of the Hub; huggingface_hub's own when not given.
    """

    repo: str
    revision: str
    cache: Path | None = None
    endpoint: str | None = None

    def files(self) -> list[str]:
        """Paths of all its files; those in the cache where the Hub cannot be reached.

        Raises:
            BadData: no such data set or revision, or neither the Hub nor the cache has it.
        """
        from huggingface_hub import HfApi

        def online() -> list[str]:
            found = HfApi(endpoint=self.endpoint).dataset_info(self.repo, revision=self.revision, timeout=20)
            return sorted(file.rfilename for file in found.siblings or [])

        def cached() -> list[str]:
            from huggingface_hub import snapshot_download

            folder = Path(
                snapshot_download(
                    self.repo,
                    repo_type="dataset",
                    revision=self.revision,
                    cache_dir=self.cache,
                    allow_patterns="*.parquet",
                    local_files_only=True,
                )
            )
            return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

        return self._asked(online, cached)

    def fetched(self, file: str) -> Path:
        """One of its files, downloaded unless the cache has it.

        Raises:
            BadData: it cannot be had.
            DiskFull: it does not fit on the disk.
        """
        from huggingface_hub import hf_hub_download

        def online() -> Path:
            return Path(
                hf_hub_download(
                    self.repo,
                    file,
                    repo_type="dataset",
                    revision=self.revision,
                    cache_dir=self.cache,
                    endpoint=self.endpoint,
                )
            )

        return self._asked(online)

    def _asked(self, online: Callable[[], T], cached: Callable[[], T] | None = None) -> T:
        """What `online` answers, or `cached` where the Hub does not answer at all."""
        from huggingface_hub import errors

        try:
            return online()
        except errors.HFValidationError:
            raise BadData(f"{PREFIX}{self.repo} is no id of a data set; wanted hub:owner/name") from None
        except errors.GatedRepoError:
            raise BadData(
                f"{self.repo} is open only to those who accepted its conditions; accept them on its page, then log in "
                "with huggingface_hub"
            ) from None
        except errors.RepositoryNotFoundError:
            raise BadData(
                f"the Hub has no data set {self.repo!r} that is open to you; check owner and name, or log in with "
                "huggingface_hub if it is private"
            ) from None
        except errors.RevisionNotFoundError:
            raise BadData(
                f"{self.repo} has no revision {self.revision!r}; give a branch, tag or commit of it"
            ) from None
        except Exception as problem:  # which ones depends on the HTTP client of the installed huggingface_hub
            if is_full(problem):
                raise DiskFull(f"no space left for {self.repo} in huggingface_hub's cache; free some") from None
            if cached is not None:
                # Not in the cache either: the first problem is the one to tell.
                with suppress(Exception):
                    return cached()
            what = next(iter(str(problem.__cause__ or problem).splitlines()), "") or type(problem).__name__
            raise BadData(
                f"{self.repo} at {self.revision!r} could not be had from the Hub ({what.strip().rstrip('.')}) and is "
                "not in the cache; check the network, or give a local folder of its Parquet files"
            ) from None


def load_hub(
    source: str,
    split: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
) -> Images:
    """One split of a data set on the Hub.

    The result is called by the card's name where there is a card, else by the repository's, so that presets apply.

    Args:
        source: name of a card, or hub:owner/name, or hub:owner/name/folder where several data sets lie side by side.
        split: of it; the card's own, else told from file names.
        revision: branch, tag or commit; the card's, else 'main', when not given.
        cache: folder for decoded images and, under `hub`, for downloads; the default places when not given.
        endpoint: address of the Hub.

    Raises:
        BadData: it cannot be had or read.
        UnknownName: it has no such split.
    """
    from bench.data.parquet import load_parquet

    name, card, folder = card_of(source)
    hub = Hub(card.repo, revision or card.revision, None if cache is None else cache / "hub", endpoint)
    if card.splits and split_name(split) not in card.splits:
        raise UnknownName.among(f"split of {name}", split, card.splits)
    files = files_of(hub.files(), card, folder, split)
    paths = [hub.fetched(file) for file in files]
    return load_parquet(paths, name=name, split=split_name(split), image=card.image, label=card.label, cache=cache)


def card_of(source: str) -> tuple[str, Card, str]:
    """Name, card and folder (or '') of a source on the Hub; an id without a card gets a bare one.

    Raises:
        BadData: no id of a data set.
    """
    if source in CARDS:
        return source, CARDS[source], ""
    parts = source.removeprefix(PREFIX).split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise BadData(f"{source!r} is no id of a data set; wanted hub:owner/name")
    repo, folder = "/".join(parts[:2]), parts[2].strip("/") if len(parts) > 2 else ""
    known = next((name for name, card in CARDS.items() if card.repo == repo), None)
    return (known, CARDS[known], "") if known and not folder else (parts[1], Card(repo, ""), folder)


def files_of(files: Sequence[str], card: Card, folder: str, split: str) -> list[str]:
    """The files of a split, all of its shards.

    Raises:
        BadData: none there, one missing, or several data sets side by side.
        UnknownName: no such split.
    """
    if card.splits:
        pattern = card.splits[split_name(split)]
        paths = [PurePosixPath(file) for file in sorted(files) if fnmatchcase(file, pattern)]
        if not paths:
            raise BadData(f"{card.repo} has no files {pattern} at this revision; give another, or a local folder")
        return [str(path) for path in all_shards(paths, card.repo)]
    paths = [path for file in files if (path := PurePosixPath(file)).suffix == ".parquet"]
    if folder:
        paths = [path for path in paths if path.is_relative_to(folder)]
    if not paths:
        raise BadData(f"{card.repo}{'/' + folder if folder else ''} has no Parquet files; choose another data set")
    one_configuration(paths, card.repo, f"give one of them as hub:{card.repo}/folder")
    return [str(path) for path in chosen(paths, split, card.repo)]
