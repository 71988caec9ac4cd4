"""Verbs that show what there is: list, show."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bench.cli.console import results_alone, stderr, stdout
from bench.cli.options import AsJson
from bench.errors import BenchError, UnknownName
from bench.registry import Registry

if TYPE_CHECKING:
    from bench.training.method import Method


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("list")(list_)
    app.command()(show)


T = TypeVar("T")


def first_line(text: str | None) -> str:
    """What a docstring says first."""
    return (text or "").strip().split("\n", 1)[0]


def described(registry: Registry[T], describe: Callable[[T], str]) -> dict[str, str]:
    """A line on every entry; one that cannot be loaded says why and harms no other."""
    lines = {}
    for name in registry.names():
        try:
            lines[name] = describe(registry.get(name))
        except BenchError as problem:
            lines[name] = f"cannot be used: {problem}"
        except Exception as problem:  # what a package registers may be anything
            lines[name] = f"cannot be used: {type(problem).__name__}: {problem}"
    return lines


def _methods() -> dict[str, str]:
    from bench.training.method import METHODS

    return described(METHODS, lambda method: f"{first_line(method.page())} {made_of(method)}")


def made_of(method: Method) -> str:
    """What a method fills, what it stands on when named alone, and what it needs, in brackets."""
    needs = " and ".join(method.teachers)
    parts = [", ".join(method.slots), f"on {method.on}" * bool(method.on), f"needs {needs}" * bool(needs)]
    return f"[{'; '.join(part for part in parts if part)}]"


def _attacks() -> dict[str, str]:
    from bench.attacks.suite import ATTACKS

    return described(ATTACKS, lambda attack: f"{first_line(type(attack).__doc__)} {attack}")


def _suites() -> dict[str, str]:
    from bench.attacks.suite import SUITES

    return {name: ", ".join(attacks) for name, attacks in SUITES.items()}


def _datasets() -> dict[str, str]:
    from bench.data.load import dataset_names

    return dict(dataset_names())


def _models() -> dict[str, str]:
    from bench.models.architecture import model_names

    return dict(model_names())


GRAMMAR = (
    "In brackets: the slots it fills, the method below it, the networks it needs. Join what fills different slots: "
    "trades+dafa+adr+awp. 'evenbench show NAME' says slot by slot what that is."
)

KINDS: Mapping[str, Callable[[], dict[str, str]]] = {
    "methods": _methods,
    "attacks": _attacks,
    "suites": _suites,
    "datasets": _datasets,
    "models": _models,
}


def list_(
    kind: Annotated[str, typer.Argument(help="methods, attacks, suites, datasets or models.")],
    as_json: AsJson = False,
) -> None:
    """List what can be named: methods, attacks, suites, datasets, models.

    Example: evenbench list methods
    """
    if kind not in KINDS:
        raise UnknownName.among("list", kind, KINDS)
    with results_alone():  # packages are imported
        found = KINDS[kind]()
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, line in found.items():
        table.add_row(Text(name), Text(line))  # as plain strings, brackets would be read as markup
    stdout().print(table)
    if kind == "methods":
        stderr().print(GRAMMAR, markup=False)


def show(
    method: Annotated[str, typer.Argument(help="A method, or parts joined by '+', such as trades+adr+awp.")],
    dataset: Annotated[str, typer.Option(help="Data set whose preset to show.")] = "cifar10",
    preset: Annotated[str | None, typer.Option(help="Preset to show; the data set's default when not named.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a method is made of, slot by slot, with its schedule and its paper.

    Example: evenbench show trades+adr --dataset digits
    """
    from bench.training.method import compose, lineage
    from bench.training.recipe import SLOTS, as_json as plain

    with results_alone():  # packages are imported
        plan = compose(method, dataset=dataset, preset=preset)
    if as_json:
        facts = {"method": plan.method, "preset": plan.preset, "teachers": list(plan.teachers)}
        sys.stdout.write(
            json.dumps({**facts, "recipe": plain(plan.recipe), "schedule": plain(plan.schedule)}, indent=2) + "\n"
        )
        return
    out = stdout()
    for part, entry in lineage(method).items():
        out.print(f"[bold]{part}[/]")
        out.print(entry.page() + "\n", markup=False)
    out.print(f"[bold]slots[/] ({dataset}, preset {plan.preset})")
    for slot in SLOTS:
        out.print(f"  {slot:9} {getattr(plan.recipe, slot)}", markup=False, soft_wrap=True)
    out.print(f"  {'schedule':9} {plan.schedule}", markup=False, soft_wrap=True)
    for role in plan.teachers:
        stderr().print(f"needs a {role}: --teacher CHECKPOINT", markup=False)
