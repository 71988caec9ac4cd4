"""Verbs that run studies: run, demo."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.console import progress, results_alone, resumable, stderr, stdout
from bench.cli.fresh import MARKER, clear, mark
from bench.cli.options import DEFAULT_DB, PATIENCE, AsJson, Db, cores, device_of
from bench.cli.reading import show, store_at
from bench.cli.replacing import BOARDS, Force, place_for
from bench.cli.signals import GRACE, stoppable
from bench.errors import BadStore, BadStudy
from bench.files import check_writable, write_text

if TYPE_CHECKING:
    from bench.study.file import Study
    from bench.study.plan import Agenda


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (run, demo):
        app.command()(verb)


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    db: Db = DEFAULT_DB,
    out: Annotated[Path | None, typer.Option(help="Folder for checkpoints, boards and figures.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one per core.")] = 0,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Do what a study lacks: train, attack, store; then write its boards and figures.

    Example: evenbench run results/studies/digits.toml --dry-run
    """
    from bench.study.file import load_study

    raise typer.Exit(perform(load_study(study), db, out, workers, dry_run=dry_run, as_json=as_json, force=force))


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = Path("results/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, without what an earlier demo wrote.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one per core.")] = 0,
    force: Force = False,
) -> None:
    """Train six methods on the scikit-learn digits, attack them, and show the class-by-class leaderboard.

    Example: evenbench demo
    """
    from bench.study.file import load_study

    with as_file(files("bench.study") / "demo.toml") as path:
        study = load_study(path)
    refuse_workers(workers)
    check_writable(out / MARKER)
    if fresh:
        clear(out)
    mark(out)
    raise typer.Exit(perform(study, out / "bench.duckdb", out, workers, force=force))


def perform(
    study: Study,
    db: Path,
    out: Path | None,
    workers: int,
    *,
    dry_run: bool = False,
    as_json: bool = False,
    force: bool = False,
) -> int:
    """Run a study and write its boards and figures; the exit code."""
    from bench.study.plan import agenda_of
    from bench.study.pool import Processes
    from bench.study.runner import run_study

    refuse_workers(workers)
    study = replace(study, device=device_of(study.device))
    place, store = out or Path("results") / study.name, store_at(db, PATIENCE)
    if not dry_run:
        check_writable(place / "checkpoints" / "x")
        for board in ("leaderboard.md", "leaderboard.html"):
            place_for(place / board, BOARDS, force=force)
    with resumable():
        with results_alone(), progress() as shown:
            agenda = agenda_of(study, store, place)
            if dry_run:
                forecast = list(agenda.forecast())
            else:
                pool = Processes(workers or (cores() if study.device == "cpu" else 1))
                with stoppable(GRACE) as stop:
                    report = run_study(agenda, pool, shown, stop)
        if dry_run:
            tell_forecast(forecast, as_json=as_json)
            return 0
        stderr().print(
            f"{report.trained} trained, {report.judged} chunks judged, {report.checked} checked now", markup=False
        )
        try:
            files = publish(agenda, place, quiet=as_json)
        except BadStore as problem:
            if not report.failures:  # else they say why
                raise
            stderr().print(str(problem), markup=False, soft_wrap=True)
            files = []
    if as_json:
        facts = {
            "trained": report.trained,
            "judged": report.judged,
            "checked": report.checked,
            "failures": report.failures,
            "database": str(store.path),
            "files": [str(path) for path in files],
        }
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    for line in report.failures:
        stderr().print(f"failed: {line}", markup=False, soft_wrap=True)
    return 1 if report.failures else 0


def refuse_workers(workers: int) -> None:
    """Refuse a number of processes that is none."""
    if workers < 0:
        raise BadStudy(f"--workers {workers}: 0 for one per core, or a number of processes")


def tell_forecast(forecast: list[tuple[str, str, str]], *, as_json: bool) -> None:
    """Show what a run would do."""
    if as_json:
        keys = ("cell", "training", "evaluation")
        sys.stdout.write(json.dumps([dict(zip(keys, row, strict=True)) for row in forecast], indent=2) + "\n")
        return
    show("", ("cell", "training", "images to judge"), forecast, words=("training", "images to judge"))


def publish(agenda: Agenda, place: Path, *, quiet: bool) -> list[Path]:
    """Print a study's boards unless `quiet`; write them and the figures into a folder. The files written.

    Raises:
        BadStore: the boards cannot be read, or nothing was judged to its end.
    """
    from bench.report.boards import Scope
    from bench.report.leaderboard import boards, render
    from bench.report.plots import plot

    store = agenda.store
    # A database may hold more than this study: its boards must not depend on what else is there.
    scope = Scope(
        checkpoints=tuple(cell.checkpoint_id for cell in agenda.cells if cell.checkpoint_id and cell.trials),
        datasets=(agenda.images.dataset_id,),
        attacks=tuple(trial.attack_id for trial in agenda.trials),
    )
    if not scope.checkpoints:
        stderr().print("no network of this study was judged: there are no boards to write", markup=False)
        return []
    found = boards(store, scope=scope)
    figures = plot(store, place / "figures", scope=scope)
    addresses = [path.relative_to(place).as_posix() for path in figures]
    tables = []
    for form in ("md", "html"):
        path = place / f"leaderboard.{form}"
        write_text(path, str(render(found, form, figures=addresses)))
        tables.append(path)
    if not quiet:
        stdout().print(render(found, "table"))
        for path in (store.path, *tables, *figures):
            stdout().print(f"wrote {path}", markup=False, soft_wrap=True)
    return [*tables, *figures]
