"""From the name of a method to a recipe and a schedule: `trades+adr+awp` is a line, not a class.

A method registers a `Method`: the slots it is about, the method it stands on when named alone, and its presets. A
name is parts joined by `+`: the first brings everything it stands on, each further part lays its own slots over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from inspect import cleandoc
from typing import Any

from bench.errors import BadRecipe, brief, told
from bench.registry import Registry
from bench.training.overrides import field_at, override, spell
from bench.training.recipe import SLOTS, Recipe, is_frozen
from bench.training.schedule import Schedule


@dataclass(frozen=True)
class Preset:
    """How a method is run on a data set.

    Attributes:
        schedule: the training schedule.
        slots: slots that differ from the method's own in this setting.
    """

    schedule: Schedule
    slots: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """What a method's file registers.

    Attributes:
        slots: the slots that the method is about, by name; no other named part may fill them.
        brings: slots that it needs filled and fills unless another part does.
        on: the method it stands on when it comes first in a name; "" for a method that fills `objective` itself.
        presets: by "dataset/preset" ("cifar10/paper"); "dataset/preset+part" holds when that part is named too
            (or those parts, "+part+part"); "*/preset" for every data set.
        teachers: roles of the frozen networks it needs.
        module: where it is written; its docstring is the method's page.
    """

    slots: Mapping[str, object]
    module: str
    on: str = ""
    brings: Mapping[str, object] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)
    teachers: Sequence[str] = ()

    def page(self) -> str:
        """The method's documentation: what it is, its paper, code, claim and departures."""
        try:
            return cleandoc(import_module(self.module).__doc__ or "")
        except (Exception, SystemExit) as problem:  # whatever the module of a package raises
            raise BadRecipe(
                f"a method's module {self.module!r} cannot be imported: {told(problem)}; mend it"
            ) from problem

    def preset(self, dataset: str, name: str, companions: Sequence[str]) -> Preset | None:
        """The preset called `name` for a data set: the one for most of the company, the first listed of equals."""
        for where in (dataset, "*"):
            fitting = []
            for key, preset in self.presets.items():
                head, *company = key.split("+")
                if head == f"{where}/{name}" and set(company) <= set(companions):
                    fitting.append((len(company), preset))
            if fitting:
                return max(fitting, key=lambda pair: pair[0])[1]
        return None

    def unset(self, dataset: str, name: str, companions: Sequence[str]) -> bool:
        """Whether a preset of that name is known of it for other data only; what is below must not stand in then."""
        elsewhere = any(key.partition("/")[2] == name for key in self.presets)
        return elsewhere and self.preset(dataset, name, companions) is None


METHODS: Registry[Method] = Registry("method", "evenbench.methods", "'evenbench list methods'")


@dataclass(frozen=True)
class Plan:
    """A method made concrete for a data set.

    Attributes:
        method: the canonical name.
        preset: name of the preset.
        variant: what overrides changed, `average.judged=true`; "" for nothing.
        recipe: the five slots.
        schedule: the rest.
        teachers: roles of the networks needed.
    """

    method: str
    preset: str
    variant: str
    recipe: Recipe
    schedule: Schedule
    teachers: tuple[str, ...]


def default_preset(dataset: str) -> str:
    """The preset used when none is named: a setting that this project can run."""
    return "digits" if dataset == "digits" else "short"


def lineage(name: str) -> dict[str, Method]:
    """The methods that a name is made of, in the order in which they are laid over each other.

    Raises:
        UnknownName: a part is in no registry.
        BadRecipe: a part is empty or named twice.
    """
    parts = name.split("+")
    if "" in parts:
        raise BadRecipe(f"method {name!r} has an empty part; write it as parts joined by '+', such as trades+awp")
    if twice := {part for part in parts if parts.count(part) > 1}:
        raise BadRecipe(f"method {name!r} names {min(twice)!r} twice; once is enough")
    stack = [parts[0]]
    while below := registered(stack[0]).on:
        if below in stack:
            raise BadRecipe(
                f"method {stack[0]!r} stands on {below!r}, which stands on it: mend 'on' in the package that brings it"
            )
        stack.insert(0, below)
    return {part: registered(part) for part in dict.fromkeys((*stack, *parts))}


def registered(name: str) -> Method:
    """The method of a name, if that is what was registered.

    Raises:
        UnknownName: nothing is called so.
        BadRecipe: it is something else.
    """
    found = METHODS.get(name)
    if not isinstance(found, Method):
        raise BadRecipe(
            f"method {name!r} is registered as {type(found).__name__}; register a bench.training.method.Method"
        )
    if wrong := faults(found):
        raise BadRecipe(f"method {name!r} {wrong}; mend it in the package that registers it")
    return found


def faults(method: Method) -> str:
    """The first thing about a method because of which it could not be composed; "" where there is none."""
    for name, kind in (("slots", Mapping), ("brings", Mapping), ("presets", Mapping), ("on", str), ("module", str)):
        if not isinstance(came := getattr(method, name), kind):
            return f"has {brief(repr(came))} as its {name!r}, which must be a {kind.__name__.lower()}"
    roles = method.teachers
    if isinstance(roles, str) or not isinstance(roles, Sequence) or not all(isinstance(role, str) for role in roles):
        return f"has {brief(repr(roles))} as its 'teachers', which must be a tuple of names"
    for key, preset in method.presets.items():
        if not isinstance(key, str) or not isinstance(preset, Preset) or not isinstance(preset.schedule, Schedule):
            return f"has {brief(repr(preset))} as its preset {key!r}, which must be a Preset of a Schedule"
        if not isinstance(preset.slots, Mapping):
            return f"has {brief(repr(preset.slots))} as slots of its preset {key!r}, which must be a mapping"
    for slots in (method.slots, method.brings, *(preset.slots for preset in method.presets.values())):
        for slot, filling in slots.items():
            if slot not in SLOTS:
                return f"fills {brief(repr(slot))}, which is no slot (there are {', '.join(SLOTS)})"
            if not is_frozen(filling):
                return f"fills {slot!r} with {brief(repr(filling))}, which must be an instance of a frozen dataclass"
    return ""


def owners(name: str, chain: Mapping[str, Method]) -> dict[str, str]:
    """Which of the named parts each slot belongs to.

    Raises:
        BadRecipe: two named parts fill the same slot.
    """
    owner: dict[str, str] = {}
    for part in name.split("+"):
        for slot in chain[part].slots:
            if slot in owner:
                raise BadRecipe(
                    f"method {name!r}: both {owner[slot]!r} and {part!r} fill the slot {slot!r}; name only one of them"
                )
            owner[slot] = part
    return owner


def compose(
    name: str,
    *,
    dataset: str,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan that a name, a preset and overrides describe.

    Args:
        name: a method, or parts joined by `+`.
        dataset: name of the training data, which chooses the preset.
        preset: name of the preset; None for the data set's default.
        settings: overrides by "slot.field" or "schedule.field"; values as text or already typed.

    Raises:
        UnknownName: no such method, slot or field.
        BadRecipe: parts that do not fit, a preset that the method lacks, or a value out of range.
    """
    chain = lineage(name)
    owner = owners(name, chain)
    wanted = preset or default_preset(dataset)
    named = name.split("+")
    slots = {slot: filling for method in chain.values() for slot, filling in method.brings.items()}
    schedule: Schedule | None = None
    for part, method in chain.items():
        slots.update(method.slots)
        found = method.preset(dataset, wanted, [other for other in named if other != part])
        if found is not None:
            slots.update({slot: f for slot, f in found.slots.items() if owner.get(slot, part) == part})
            if part == named[0] or part not in named:
                schedule = found.schedule
    strange = any(chain[part].unset(dataset, wanted, named) for part in named)
    if schedule is None or strange:
        known = sorted({key for method in chain.values() for key in method.presets})
        raise BadRecipe(
            f"{name!r} has no preset {wanted!r} for {dataset!r}; it has {', '.join(known) or 'none'} "
            "(choose one with --preset)"
        )
    if "objective" not in slots:
        raise BadRecipe(f"method {name!r} has no objective; name one first, such as pgd-at+{named[0]}, or set its 'on'")
    recipe = Recipe(**slots)  # type: ignore[arg-type]  # Recipe checks its slots
    recipe, schedule, variant = overridden(recipe, schedule, settings or {})
    teachers = tuple(dict.fromkeys(role for method in chain.values() for role in method.teachers))
    return Plan(name, wanted, variant, recipe, schedule, teachers)


def overridden(recipe: Recipe, schedule: Schedule, settings: Mapping[str, Any]) -> tuple[Recipe, Schedule, str]:
    """A recipe and a schedule with settings of a user's, and what these changed: "" or `average.judged=true,...`.

    Raises:
        UnknownName: no such field.
        BadRecipe: no such slot, or a value that it cannot hold.
    """
    wished: dict[str, dict[str, Any]] = {}
    for address, value in sorted(settings.items()):
        slot, _, path = address.partition(".")
        if slot not in (*SLOTS, "schedule"):
            raise BadRecipe(f"{address!r} addresses no slot; use one of {', '.join((*SLOTS, 'schedule'))}")
        wished.setdefault(slot, {})[path] = value
    changes = []
    for slot, paths in wished.items():
        before: Any = schedule if slot == "schedule" else getattr(recipe, slot)
        after: Any = override(before, paths, slot)
        changes += [
            f"{slot}.{p}={spell(field_at(after, p))}" for p in paths if field_at(after, p) != field_at(before, p)
        ]
        if slot == "schedule":
            schedule = after
        else:
            recipe = replace(recipe, **{slot: after})
    return recipe, schedule, ",".join(changes)
