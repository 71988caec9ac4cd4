"""Verbs that read: leaderboard, plot, compare, check, checks, export, import, sql. None of them imports torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.console import stderr, stdout
from bench.cli.options import DEFAULT_DB, AsJson, Db
from bench.errors import BadStore, UnknownName

if TYPE_CHECKING:
    from bench.store.database import Store


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (leaderboard, plot, compare, check, checks, export, sql):
        app.command()(verb)
    app.command("import")(merge)


def store_at(path: Path, patience: float = 10.0) -> Store:
    """The database, saying so when it has to be waited for, for so many seconds at most."""
    from bench.store.database import Store

    return Store(path, patience=patience, say=lambda line: stderr().print(line, markup=False))


def give(text: str, out: Path | None) -> None:
    """Write a text to a file, or to standard output."""
    if out is None:
        sys.stdout.write(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8", newline="\n")
    stderr().print(f"wrote {out}", markup=False, soft_wrap=True)


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> None:
    """Print a table: the first column is a name, the others are figures, but for those with these heads."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=None, padding=(0, 1))
    for at, head in enumerate(header):
        table.add_column(Text(head), justify="left" if at == 0 or head in words else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    stdout().print(table)


def leaderboard(
    db: Db = DEFAULT_DB,
    dataset: Annotated[str | None, typer.Option(help="Only boards on this data set.")] = None,
    sort: Annotated[str, typer.Option(help="Column to sort by: accuracy, clean, worst, nsd, method, ...")] = "accuracy",
    format: Annotated[str, typer.Option(help="table, md, csv, json or html.")] = "table",
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="File to write instead of standard output.")] = None,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Show in the terminal whether confidences can be believed.")
    ] = False,
) -> None:
    """Show who is how robust, class by class, one table per data set and attack.

    Example: evenbench leaderboard --db results/demo/bench.duckdb --sort nsd
    """
    from bench.report.leaderboard import boards, render
    from bench.report.leaderboard import calibration as calibrated

    form = "json" if as_json else format
    found = boards(store_at(db), dataset=dataset, sort=sort)
    if form == "table" and out is None:
        stdout().print(calibrated(found) if calibration else render(found, "table"))
    elif form == "table":
        raise UnknownName("--out needs a file format; add --format md, csv, json or html")
    else:
        give(str(render(found, form)), out)


def plot(
    names: Annotated[list[str] | None, typer.Argument(help="Figures to draw; all when none is named.")] = None,
    db: Db = DEFAULT_DB,
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("results/figures"),
) -> None:
    """Draw figures: class heat map, robustness against fairness, per-class bars, training curves.

    Example: evenbench plot --db results/demo/bench.duckdb --out results/demo/figures
    """
    from bench.report.plots import plot as draw

    for path in draw(store_at(db), out, names=names or None, dataset=dataset):
        sys.stdout.write(f"{path}\n")


def compare(
    a: Annotated[str, typer.Argument(help="A method as the board shows it, or a checkpoint's id.")],
    b: Annotated[str, typer.Argument(help="What to compare it with.")],
    db: Db = DEFAULT_DB,
    attack: Annotated[str | None, typer.Option(help="Show this attack only, in the table.")] = None,
    format: Annotated[str, typer.Option(help="table, md, csv or json.")] = "table",
    as_json: AsJson = False,
) -> None:
    """Compare two entries class by class: who gained, at whose cost, on the same samples.

    Example: evenbench compare rslad absld --db results/demo/bench.duckdb
    """
    from bench.report.compare import compare as compared

    form = "json" if as_json else format
    found = compared(store_at(db), a, b)
    if form == "table":
        chosen = [meeting for meeting in found.meetings if attack is None or meeting.title.split()[0] == attack]
        if not chosen:
            raise UnknownName.among("attack of both", attack or "", {m.title.split()[0] for m in found.meetings})
        for meeting in chosen:
            show(meeting.title, found.header, found.rows(meeting))
        for note in found.notes():
            stdout().print(note, markup=False)
    elif form == "json":
        sys.stdout.write(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
    elif form in ("md", "csv"):
        sys.stdout.write(found.to_markdown() if form == "md" else found.to_csv())
    else:
        raise UnknownName.among("format", form, ["table", "md", "csv", "json"])


def check(
    candidate: Annotated[str, typer.Argument(help="A method as the board shows it, or a checkpoint's id.")],
    against: Annotated[str, typer.Option(help="The baseline it must not fall behind.")],
    db: Db = DEFAULT_DB,
    attack: Annotated[str | None, typer.Option(help="Judge by this attack only.")] = None,
    alpha: Annotated[float, typer.Option(help="Level of the test.")] = 0.05,
    floor: Annotated[float, typer.Option(help="Smallest difference in accuracy that counts.")] = 0.005,
    as_json: AsJson = False,
) -> None:
    """Say whether a candidate is better, the same or worse than a baseline on the same samples.

    Exit code 0: better or same. 1: worse. 2: incomparable.

    Example: evenbench check absld --against rslad --db results/demo/bench.duckdb
    """
    from bench.report.regression import HEADER
    from bench.report.regression import check as judged

    verdict = judged(store_at(db), candidate, against, attack=attack, alpha=alpha, floor=floor)
    if as_json:
        sys.stdout.write(json.dumps(verdict.as_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        show("", HEADER, verdict.rows())
        for line in (*verdict.notes(), verdict.sentence):
            stdout().print(line, markup=False)
    raise typer.Exit(verdict.exit_code)


def checks(
    ckpt: Annotated[str, typer.Argument(help="A method as the board shows it, or a checkpoint's id.")],
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Show what the soundness checks found: whether an entry's robust accuracy should be believed.

    Exit code 0: no check fails. 1: one fails. 2: there is no such entry, or no check of it is recorded.

    Example: evenbench checks rslad --db results/demo/bench.duckdb
    """
    from bench.report.soundness import HEADER, report

    found = report(store_at(db), ckpt)
    if as_json:
        sys.stdout.write(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        for examination in found.examinations:
            show(examination.title, HEADER, examination.rows(), words=("verdict", "detail"))
        stdout().print(found.sentence, markup=False)
    raise typer.Exit(found.exit_code)


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write; an earlier export there is replaced.")],
    db: Db = DEFAULT_DB,
) -> None:
    """Write every complete evaluation as Parquet, with a manifest of hashes.

    Example: evenbench export results/demo/parquet --db results/demo/bench.duckdb
    """
    store_at(db).export(folder)
    stderr().print(f"wrote {folder}", markup=False, soft_wrap=True)


def merge(
    folder: Annotated[Path, typer.Argument(help="Folder that 'evenbench export' wrote.")],
    db: Db = DEFAULT_DB,
) -> None:
    """Take in what an export holds and the database lacks; doing it twice changes nothing.

    Example: evenbench import results/demo/parquet --db results/bench.duckdb
    """
    if not (folder / "manifest.json").is_file():
        raise BadStore(f"{folder} holds no manifest.json; name a folder that 'evenbench export' wrote")
    store = store_at(db)
    store.create()
    new = store.merge(folder)
    stderr().print(f"{new} new evaluations in {db}", markup=False, soft_wrap=True)


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT; bench/store/schema.sql describes every table and view.")],
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Ask the database anything; nothing can be written.

    Example: evenbench sql "SELECT method, attack, accuracy, nsd FROM summary ORDER BY nsd"
    """
    frame = store_at(db).query(query)
    if as_json:
        sys.stdout.write((frame.to_json(orient="records", indent=2, force_ascii=False) or "") + "\n")
    else:
        sys.stdout.write(frame.to_string(index=False) + "\n")
