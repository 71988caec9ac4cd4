"""Entries: what a person calls the checkpoints of one training recipe, and which ones those are.

An entry is what a row of the board is: the checkpoints that differ in nothing but their training seed. It is called
as the board shows it, `adr` or `adr[average.judged=true]`, narrowed where need be to a model and a seed,
`adr@convnet-6#0`, or to some seeds, `adr#0,1`; or by its checkpoint_id or recipe_id, of which the first four digits do
if no other starts so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.errors import AmbiguousName, BadStore, UnknownName

if TYPE_CHECKING:
    from bench.store.database import Store

_SOME_SEEDS = re.compile(r"(?P<name>.+)#(?P<seeds>[0-9]+(,[0-9]+)+)")
SHORTEST_PREFIX = 4
"""Digits of an id that must be given for it to be taken as one."""


@dataclass(frozen=True)
class Member:
    """One checkpoint of an entry, and the seed it was trained with (None when unknown)."""

    checkpoint_id: str
    seed: int | None


@dataclass(frozen=True)
class Entry:
    """The checkpoints of one training recipe.

    Attributes:
        method: name of the training method.
        variant: overrides of its preset; "" for none.
        preset: name of the preset.
        model: name of the architecture.
        trained_on: name of the training data; "" when unknown.
        selection: rule that chose the epochs kept; "" when unknown.
        recipe_id: hash of everything but the seed that determined the training.
        members: its checkpoints, by seed.
        chosen: whether the members are those of the seeds that were named, out of maybe more.
    """

    method: str
    variant: str
    preset: str
    model: str
    trained_on: str
    selection: str
    recipe_id: str
    members: tuple[Member, ...]
    chosen: bool = False

    @property
    def name(self) -> str:
        """As the board shows it: the method, with its variant in brackets where it has one."""
        return f"{self.method}[{self.variant}]" if self.variant else self.method

    @property
    def spelled(self) -> str:
        """Name and model, and the seeds where they were chosen or there is one only: what `find` understands."""
        if len(self.members) == 1:
            return self.spell(self.members[0])
        seeds = ",".join(str(member.seed) for member in self.members)
        return f"{self.name}@{self.model}" + (f"#{seeds}" if self.chosen else "")

    def spell(self, member: Member) -> str:
        """Name, model and seed of one of its checkpoints."""
        return f"{self.name}@{self.model}" + ("" if member.seed is None else f"#{member.seed}")


@dataclass(frozen=True)
class _Known:
    """A row of `checkpoints`, and whether anything is known of it."""

    checkpoint_id: str
    seed: int | None
    evaluated: bool
    kind: tuple[str, ...]
    """method, variant, preset, model, trained_on, selection, recipe_id"""

    @property
    def name(self) -> str:
        method, variant = self.kind[:2]
        return f"{method}[{variant}]" if variant else method

    def spellings(self, name: str) -> Iterator[str]:
        for model in ("", f"@{self.kind[3]}"):
            yield f"{name}{model}"
            if self.seed is not None:
                yield f"{name}{model}#{self.seed}"


def find(store: Store, text: str) -> Entry:
    """The entry that `text` calls.

    A method without brackets is the one without overrides where there is one. Checkpoints that were never evaluated
    are passed over where others fit.

    Args:
        store: where to look.
        text: a method, "method[variant]", either with "@model", "#seed" (or "#seed,seed") or both; or a checkpoint_id
            or recipe_id, or the first four or more digits of one.

    Raises:
        UnknownName: nothing is called that.
        AmbiguousName: more than one entry is; the message lists them.
    """
    known = _known(store)
    some = _SOME_SEEDS.fullmatch(text)
    if some is not None and not _matching(known, text):
        return _of_seeds(store, some["name"], [int(seed) for seed in some["seeds"].split(",")])
    found = _matching(known, text)
    if not found:
        if not known:
            raise BadStore(
                f"{store.path} holds no checkpoints, so none called {text!r}; 'evenbench evaluate' enters one"
            )
        raise UnknownName.among("entry", text, {one.name for one in known}, "'evenbench leaderboard'")
    entries = _grouped([one for one in found if one.evaluated] or found)
    seeds = [member.seed for member in entries[0].members]
    if len(entries) > 1 or len(set(seeds)) < len(seeds):
        raise AmbiguousName(f"{text!r} fits {_listing(entries)}; give one of these, or an id")
    return entries[0]


def _of_seeds(store: Store, name: str, seeds: Sequence[int]) -> Entry:
    """The entry that `name` calls, with the checkpoints of these seeds only."""
    entry = find(store, name)
    by_seed = {member.seed: member for member in entry.members}
    missing = [seed for seed in seeds if seed not in by_seed]
    if missing:
        there = ", ".join(str(seed) for seed in by_seed)
        raise UnknownName(f"{entry.spelled} has no seed {missing[0]}; its seeds are {there}")
    return replace(entry, members=tuple(by_seed[seed] for seed in sorted(set(seeds))), chosen=True)


def calls_attack(text: str, name: str, attack_id: str) -> bool:
    """Whether `text` calls this attack: by its name, or by the first four or more digits of its fingerprint."""
    return text == name or (len(text) >= SHORTEST_PREFIX and attack_id.startswith(text))


def _known(store: Store) -> list[_Known]:
    rows = store.rows(
        "SELECT checkpoint_id, seed, checkpoint_id IN (SELECT checkpoint_id FROM complete_evaluations), "
        "method, variant, preset, model, trained_on, selection, recipe_id FROM checkpoints ORDER BY seed, checkpoint_id"
    )
    return [_Known(checkpoint_id, seed, evaluated, tuple(kind)) for checkpoint_id, seed, evaluated, *kind in rows]


def _matching(known: Sequence[_Known], text: str) -> list[_Known]:
    by_name = [one for one in known if text in one.spellings(one.name)]
    by_method = [one for one in known if text in one.spellings(one.kind[0])]
    if by_name or by_method or len(text) < SHORTEST_PREFIX:
        return by_name or by_method
    return [one for one in known if one.checkpoint_id.startswith(text)] or [
        one for one in known if one.kind[-1].startswith(text)
    ]


def _grouped(found: Sequence[_Known]) -> list[Entry]:
    together: defaultdict[tuple[str, ...], list[Member]] = defaultdict(list)
    for one in found:
        together[one.kind].append(Member(one.checkpoint_id, one.seed))
    fields = ("method", "variant", "preset", "model", "trained_on", "selection", "recipe_id")
    made = []
    for kind, members in sorted(together.items()):
        facts: dict[str, Any] = dict(zip(fields, kind, strict=True))
        made.append(Entry(members=tuple(members), **facts))
    return made


def _listing(entries: Sequence[Entry]) -> str:
    if len({entry.spelled for entry in entries}) == len(entries) > 1:
        return f"{len(entries)} entries: " + ", ".join(entry.spelled for entry in entries)
    if len({entry.recipe_id for entry in entries}) == len(entries) > 1:
        shown = [f"{entry.spelled} ({entry.preset or 'no preset'}, recipe_id {entry.recipe_id})" for entry in entries]
        return f"{len(entries)} entries: " + ", ".join(shown)
    members = [(entry, member) for entry in entries for member in entry.members]
    shown = [f"{entry.spell(member)} ({member.checkpoint_id})" for entry, member in members]
    return f"{len(members)} checkpoints: " + ", ".join(shown)
