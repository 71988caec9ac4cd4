"""Verbs that read: leaderboard, plot, compare, check, soundness, export, import, sql. None of them imports torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.console import stderr, stdout
from bench.cli.options import DEFAULT_DB, PATIENCE, READERS, AsJson, Db
from bench.cli.replacing import BOARDS, PICTURES, Force, place_for
from bench.errors import BadStore, UnknownName
from bench.files import check_writable, write_text
from bench.report.tables import text_table

if TYPE_CHECKING:
    from bench.report.tables import Table
    from bench.store.database import Store

Called = Annotated[str, typer.Argument(help="A method as the board shows it, or a checkpoint's id.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (leaderboard, plot, compare, check, soundness, export, sql):
        app.command()(verb)
    app.command("import")(merge)
    app.command(hidden=True)(checks)


def store_at(path: Path, patience: float = READERS) -> Store:
    """The database, saying so when it has to be waited for, for so many seconds at most."""
    from bench.store.database import Store

    return Store(path, patience=patience, say=lambda line: stderr().print(line, markup=False))


def give(text: str, out: Path | None = None) -> None:
    """Write a text to a file, or to standard output."""
    if out is None:
        sys.stdout.write(text)
        return
    write_text(out, text)
    stderr().print(f"wrote {out}", markup=False, soft_wrap=True)


def tell(table: Table) -> None:
    """Print a table between lines of text."""
    from bench.report.formats import bare

    stdout().print(bare(table))


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> None:
    """Print a table of texts: the first column is a name, the others are figures, but for those with these heads."""
    tell(text_table(title, header, rows, words))


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
    force: Force = False,
) -> None:
    """Show who is how robust, class by class, one table per data set and attack.

    Example: evenbench leaderboard --db results/demo/bench.duckdb --sort nsd
    """
    from bench.report.leaderboard import boards, calibration as calibrated, render

    form = "json" if as_json else format
    if form == "table" and out is not None:
        raise UnknownName("--out needs a file format; add --format md, csv, json or html")
    if out is not None:
        place_for(out, BOARDS, force=force)
    found = boards(store_at(db), dataset=dataset, sort=sort)
    if form == "table":
        stdout().print(calibrated(found) if calibration else render(found, "table"))
    else:
        give(str(render(found, form)), out)


def plot(
    names: Annotated[list[str] | None, typer.Argument(help="Figures to draw; all when none is named.")] = None,
    db: Db = DEFAULT_DB,
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("results/figures"),
    force: Force = False,
) -> None:
    """Draw figures: class heat map, robustness against fairness, per-class bars, training curves.

    Example: evenbench plot --db results/demo/bench.duckdb --out results/demo/figures
    """
    from bench.report.plots import plot as draw

    check_writable(out / "figure.png")

    def may(path: Path) -> object:
        return place_for(path, PICTURES, force=force)

    for path in draw(store_at(db), out, names=names or None, dataset=dataset, may=may):
        sys.stdout.write(f"{path}\n")


def compare(
    a: Called,
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
    from bench.report.formats import json_text

    form = "json" if as_json else format
    found = compared(store_at(db), a, b)
    match form:
        case "table":
            for meeting in found.under(attack):
                tell(found.table(meeting))
            for note in found.notes():
                stdout().print(note, markup=False)
        case "md":
            give(found.to_markdown())
        case "csv":
            give(found.to_csv())
        case "json":
            give(json_text(found.as_dict()))
        case _:
            raise UnknownName.among("format", form, ["table", "md", "csv", "json"])


def check(
    candidate: Called,
    against: Annotated[str, typer.Option(help="The baseline it must not fall behind.")],
    db: Db = DEFAULT_DB,
    attack: Annotated[str | None, typer.Option(help="Judge by this attack only.")] = None,
    alpha: Annotated[float, typer.Option(help="Level, for all figures together.")] = 0.05,
    margin: Annotated[float, typer.Option(help="Points of accuracy that may be lost.")] = 1.0,
    class_margin: Annotated[float, typer.Option(help="Points that every class may lose.")] = 5.0,
    worst_margin: Annotated[float, typer.Option(help="Points that the worst class may lose.")] = 3.0,
    nsd_margin: Annotated[float, typer.Option(help="What the NSD may rise by.")] = 0.02,
    question: Annotated[
        str | None, typer.Option(help="What may vary: checkpoints, images or method; the last if not given.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where the check is inconclusive.")] = False,
    junit: Annotated[Path | None, typer.Option(help="File for the figures as JUnit's test cases.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for the verdict and its tables as Markdown.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a candidate is worse than a baseline on the same images, by intervals against margins.

    Exit code 0: better, not worse, or inconclusive. 1: worse. 2: incomparable. 3: inconclusive, with --strict or where
    the candidate fails a soundness check.

    Example: evenbench check absld --against rslad --db results/demo/bench.duckdb
    """
    from bench.report import handed
    from bench.report.formats import json_text
    from bench.report.margins import Margins
    from bench.report.regression import asked, check as judged

    decision = judged(
        store_at(db),
        candidate,
        against,
        attack=attack,
        alpha=alpha,
        margins=Margins(margin / 100, class_margin / 100, worst_margin / 100, nsd_margin),
        question=asked(question),
        strict=strict,
    )
    for file, text in ((junit, handed.junit), (markdown, handed.page)):
        if file is not None:
            give(text(decision), file)
    if as_json:
        give(json_text(decision.as_dict()))
    else:
        stdout().print(decision.heading, markup=False, soft_wrap=True)
        for table in decision.tables():
            tell(table)
        for line in (*decision.notes(), decision.sentence):
            stdout().print(line, markup=False, soft_wrap=True)
    raise typer.Exit(decision.exit_code)


def soundness(
    ckpt: Called,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Show what the soundness checks found: whether an entry's robust accuracy should be believed.

    Exit code 0: no check fails. 1: one fails. 2: there is no such entry, or no check of it is recorded.

    Example: evenbench soundness rslad --db results/demo/bench.duckdb
    """
    from bench.report.formats import json_text
    from bench.report.soundness import soundness as found_of

    found = found_of(store_at(db), ckpt)
    if as_json:
        give(json_text(found.as_dict()))
    else:
        for checked in found.checked:
            tell(checked.table())
        stdout().print(found.sentence, markup=False)
    raise typer.Exit(found.exit_code)


def checks(
    ckpt: Called,
    db: Db = DEFAULT_DB,
    as_json: AsJson = False,
) -> None:
    """Show what the soundness checks found: the old spelling of `soundness`.

    Example: evenbench checks rslad --db results/demo/bench.duckdb
    """
    line = "'evenbench checks' is now 'evenbench soundness'; the old spelling goes with the next version"
    stderr().print(line, markup=False, soft_wrap=True)
    soundness(ckpt, db, as_json=as_json)


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
    store = store_at(db, PATIENCE)
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
    from bench.report.formats import escaped, lines

    frame = store_at(db).shown(query)
    if as_json:
        sys.stdout.write(escaped(frame.to_json(orient="records", indent=2, force_ascii=False) or "") + "\n")
    else:
        sys.stdout.write(lines(frame.to_string(index=False)) + "\n")
