"""The verb that evaluates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.console import progress, results_alone, resumable
from bench.cli.options import DEFAULT_DB, PATIENCE, AsJson, Dataset, Db, Device, Precision, device_of
from bench.cli.reading import store_at
from bench.cli.signals import GRACE, stoppable
from bench.cli.summaries import summarised, tell_evaluations
from bench.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.cli.summaries import Summary
    from bench.store.database import Store
    from bench.study.plan import Agenda, Cell
    from bench.study.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(evaluate)


def evaluate(
    named: Annotated[
        list[str], typer.Argument(metavar="NETWORK...", help="Checkpoint, file.py:function, or state dict.")
    ],
    dataset: Dataset,
    split: Annotated[str, typer.Option(help="Split to attack.")] = "test",
    n: Annotated[int, typer.Option(help="A stratified subset of so many images; 0 for all.")] = 0,
    n_seed: Annotated[int, typer.Option(min=0, help="Which subset.")] = 0,
    suite: Annotated[
        str | None, typer.Option(help="Line-up of attacks ('evenbench list suites'); standard when none is named.")
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option(
            help="Attacks by name, with commas, instead of a suite; also torchattacks:PGD(steps=50), foolbox:..."
        ),
    ] = None,
    adversarials: Annotated[
        list[Path] | None,
        typer.Option(
            help="Judge these adversarial images: a file, or a folder of kept ones; alone, or beside attacks."
        ),
    ] = None,
    norm: Annotated[str, typer.Option(help="Linf or L2.")] = "Linf",
    eps: Annotated[
        str | None, typer.Option(help="Radius, exact; the one trained for, or 8/255, when not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the attacks.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(help="Images attacked at a time; 250, or on a GPU what fits, when not given.")
    ] = None,
    precision: Precision = "fp32",
    eot: Annotated[
        int | None, typer.Option(help="Answers whose mean the attacks see; 20 where answers are random, else 1.")
    ] = None,
    votes: Annotated[
        int | None, typer.Option(help="Answers whose majority decides; 10 where answers are random, else 1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Network of a foreign state dict.")] = None,
    keep_adversarials: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the adversarial images in this folder.")
    ] = None,
    checks: Annotated[
        Literal["none", "default", "all"], typer.Option(help="Which soundness checks follow the attacks.")
    ] = "default",
    device: Device = "auto",
    timeout: Annotated[
        int, typer.Option(metavar="SECONDS", help="How long a model or an attack may go on without any progress.")
    ] = 3600,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Attack a network and store what became of every sample; only what the database lacks is computed.

    Example: evenbench evaluate at.safetensors --dataset digits --suite standard --eps 0.15
    """
    from bench.attacks.trial import fitted
    from bench.data.source import Source
    from bench.evaluation.evidence import evidence_in
    from bench.evaluation.network import resolve
    from bench.evaluation.patience import check_timeout, patience
    from bench.study.given import USUAL_EPS, Asked
    from bench.study.plan import Agenda

    usual = ["clean"] if adversarials else "standard"
    names = attack_names(attacks) if attacks is not None else usual if suite is None else suite
    asked = Asked(names, norm, eps, seed, precision, batch_size, eot, votes)
    asked.check()
    check_timeout(timeout)
    if keep_adversarials is not None:
        check_writable(keep_adversarials / "checkpoint" / "attack")
    source = Source(dataset, split, n=n, seed=n_seed)
    images = source.images().check_complete()
    store, where = store_at(db, PATIENCE), device_of(device)
    with results_alone():
        networks = [resolve(text, images, model) for text in named]
    fitted(asked.trials(USUAL_EPS), images.classes)
    asked = replace(asked, evidence=tuple((name_of(path), evidence_in(path, images)) for path in adversarials or ()))
    with results_alone(), progress() as shown, resumable():
        for name, evidence in asked.evidence:
            shown.say(f"{name} covers {evidence.covers(images)} of {len(images)} samples, the others stay clean")
        cells = []
        for text, network in zip(named, networks, strict=True):
            with patience(timeout, f"{text}, asked about its first images,"):
                cells.append(asked.cell(text, network, images, device=where, keep_in=keep_adversarials, say=shown.say))
        with stoppable(GRACE) as stop:
            judge(Agenda(store, source, cells, where, checks, recheck=checks == "all", timeout=timeout), shown, stop)
    tell_evaluations([summary_of(store, cell, images.dataset_id) for cell in cells], db, as_json=as_json)


def judge(agenda: Agenda, shown: Progress, stop: Callable[[], bool]) -> None:
    """Attack the networks of an agenda, in this process, until `stop` says yes.

    Raises:
        BenchError: one of them, or an attack on it, failed; what the others came to is stored.
    """
    from bench.study.pool import Inline
    from bench.study.runner import run_study

    problems = list(run_study(agenda, Inline(), shown, stop).problems.values())
    for problem in problems[1:]:
        shown.say(str(problem))
    for problem in problems:
        raise problem


def summary_of(store: Store, cell: Cell, dataset_id: str) -> Summary:
    """What came out for a network."""
    attack_ids = [trial.attack_id for trial in cell.trials]
    return summarised(store, cell.label, str(cell.checkpoint_id), dataset_id, attack_ids)


def name_of(adversarials: Path) -> str:
    """How a file of adversarial images, or a folder of them, is called as an attack."""
    return f"evidence:{adversarials.name if adversarials.is_dir() else adversarials.stem}"


def attack_names(text: str) -> list[str]:
    """The names between commas that stand in no brackets."""
    names, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and not depth:
            names.append("")
        else:
            names[-1] += sign
    return [name.strip() for name in names]
