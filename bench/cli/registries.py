"""Verbs that show what there is: list, show."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from bench.cli.console import stderr, stdout
from bench.cli.options import AsJson
from bench.errors import BenchError, UnknownName


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("list")(list_)
    app.command()(show)


def _methods() -> dict[str, str]:
    from bench.method import METHODS

    found = {}
    for name in METHODS.names():
        try:
            found[name] = METHODS.get(name).page().split("\n", 1)[0]
        except BenchError as problem:
            found[name] = f"cannot be used: {problem}"
    return found


def _attacks() -> dict[str, str]:
    from bench.attacks.suite import describe_attacks

    return describe_attacks()


def _suites() -> dict[str, str]:
    from bench.attacks.suite import SUITES

    return {name: ", ".join(attacks) for name, attacks in SUITES.items()}


def _datasets() -> dict[str, str]:
    from bench.data import dataset_names

    return dict(dataset_names())


def _models() -> dict[str, str]:
    from bench.models import model_names

    return dict(model_names())


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
    found = KINDS[kind]()
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, line in found.items():
        table.add_row(name, line)
    stdout().print(table)


def show(
    method: Annotated[str, typer.Argument(help="A method, or parts joined by '+', such as trades+adr+awp.")],
    dataset: Annotated[str, typer.Option(help="Data set whose preset to show.")] = "cifar10",
    preset: Annotated[str | None, typer.Option(help="Preset to show; the data set's default when not named.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a method is made of, slot by slot, with its schedule and its paper.

    Example: evenbench show trades+adr --dataset digits
    """
    from bench.method import compose, lineage
    from bench.recipe import SLOTS, as_json as plain

    plan = compose(method, dataset=dataset, preset=preset)
    if as_json:
        facts = {"method": plan.method, "preset": plan.preset, "teachers": list(plan.teachers)}
        sys.stdout.write(json.dumps({**facts, "recipe": plain(plan.recipe), "schedule": plain(plan.schedule)}, indent=2) + "\n")
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
