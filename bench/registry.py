"""Names for things that are written elsewhere: methods, attacks.

Built-in and third-party entries register alike, as `module:object` under an entry-point group, and are imported when
they are asked for and not before: listing the names costs no import, and an entry that fails harms no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Generic, TypeVar

from bench.errors import BenchError, UnknownName, told

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Entries of one kind by name, each imported at its first use.

    Attributes:
        kind: what an entry is, as a noun ("method").
        group: the entry-point group in which packages register theirs ("evenbench.methods").
        see: what to run to see all names ("'evenbench list methods'").
        own: entries that are there without being registered by a package, as `module:object`.
    """

    kind: str
    group: str
    see: str = ""
    own: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def _found(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        """All entries by name; several where a name is claimed more than once."""
        entries = [EntryPoint(name, value, self.group) for name, value in self.own.items()]
        entries += entry_points(group=self.group)
        by_name: dict[str, dict[str, EntryPoint]] = {}
        for entry in entries:
            by_name.setdefault(entry.name, {}).setdefault(entry.value, entry)
        return {name: tuple(claims.values()) for name, claims in by_name.items()}

    @cached_property
    def _loaded(self) -> dict[str, T]:
        return {}

    def names(self) -> list[str]:
        """Every name, sorted. Imports nothing."""
        return sorted(self._found)

    def get(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            UnknownName: nothing is called so.
            BenchError: the entry cannot be imported, or several claim the name.
        """
        if name not in self._found:
            raise UnknownName.among(self.kind, name, self.names(), self.see)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def failures(self) -> dict[str, str]:
        """Names that cannot be used, with the reason. Imports every entry."""
        reasons = {}
        for name in self.names():
            try:
                self.get(name)
            except BenchError as problem:
                reasons[name] = str(problem)
        return reasons

    def _load(self, name: str) -> T:
        first, *others = self._found[name]
        if others:
            claims = " and ".join(f"{entry.value} ({_owner(entry)})" for entry in (first, *others))
            raise BenchError(f"{self.kind} {name!r} is registered twice, by {claims}; uninstall or rename one of them")
        try:
            entry: T = first.load()
        except (Exception, SystemExit) as problem:
            raise BenchError(
                f"{self.kind} {name!r} of {_owner(first)} cannot be imported from {first.value}: {told(problem)}; "
                "mend or uninstall that package"
            ) from problem
        return entry


def _owner(entry: EntryPoint) -> str:
    """The distribution that registered an entry."""
    return entry.dist.name if entry.dist is not None else "evenbench"
