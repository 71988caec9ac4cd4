"""Verbs that make: train, select, evaluate, run, demo."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.cli.console import Stopped, progress, resumable, stderr, stdout
from bench.cli.options import DEFAULT_DB, AsJson, Dataset, Db, Device, Precision
from bench.cli.reading import show, store_at
from bench.cli.summaries import summarised, tell_evaluations
from bench.errors import BadRecipe, BadStudy

if TYPE_CHECKING:
    from bench.attacks.base import Attack
    from bench.study.file import Study
    from bench.study.plan import Cells


PATIENCE = 600.0
"""Seconds that a verb waits for the database which has hours of work to lose."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (demo, train, select, evaluate, run):
        app.command()(verb)


def device_of(name: str) -> str:
    """The device that a name means here.

    Raises:
        BadRecipe: it is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise BadRecipe(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise BadRecipe(f"device {name!r} cannot be used ({str(problem).splitlines()[0]}); use cpu or auto") from None
    return name


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train(
    method: Annotated[str, typer.Argument(help="A method, or parts joined by '+', such as trades+awp.")],
    dataset: Dataset,
    model: Annotated[str, typer.Option(help="Network to train ('evenbench list models').")],
    preset: Annotated[
        str | None, typer.Option(help="paper, short or digits; the data set's default when not named.")
    ] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="Teacher's checkpoint, or FILE@MODEL; ROLE=... where there are several.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the preset's.")] = None,
    eps: Annotated[str | None, typer.Option(help="Radius to train for, instead of the preset's.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the initial weights and every random choice.")
    ] = 0,
    n: Annotated[int, typer.Option(help="Train on a stratified subset of so many images; 0 for all.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SLOT.FIELD=VALUE", help="Override a field.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Checkpoint to write.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, instead of the preset's.")] = None,
) -> None:
    """Train a method and keep the selected epoch's checkpoint; run it again to go on after an interruption.

    Example: evenbench train pgd-at --dataset digits --model convnet-6 --out at.safetensors
    """
    from bench.budget import parse_eps
    from bench.data.source import Source
    from bench.evaluation.network import teacher_of
    from bench.models.architecture import check_name
    from bench.training.fit import Interrupted, fit, stoppable
    from bench.training.method import compose, lineage
    from bench.training.run import prepare

    check_name(model)
    lineage(method)  # wrong names are refused before the data are loaded
    settings: dict[str, Any] = {}
    radius = None if eps is None else str(parse_eps(eps))
    for key, value in (("epochs", epochs), ("eps", radius), ("precision", precision)):
        if value is not None:
            settings[f"schedule.{key}"] = value
    for item in set_ or []:
        address, equals, value = item.partition("=")
        if not equals:
            raise BadRecipe(f"--set {item!r} is no assignment; write slot.field=value")
        settings[address.strip()] = value.strip()
    images = Source(dataset, "train", n=n).images()
    images.check_complete()
    plan = compose(method, dataset=images.name, preset=preset, settings=settings)
    parents = {}
    for item in teacher or []:
        role, equals, file = item.rpartition("=")
        parents[role if equals else (plan.teachers or ("teacher",))[0]] = teacher_of(file, images)
    prepared = prepare(plan, images, model, seed, parents)
    path = (
        out or Path("results/checkpoints") / f"{method}-{images.name}-{model}-s{seed}-{prepared.run_id[:8]}.safetensors"
    )
    with progress() as shown, stoppable() as stop:

        def report(done: int, total: int) -> None:
            shown.plan(total)
            shown.advance(done, f"{method} on {images.name}: epoch {(done - 1) * plan.schedule.epochs // total + 1}")

        try:
            checkpoint = fit(prepared, path, device=device_of(device), stop=stop, report=report)
        except Interrupted as stopped:
            raise Stopped(str(stopped)) from None
    stderr().print(
        f"checkpoint {checkpoint.checkpoint_id}, epoch {checkpoint.epoch} of {plan.schedule.epochs}", markup=False
    )
    sys.stdout.write(f"{path}\n")


def select(
    ckpt: Annotated[Path, typer.Argument(help="Checkpoint that a training wrote, with its folder of epochs.")],
    rule: Annotated[str, typer.Option(help="last, best-robust, best-robust-plus-worst or best-mean-clean-robust.")],
    out: Annotated[Path | None, typer.Option(help="Checkpoint to write; CKPT-RULE.safetensors when not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Apply a selection rule to a finished training: the checkpoint it would have kept, without training again.

    Example: evenbench select at.safetensors --rule best-robust-plus-worst
    """
    from bench.training.checkpoint import read
    from bench.training.reselect import figures, reselect, write_new

    before = read(ckpt)
    chosen = reselect(before, ckpt, rule)
    rules = dict.fromkeys((rule, before.run["schedule"]["selection"]))
    file = out or (ckpt.with_name(f"{ckpt.stem}-{rule}.safetensors") if len(rules) > 1 else ckpt)
    write_new(chosen, file)
    kept = [figures(before.history, each) for each in rules]
    if as_json:
        facts = {"file": str(file), "checkpoint_id": chosen.checkpoint_id, "chosen": kept[0], "kept": kept[-1]}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        return
    rows = [
        (
            *(row["rule"], str(row["epoch"]), f"{100 * row['clean']:.2f}", f"{100 * row['robust']:.2f}"),
            f"{100 * row['worst']:.2f} ({row['worst_class']})",
        )
        for row in kept
    ]
    header = ("rule", "epoch", "clean %", "robust %", "worst class %")
    show(f"{ckpt} on {kept[0]['n']} held-out images", header, rows)
    line = f"epoch {chosen.epoch} is in {file}; 'evenbench evaluate {file} --dataset ...' attacks it"
    stdout().print(line, markup=False, soft_wrap=True)


def evaluate(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="Checkpoint, file.py:function, or state dict.")
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
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Attack a network and store what became of every sample; only what the database lacks is computed.

    Example: evenbench evaluate at.safetensors --dataset digits --suite standard --eps 0.15
    """
    from bench.attacks.trial import Trial, fitted, for_random_model, plan
    from bench.budget import parse_eps
    from bench.data.source import Source
    from bench.evaluation.adversarials import Keeper
    from bench.evaluation.batching import USUAL
    from bench.evaluation.evaluate import answers_vary
    from bench.evaluation.evidence import evidence_in
    from bench.evaluation.network import resolve
    from bench.evaluation.random_models import EOT, VOTES
    from bench.study.record import record

    names = attack_names(attacks) if attacks is not None else suite or (["clean"] if adversarials else "standard")

    at_a_time = USUAL if batch_size is None else batch_size

    def planned(radius: str, evidence: Sequence[tuple[str, Attack]] = (), *, vary: bool = False) -> tuple[Trial, ...]:
        size = parse_eps(radius)
        trials = plan(names, norm=norm, eps=size, seed=seed, precision=precision, batch_size=at_a_time)
        trials += tuple(Trial(name, attack, norm, size) for name, attack in evidence)
        answers = EOT if vary else 1, VOTES if vary else 1
        mean, majority = (usual if asked is None else asked for asked, usual in zip((eot, votes), answers, strict=True))
        return for_random_model(trials, eot=mean, votes=majority, batch_size=at_a_time)

    planned("8/255" if eps is None else eps)  # wrong names and numbers are refused before the data are loaded
    images = Source(dataset, split, n=n, seed=n_seed).images()
    images.check_complete()
    store, where = store_at(db, PATIENCE), device_of(device)
    resolved = [resolve(text, images, model) for text in targets]
    fitted(planned("8/255"), images.classes)
    files = [(name_of(path), evidence_in(path, images)) for path in adversarials or ()]
    store.create()
    found = []
    with resumable():
        for text, target in zip(targets, resolved, strict=True):
            radius = eps if eps is not None else target.eps or "8/255"
            vary = eot is votes is None and answers_vary(target.network(), images, where)
            trials = fitted(planned(radius, files, vary=vary), images.classes)
            keeper = Keeper(keep_adversarials, images, target.row.checkpoint_id) if keep_adversarials else None
            with progress() as shown:
                if vary:
                    shown.say(f"{text} answers at random: attacked in expectation over {EOT}, judged by {VOTES} votes")
                for name, evidence in files:
                    shown.say(
                        f"{name} covers {evidence.covers(images)} of {len(images)} samples, the others stay clean"
                    )
                record(
                    store,
                    target,
                    images,
                    trials,
                    batch_size=batch_size,
                    device=where,
                    progress=shown,
                    keep=keeper,
                    checks=checks,
                )
            ids = [trial.attack_id for trial in trials]
            found.append(summarised(store, text, target.row.checkpoint_id, images.dataset_id, ids))
    tell_evaluations(found, db, as_json=as_json)


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


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    db: Db = DEFAULT_DB,
    out: Annotated[Path | None, typer.Option(help="Folder for checkpoints, boards and figures.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one per core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Do what a study lacks: train, attack, store; then write its boards and figures.

    Example: evenbench run results/studies/digits.toml --dry-run
    """
    from bench.study.file import load_study

    raise typer.Exit(perform(load_study(study), db, out, workers, dry_run=dry_run, as_json=as_json))


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = Path("results/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one per core.")] = 0,
) -> None:
    """Train six methods on the scikit-learn digits, attack them, and show the class-by-class leaderboard.

    Example: evenbench demo
    """
    from bench.study.file import load_study

    if fresh:
        clear(out)
    with as_file(files("bench.study") / "demo.toml") as path:
        study = load_study(path)
    raise typer.Exit(perform(study, out / "bench.duckdb", out, workers))


def clear(out: Path) -> None:
    """Remove what an earlier run wrote into a folder, and nothing else."""
    for name in ("checkpoints", "figures"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("bench.duckdb", "bench.duckdb.wal", "leaderboard.md", "leaderboard.html"):
        (out / name).unlink(missing_ok=True)


def perform(
    study: Study, db: Path, out: Path | None, workers: int, *, dry_run: bool = False, as_json: bool = False
) -> int:
    """Run a study and write its boards and figures; the exit code."""
    from bench.study.plan import Cells
    from bench.study.runner import run_study

    if workers < 0:
        raise BadStudy(f"--workers {workers}: 0 for one per core, or a number of processes")
    study = replace(study, device=device_of(study.device))
    place, store = out or Path("results") / study.name, store_at(db, PATIENCE)
    with progress() as shown, resumable():
        cells = Cells(study, store, place)
        if dry_run:
            forecast = list(cells.forecast())
        else:
            report = run_study(cells, workers or (cores() if study.device == "cpu" else 1), shown)
    if dry_run:
        tell_forecast(forecast, as_json=as_json)
        return 0
    stderr().print(
        f"{report.trained} trained, {report.judged} chunks judged, {report.checked} checked now", markup=False
    )
    files = publish(cells, place, quiet=as_json)
    if as_json:
        facts = {**asdict(report), "database": str(store.path), "files": [str(path) for path in files]}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    for line in report.failures:
        stderr().print(f"failed: {line}", markup=False, soft_wrap=True)
    return 1 if report.failures else 0


def tell_forecast(forecast: list[tuple[str, str, str]], *, as_json: bool) -> None:
    """Show what a run would do."""
    if as_json:
        keys = ("cell", "training", "evaluation")
        sys.stdout.write(json.dumps([dict(zip(keys, row, strict=True)) for row in forecast], indent=2) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("cell", "training", "images to judge", box=None)
    for row in forecast:
        table.add_row(*map(Text, row))  # as plain strings, brackets would be read as markup
    stdout().print(table)


def publish(cells: Cells, place: Path, *, quiet: bool) -> list[Path]:
    """Print a study's boards unless `quiet`; write them and the figures into a folder. The files written."""
    from bench.errors import BadStore
    from bench.report.boards import Scope
    from bench.report.leaderboard import boards, render
    from bench.report.plots import plot

    store = cells.store
    # A database may hold more than this study: its boards must not depend on what else is there.
    scope = Scope(
        checkpoints=tuple(cell.parent.checkpoint_id for cell in cells if cell.parent and cell.entry.evaluate),
        datasets=(cells.images.dataset_id,),
        attacks=tuple(trial.attack_id for trial in cells.trials),
    )
    try:
        found = boards(store, scope=scope)
    except BadStore as problem:  # nothing complete yet: the run's own failures say why
        stderr().print(str(problem), markup=False, soft_wrap=True)
        return []
    figures = plot(store, place / "figures", scope=scope)
    addresses = [path.relative_to(place).as_posix() for path in figures]
    tables = []
    for form in ("md", "html"):
        path = place / f"leaderboard.{form}"
        path.write_text(str(render(found, form, figures=addresses)), encoding="utf-8", newline="\n")
        tables.append(path)
    if not quiet:
        stdout().print(render(found, "table"))
        for path in (store.path, *tables, *figures):
            stdout().print(f"wrote {path}", markup=False, soft_wrap=True)
    return [*tables, *figures]
