"""The boards and their formats, on a database of six methods, three seeds and six attacks."""

from __future__ import annotations

import csv
import html.parser
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.errors import BadStore, BenchError, UnknownName, visible
from bench.report.boards import Scope, arenas, tell_apart
from bench.report.boards.columns import EXPLAINED, IN_CSV, IN_JSON, IN_TABLES, columns_of
from bench.report.boards.layout import board_table, class_table, overview_table
from bench.report.leaderboard import FORMATS, SORTS, Board, Queryable, boards, calibration, render
from bench.report.page import colour, picture

SCHEMA = Path(__file__).parents[2] / "bench" / "store" / "schema.sql"
METHODS = ("natural", "pgd-at", "trades", "rslad", "absld", "adr")
ATTACKS = ("clean", "fgsm", "pgd-sat", "pgd-trades", "cw", "autoattack")
MEANS = {
    "natural": (0.975, 0.16, 0.03, 0.04, 0.025, 0.015),
    "pgd-at": (0.958, 0.81, 0.765, 0.77, 0.745, 0.735),
    "trades": (0.951, 0.82, 0.78, 0.785, 0.748, 0.741),
    "rslad": (0.935, 0.79, 0.745, 0.75, 0.725, 0.716),
    "absld": (0.921, 0.77, 0.725, 0.73, 0.70, 0.69),
    "adr": (0.942, 0.80, 0.76, 0.765, 0.735, 0.726),
}
SPREADS = {"natural": 0.9, "pgd-at": 0.30, "trades": 0.27, "rslad": 0.26, "absld": 0.18, "adr": 0.29}


class Database:
    """Stands for bench.store.database.Store: SQL over the real schema, in memory."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute(SCHEMA.read_text(encoding="utf-8"))

    def query(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        return self.connection.execute(sql, list(params)).df()

    def dataset(self, name: str = "digits", n: int = 719, classes: int = 10, key: str = "") -> str:
        names = [str(number) for number in range(classes)]
        key = key or f"data-{name}-{n}"
        self.connection.execute("INSERT INTO datasets VALUES (?, ?, 'test', '', ?, ?)", [key, name, n, names])
        return key

    def attack(self, name: str, eps: str = "0.15", number: float = 0.15, key: str = "") -> str:
        key = key or f"attack-{name}-{eps}"
        norm, eps, number = ("none", "0", 0.0) if name == "clean" else ("Linf", eps, number)
        self.connection.execute("INSERT INTO attacks VALUES (?, ?, ?, ?, ?, [], '{}')", [key, name, norm, eps, number])
        return key

    def checkpoint(
        self,
        method: str,
        seed: int | None = 0,
        variant: str = "",
        model: str = "convnet-6",
        preset: str = "digits",
        selection: str = "last",
        recipe_id: str = "",
    ) -> str:
        recipe_id = recipe_id or f"recipe-{method}-{variant}-{model}-{preset}"
        key = f"{recipe_id}-{selection}-{seed}"
        self.connection.execute(
            "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, 'digits', ?, NULL, ?, 40, 40, ?, NULL, '{}', '{}', '{}')",
            [key, method, variant, preset, model, seed, recipe_id, selection],
        )
        return key

    def evaluate(
        self,
        checkpoint: str,
        dataset: str,
        attack: str,
        label: np.ndarray[tuple[int], np.dtype[np.int64]],
        correct: np.ndarray[tuple[int], np.dtype[np.bool_]],
        planned: int | None = None,
        confidence: float | Sequence[float] = 0.9,
        divergence: float | None = None,
    ) -> None:
        n = len(label)
        number = int(self.query("SELECT count(*) AS n FROM evaluations")["n"][0])
        self.connection.execute(
            "INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?)",
            [number, f"key-{number}", checkpoint, dataset, attack, n if planned is None else planned],
        )
        self.connection.execute("INSERT INTO chunks VALUES (?, ?, 0, 0, 0.0)", [number, n])
        rows = pd.DataFrame({"sample": np.arange(n), "label": label, "correct": correct})
        rows["predicted"] = np.where(correct, label, (label + 1) % (label.max() + 2))
        rows["confidence"], rows["divergence"] = confidence, divergence
        self.connection.register("rows_in", rows)
        self.connection.execute(
            "INSERT INTO outcomes BY NAME SELECT ? AS evaluation_id, *,"
            " CASE WHEN correct THEN 0 ELSE 1 END AS broken_by FROM rows_in",
            [number],
        )
        self.connection.unregister("rows_in")


def sample_database(methods: Sequence[str] = METHODS, seeds: int = 3, attacks: Sequence[str] = ATTACKS) -> Database:
    """Digits as they come out of a real study: 719 samples, 10 classes, harder and easier ones, seeds that differ."""
    database = Database()
    data = database.dataset()
    keys = {attack: database.attack(attack) for attack in attacks}
    rng = np.random.default_rng(7)
    label = np.tile(np.arange(10), 72)[:719]
    hardness = np.array([1.2, -0.6, 0.8, -0.5, 0.6, 0.1, 1.0, 0.4, -1.6, -0.9])
    for method in methods:
        for seed in range(seeds):
            checkpoint = database.checkpoint(method, seed)
            tilt = hardness + rng.normal(0, 0.25, 10)
            ease = rng.random(719)
            for attack in attacks:
                mean = MEANS[method][ATTACKS.index(attack)] + rng.normal(0, 0.004)
                spread = SPREADS[method] * min(mean, 1 - mean) * 0.7
                chance = np.clip(mean + spread * (tilt - tilt.mean()), 0.002, 0.998)[label]
                database.evaluate(checkpoint, data, keys[attack], label, ease < chance)
    return database


@pytest.fixture(scope="module")
def database() -> Database:
    return sample_database()


@pytest.fixture(scope="module")
def made(database: Database) -> list[Board]:
    return boards(database)


def tiny(correct: dict[str, list[int]], n: int = 10, attack: str = "autoattack") -> Database:
    """One seed per method; `correct` gives the hits of each class, of `n` samples each."""
    database = Database()
    classes = len(next(iter(correct.values())))
    data = database.dataset("toy", n * classes, classes)
    key = database.attack(attack)
    label = np.repeat(np.arange(classes), n)
    for method, hits in correct.items():
        survived = np.concatenate([np.arange(n) < hit for hit in hits])
        database.evaluate(database.checkpoint(method), data, key, label, survived)
    return database


# ---- boards


def test_figures_agree_with_the_view_of_the_database(database: Database, made: list[Board]) -> None:
    records = database.query("SELECT * FROM leaderboard").to_dict("records")
    view = {(str(record["attack"]), str(record["method"])): record for record in records}
    assert [board.attack for board in made] == ["autoattack", "cw", "pgd-sat", "pgd-trades", "fgsm"]
    for board in made:
        assert len(board.rows) == len(METHODS)
        for row in board.rows:
            expected = view[board.attack, row.method]
            assert row.seeds == expected["seeds"] == 3
            assert row.rank == expected["rank"]
            assert row.robust.accuracy == pytest.approx(expected["accuracy"], abs=1e-12)
            assert row.robust.accuracy_std == pytest.approx(expected["accuracy_std"], abs=1e-12)
            assert row.robust.worst_accuracy == pytest.approx(expected["worst_accuracy"], abs=1e-12)
            assert row.robust.nsd == pytest.approx(expected["nsd"], abs=1e-12)
            clean = view["clean", row.method]
            assert row.clean is not None
            assert row.clean.accuracy == pytest.approx(clean["accuracy"], abs=1e-12)


def test_nsd_and_worst_class_by_hand() -> None:
    (board,) = boards(tiny({"trades": [2, 4, 6, 8]}))
    score = board.rows[0].robust
    # mean 0.5; squared deviations 0.09, 0.01, 0.01, 0.09; their mean 0.05
    assert score.nsd == pytest.approx(0.05**0.5 / 0.5)
    assert (score.worst_class, score.worst_accuracy, score.worst_seeds) == ("0", 0.2, 1)
    assert score.class_accuracy == (0.2, 0.4, 0.6, 0.8)
    assert score.accuracy_std is None
    assert board.rows[0].clean is None


def test_nsd_is_unknown_where_every_class_is_at_zero() -> None:
    (board,) = boards(tiny({"natural": [0, 0], "trades": [5, 5]}))
    assert [row.robust.nsd for row in board.rows] == [0.0, None]
    assert "–" in render([board], "md")  # noqa: RUF001 - the dash of an empty cell


def test_a_class_without_samples_counts_nowhere() -> None:
    database = Database()
    data = database.dataset("toy", 4, 3)
    label = np.array([0, 0, 2, 2])
    database.evaluate(database.checkpoint("a"), data, database.attack("cw"), label, np.array([True, True, True, False]))
    (board,) = boards(database)
    score = board.rows[0].robust
    assert score.class_accuracy == (1.0, None, 0.5)
    assert score.nsd == pytest.approx(0.25 / 0.75)
    for format in FORMATS:
        render([board], format)


def test_clean_figures_are_those_of_the_same_checkpoints_and_all_of_them() -> None:
    database = sample_database(("trades", "adr"), seeds=2)
    label = np.arange(10)
    extra = database.checkpoint("trades", 2)
    database.evaluate(extra, database.dataset(n=10, key="other"), "attack-clean-0.15", label, label >= 0)
    database.evaluate(extra, "data-digits-719", "attack-cw-0.15", label, label >= 0)
    found = {board.attack: {row.method: row for row in board.rows} for board in boards(database) if board.samples > 10}
    assert found["cw"]["trades"].seeds == 3
    assert found["cw"]["trades"].clean is None  # the third seed's clean figures are on other data
    assert found["cw"]["adr"].clean is not None
    assert found["autoattack"]["trades"].clean is not None


def test_clean_figures_are_of_one_fingerprint_where_there_are_several() -> None:
    database = sample_database(("trades", "adr"), seeds=1, attacks=("clean", "cw"))
    other = database.attack("clean", key="a-clean-of-another-precision")
    label = np.arange(10)
    database.evaluate("recipe-adr--convnet-6-digits-last-0", "data-digits-719", other, label, label < 0)
    for row in boards(database)[0].rows:
        assert row.clean is not None
        assert row.clean.accuracy > 0.9


def test_other_data_budget_or_fingerprint_is_another_board() -> None:
    database = sample_database(("trades",), seeds=1, attacks=("clean", "cw"))
    label = np.arange(10)
    checkpoint = "recipe-trades--convnet-6-digits-last-0"
    for attack in (database.attack("cw", "8/255", 8 / 255), database.attack("cw", key="cw-with-more-steps")):
        database.evaluate(checkpoint, "data-digits-719", attack, label, label > 3)
    database.evaluate(checkpoint, database.dataset(n=10, key="a-subset"), "attack-cw-0.15", label, label > 3)
    made = boards(database)
    assert len(made) == 4
    assert len({(board.dataset_id, board.attack_id) for board in made}) == 4
    assert [len(arena) for arena in arenas(made)] == [1, 1, 2]
    (two,) = (arena for arena in arenas(made) if len(arena) == 2)
    overview = overview_table(two)
    assert overview is not None
    assert [heading.title for heading in overview.headings][3:5] == ["cw attack", "cw cw-wit"]


def test_clean_alone_makes_a_board_but_not_beside_attacks() -> None:
    (alone,) = boards(sample_database(("trades",), 1, ("clean",)))
    assert alone.is_clean
    titles = [heading.title for heading in board_table(alone).headings]
    assert "clean" in titles
    assert "robust" not in titles
    assert "unattacked" in render([alone], "html")
    both = boards(sample_database(("trades",), 1, ("clean", "fgsm")))
    assert [board.attack for board in both] == ["fgsm"]


def test_seeds_that_disagree_on_the_worst_class_say_so() -> None:
    database = Database()
    data, key = database.dataset("toy", 20, 2), database.attack("cw")
    label = np.repeat([0, 1], 10)
    for seed, (first, second) in enumerate([(2, 4), (6, 4), (8, 5)]):
        hits = np.concatenate([np.arange(10) < first, np.arange(10) < second])
        database.evaluate(database.checkpoint("a", seed), data, key, label, hits)
    (board,) = boards(database)
    score = board.rows[0].robust
    assert (score.worst_class, score.worst_seeds) == ("1", 2)
    assert score.worst_accuracy == pytest.approx((0.2 + 0.4 + 0.5) / 3)
    assert "36.7 (1, 2/3)" in render([board], "md")


def test_selection_rules_of_one_training_are_not_averaged() -> None:
    database = Database()
    data, key = database.dataset("toy", 10, 2), database.attack("cw")
    label = np.repeat([0, 1], 5)
    for selection, hits in (("last", 3), ("best-robust", 4)):
        checkpoint = database.checkpoint("adr", selection=selection, recipe_id="same")
        database.evaluate(checkpoint, data, key, label, np.arange(10) % 5 < hits)
    (board,) = boards(database)
    assert [row.selection for row in board.rows] == ["best-robust", "last"]
    assert tell_apart(board.rows) == ["adr · best-robust", "adr · last"]


def test_a_column_is_declared_once_and_is_in_every_format() -> None:
    keys = [column.key for column in IN_JSON]
    assert len(set(keys)) == len(keys)
    assert {column.key for column in IN_CSV} == {column.key for column in IN_TABLES} == set(keys) - {"recipe_id"}
    titles = [heading.title for heading in EXPLAINED]
    assert len(set(titles)) == len(titles)
    assert all(heading.meaning for heading in EXPLAINED)


@pytest.mark.parametrize("column", sorted(SORTS))
def test_every_column_sorts_and_rank_stays_by_accuracy(database: Database, column: str) -> None:
    for board in boards(database, sort=column):
        keys = [(SORTS[column](row), row.entry) for row in board.rows]
        assert keys == sorted(keys)
        by_rank = sorted(board.rows, key=lambda row: row.rank)
        accuracies = [row.robust.accuracy for row in by_rank]
        assert accuracies == sorted(accuracies, reverse=True)


def test_ties_share_a_rank_and_stand_in_order_of_name() -> None:
    (board,) = boards(tiny({"trades": [5, 5], "adr": [5, 5], "rslad": [6, 6], "mart": [1, 1]}))
    assert [(row.rank, row.method) for row in board.rows] == [(1, "rslad"), (2, "adr"), (2, "trades"), (4, "mart")]
    (by_nsd,) = boards(tiny({"b": [5, 5], "a": [0, 0], "c": [4, 6]}), sort="nsd")
    assert [row.method for row in by_nsd.rows] == ["b", "c", "a"]  # the unknown one last


def test_variants_presets_and_models_are_told_apart() -> None:
    database = Database()
    data, key = database.dataset("toy", 10, 2), database.attack("cw")
    label = np.repeat([0, 1], 5)
    for variant, model, preset in (
        ("", "a", "p"),
        ("", "b", "p"),
        ("average.judged=true", "a", "p"),
        ("average.judged=true", "a", "q"),
    ):
        checkpoint = database.checkpoint("adr", variant=variant, model=model, preset=preset)
        database.evaluate(checkpoint, data, key, label, label == 0)
    (board,) = boards(database)
    names = tell_apart(board.rows)
    assert len(set(names)) == 4
    assert set(names) == {"adr · a", "adr · b", "adr[average.judged=true] · p", "adr[average.judged=true] · q"}
    assert "adr · a" not in tell_apart(board.rows, shown=("model",))


# ---- what a user may get wrong


def one_line(error: pytest.ExceptionInfo[BenchError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_unknown_column_and_data_set(database: Database) -> None:
    with pytest.raises(UnknownName) as error:
        boards(database, sort="acuracy")
    assert "did you mean 'accuracy'" in one_line(error)
    with pytest.raises(UnknownName) as error:
        boards(database, dataset="digts")
    assert "did you mean 'digits'" in one_line(error)
    with pytest.raises(UnknownName) as error:
        render([], "pdf")
    assert "known: csv, html, json, md, table" in one_line(error)


def test_empty_and_unfinished_databases() -> None:
    with pytest.raises(BadStore) as error:
        boards(Database())
    assert "holds no evaluation" in one_line(error)
    database = Database()
    label = np.array([0, 1])
    data, key = database.dataset("toy", 9, 2), database.attack("cw")
    database.evaluate(database.checkpoint("adr"), data, key, label, label == 0, planned=9)
    with pytest.raises(BadStore) as error:
        boards(database)
    assert "none of the 1 evaluations in the database is complete" in one_line(error)


def test_only_the_named_data_set() -> None:
    database = tiny({"adr": [5, 5]})
    other = database.dataset("cifar10", 2, 2)
    database.evaluate(
        database.checkpoint("mart"), other, "attack-autoattack-0.15", np.array([0, 1]), np.array([True] * 2)
    )
    assert [board.dataset for board in boards(database)] == ["cifar10", "toy"]
    assert [board.dataset for board in boards(database, dataset="toy")] == ["toy"]


# ---- formats


def screen(made: Sequence[Board], width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(render(made, "table"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_terminal_shows_every_figure_at_80_columns(made: list[Board]) -> None:
    text = screen(made, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for board in made:
        for row in board.rows:
            assert f"{100 * row.robust.accuracy:.1f}" in text
            assert f"{row.robust.nsd:.3f}" in text
    last = text[text.index("all attacks") :]
    assert re.search(r"trades +\d+\.\d +\d+\.\d", last)
    for row in made[0].rows:  # five attacks, and none of the figures is cut
        assert row.best_known is not None
        assert f"{100 * row.best_known.score.accuracy:.1f}" in last
        assert f"{row.robust.nsd:.3f}" in last


def test_terminal_shows_brackets_as_they_are() -> None:
    database = Database()
    checkpoint = database.checkpoint("adr", variant="average.judged=true")
    label = np.array([0, 1])
    database.evaluate(checkpoint, database.dataset("toy", 2, 2), database.attack("cw"), label, label == 0)
    assert "adr[average.judged=true]" in screen(boards(database), 120)


def test_markdown_lines_up(made: list[Board]) -> None:
    text = render(made, "md")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    tables = [
        list(rows) for is_row, rows in itertools.groupby(text.splitlines(), lambda s: s.startswith("|")) if is_row
    ]
    assert len(tables) == 1 + len(made) + 1
    for table in tables:
        assert len({len(line) for line in table}) == 1
        assert len({line.count("|") for line in table}) == 1
    assert "## digits test: Linf eps 0.15" in text


def test_csv_identifies_every_row(made: list[Board]) -> None:
    text = render(made, "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(made) * len(METHODS)
    assert {row["eps"] for row in rows} == {"0.15"}
    assert {row["attack_id"] for row in rows} == {board.attack_id for board in made}
    first = made[0].rows[0]
    assert (rows[0]["method"], float(rows[0]["accuracy"])) == (first.method, round(first.robust.accuracy, 6))
    assert "\r" not in text
    assert render([], "csv").count("\n") == 1


def test_json_holds_the_classes(made: list[Board]) -> None:
    listing = json.loads(render(made, "json"))
    assert [board["attack"] for board in listing] == [board.attack for board in made]
    row = listing[0]["rows"][0]
    assert len(row["class_accuracy"]) == len(listing[0]["class_names"]) == 10
    assert row["nsd"] == round(made[0].rows[0].robust.nsd or 0, 6)
    assert row["checkpoints"] == list(made[0].rows[0].checkpoints)


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "table"])
def test_same_database_same_bytes(format: str, made: list[Board]) -> None:
    again = render(boards(sample_database()), format)
    assert again == render(made, format)
    assert isinstance(again, str)
    assert str(Path.cwd()) not in again


HOSTILE = '<script>alert("x")</script>|`a`*b*[c](javascript:d)\n"\'&amp;'


@pytest.fixture(scope="module")
def hostile() -> list[Board]:
    database = Database()
    label = np.array([0, 1, 2])
    names = [HOSTILE, "$x$", "名前"]
    database.connection.execute("INSERT INTO datasets VALUES ('d', ?, 'test', '', 3, ?)", [HOSTILE, names])
    for method in (HOSTILE, "=1+1", "{{ 7 * 7 }}"):
        checkpoint = database.checkpoint(method, None, variant=HOSTILE, model=HOSTILE, selection="")
        for attack in ("cw", "autoattack"):
            key = f"attack-{attack}-0.15"
            if database.query("SELECT 1 FROM attacks WHERE attack_id = ?", [key]).empty:
                database.attack(attack)
            database.evaluate(checkpoint, "d", key, label, label == 0)
    return boards(database)


class Page(html.parser.HTMLParser):
    """What a browser would see: tags with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "link", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_page_escapes_whatever_a_name_holds(hostile: list[Board]) -> None:
    page = Page(render(hostile, "html"))
    assert page.open == []
    assert len(page.all("script")) == 1
    assert not page.all("a") or all((link["href"] or "").startswith("#") for link in page.all("a"))
    said = "".join(page.words)
    assert '<script>alert("x")</script>' in said
    assert "{{ 7 * 7 }}" in said


def test_text_formats_hold_whatever_a_name_holds(hostile: list[Board]) -> None:
    markdown = render(hostile, "md")
    assert "<script>" not in markdown
    assert "](javascript" not in markdown
    board = len(columns_of(unattacked=False, brief=False))
    for line in markdown.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in {4 + 1, 8 + 1, board + 1}  # classes, overview, board
    rows = list(csv.DictReader(io.StringIO(render(hostile, "csv"))))
    assert {row["method"] for row in rows} == {visible(HOSTILE), "'=1+1", "{{ 7 * 7 }}"}
    assert json.loads(render(hostile, "json"))[0]["class_names"][2] == "名前"
    screen(hostile, 100)


def test_page_stands_alone_and_is_accessible(made: list[Board]) -> None:
    page = Page(render(made, "html", figures=["heatmap-digits.png", "my figure.png"]))
    assert page.open == []
    for tag, attribute in (("link", "href"), ("script", "src"), ("iframe", "src")):
        assert not [found for found in page.all(tag) if attribute in found]
    assert [image["src"] for image in page.all("img")] == ["heatmap-digits.png", "my%20figure.png"]
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("table")) == len(page.all("caption")) == 1 + 2 * len(made)
    assert all(cell.get("scope") in {"row", "col"} for cell in page.all("th"))
    assert sum("aria-sort" in cell for cell in page.all("th")) == len(made)
    identities = [found["id"] for _, found in page.tags if "id" in found]
    assert len(identities) == len(set(identities))
    assert {(link["href"] or "")[1:] for link in page.all("a")} <= set(identities)
    said = " ".join("".join(page.words).split())
    for word in ("NSD", "worst class", "eps", "fingerprint", "lower is fairer"):
        assert word in said


def test_page_of_a_hundred_classes() -> None:
    (board,) = boards(tiny({f"m{number}": [number % 7] * 99 + [7] for number in range(3)}, n=7))
    assert len(class_table(board).headings) == 101
    assert Page(render([board], "html")).open == []
    assert "class by class" not in render([board], "md")


@pytest.mark.parametrize("address", ["/home/somebody/a.png", "https://example.org/a.png", "file:///a.png"])
def test_figures_must_be_relative(address: str) -> None:
    with pytest.raises(ValueError, match="relative"):
        picture(address)


@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.3, 0.45, 0.5, 0.55, 0.7, 0.9, 1.0])
def test_ink_on_the_heat_is_readable(accuracy: float) -> None:
    style = colour(accuracy, (0.0, 1.0))
    found = re.fullmatch(r"background:#(..)(..)(..);color:#(000|fff)", style)
    assert found is not None
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(found.group(place), 16) / 255 for place in (1, 2, 3))
    ]
    ground = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    contrast = (ground + 0.05) / 0.05 if found.group(4) == "000" else 1.05 / (ground + 0.05)
    assert contrast >= 4.5  # WCAG 2.1, level AA


def test_heat_ignores_what_is_below_chance(made: list[Board]) -> None:
    board = made[0]
    low, high = board.heat()
    above = [value for row in board.rows if row.method != "natural" for value in row.robust.class_accuracy]
    assert low <= min(value for value in above if value is not None)
    assert low > 0.1
    assert high <= 1.0
    alone = replace(board, rows=tuple(row for row in board.rows if row.method == "natural"))
    assert alone.heat()[0] == 0.0


def test_overview_has_a_column_per_fingerprint(made: list[Board]) -> None:
    table = overview_table(made)
    assert table is not None
    titles = [heading.title for heading in table.headings]
    assert titles == [
        *("method", "model", "clean", "fgsm", "pgd-trades", "pgd-sat", "cw", "autoattack"),
        *("best known", "worst class", "NSD"),
    ]
    assert [cells[0].value for cells in table.rows] == [row.name for row in made[0].rows]
    assert overview_table(made[:1]) is None


def test_overview_keeps_entries_the_strongest_attack_has_not_met() -> None:
    database = sample_database(("trades",), seeds=1, attacks=("clean", "cw", "autoattack"))
    label = np.arange(10)
    database.evaluate(database.checkpoint("late"), "data-digits-719", "attack-cw-0.15", label, label > 2)
    table = overview_table(boards(database))
    assert table is not None
    assert [cells[0].text for cells in table.rows] == ["trades", "late"]
    assert table.rows[1][4].text == "–"  # noqa: RUF001 - the dash of an empty cell


# ---- best known


def two_attacks() -> Database:
    """Two methods on four samples of two classes; a under autoattack and cw, b under the same and fgsm."""
    database = Database()
    data, label = database.dataset("toy", 4, 2), np.array([0, 0, 1, 1])
    survived = {
        ("a", "autoattack"): [True, False, True, True],
        ("a", "cw"): [True, True, False, True],
        ("b", "autoattack"): [True, True, False, True],
        ("b", "cw"): [True, True, True, True],
        ("b", "fgsm"): [False, True, True, True],
    }
    checkpoints = {method: database.checkpoint(method) for method in "ab"}
    keys = {attack: database.attack(attack) for attack in ("autoattack", "cw", "fgsm")}
    for (method, attack), correct in survived.items():
        database.evaluate(checkpoints[method], data, keys[attack], label, np.array(correct))
    return database


def test_best_known_is_the_and_over_all_attacks_and_says_over_how_many() -> None:
    made = boards(two_attacks())
    known = {row.method: row.best_known for row in made[0].rows}
    assert known["a"] is not None
    assert known["b"] is not None
    assert (known["a"].score.accuracy, known["a"].attacks) == (0.5, 2)
    assert (known["b"].score.accuracy, known["b"].attacks) == (0.5, 3)
    assert known["a"].score.class_accuracy == (0.5, 0.5)
    table = overview_table(made)
    assert table is not None
    assert [heading.title for heading in table.headings][-3:] == ["best known", "worst class", "NSD"]
    assert {cells[-3].text for cells in table.rows} == {"50.0"}
    assert "best known: over 2 to 3 attacks" in table.note
    # and it changes no rank and no board
    assert [(row.method, row.rank) for row in made[0].rows] == [("a", 1), ("b", 1)]
    assert {board.attack for board in made} == {"autoattack", "cw", "fgsm"}


def test_best_known_is_in_every_format() -> None:
    made = boards(two_attacks())
    for format in ("md", "html"):
        assert "best known: over 2 to 3 attacks" in render(made, format)
    assert "best known" in screen(made, 80)
    rows = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    assert {(row["method"], row["best_known_accuracy"], row["best_known_attacks"]) for row in rows} == {
        ("a", "0.5", "2"),
        ("b", "0.5", "3"),
    }
    listing = json.loads(render(made, "json"))
    assert {row["best_known_accuracy"] for board in listing for row in board["rows"]} == {0.5}


def test_best_known_is_hidden_where_a_row_met_one_attack_only() -> None:
    database = two_attacks()
    late = database.checkpoint("late")
    database.evaluate(late, "data-toy-4", "attack-cw-0.15", np.array([0, 0, 1, 1]), np.array([True] * 4))
    made = boards(database)
    table = overview_table(made)
    assert table is not None
    assert "best known" not in [heading.title for heading in table.headings]
    assert "best known" not in table.note
    rows = {row.method: row.best_known for board in made for row in board.rows}
    assert rows["late"] is None
    assert rows["a"] is not None


def test_best_known_is_over_all_attacks_whatever_the_scope() -> None:
    (board,) = boards(two_attacks(), scope=Scope(attacks=("attack-cw-0.15",)))
    assert {row.best_known.score.accuracy for row in board.rows if row.best_known} == {0.5}
    assert boards(two_attacks(), sort="best_known")


def test_best_known_of_seeds_is_their_mean() -> None:
    database = Database()
    data, label = database.dataset("toy", 4, 2), np.array([0, 0, 1, 1])
    keys = [database.attack(attack) for attack in ("autoattack", "cw")]
    for seed, hits in enumerate(([1, 1, 1, 0], [1, 0, 0, 0])):
        checkpoint = database.checkpoint("a", seed)
        for key in keys:
            database.evaluate(checkpoint, data, key, label, np.array(hits) > 0)
    known = boards(database)[0].rows[0].best_known
    assert known is not None
    assert (known.score.accuracy, known.attacks) == (0.5, 2)


# ---- calibration


def confident() -> Database:
    """One method, two seeds: half of four samples right at 0.9, then all right at 0.5; divergence 1 and 2."""
    database = Database()
    data, label, key = database.dataset("toy", 4, 2), np.array([0, 0, 1, 1]), database.attack("cw")
    clean = database.attack("clean")
    for seed, (right, confidence) in enumerate([([True, False] * 2, 0.9), ([True] * 4, 0.5)]):
        checkpoint = database.checkpoint("a", seed)
        database.evaluate(checkpoint, data, clean, label, label >= 0, confidence=0.75, divergence=0.0)
        database.evaluate(checkpoint, data, key, label, np.array(right), confidence=confidence, divergence=1.0 + seed)
    return database


def test_calibration_is_the_mean_over_seeds() -> None:
    row = boards(confident())[0].rows[0]
    found, clean = row.robust.calibration, row.clean and row.clean.calibration
    assert found is not None
    assert clean
    assert found.mean_confidence == pytest.approx(0.7)
    assert found.ece == pytest.approx((0.4 + 0.5) / 2)
    assert found.ece_mass == pytest.approx((0.4 + 0.5) / 2)  # samples of one confidence share their accuracy
    assert found.error_confidence == pytest.approx(0.9)  # of the seed that errs
    assert found.divergence == 1.5
    assert clean.ece == 0.25


def test_calibration_is_in_every_format() -> None:
    made = boards(confident())
    (row,) = csv.DictReader(io.StringIO(render(made, "csv")))
    assert (row["ece"], row["divergence"], row["clean_ece"]) == ("0.45", "1.5", "0.25")
    (listed,) = json.loads(render(made, "json"))[0]["rows"]
    assert (listed["ece_mass"], listed["error_confidence"], listed["mean_confidence"]) == (0.45, 0.9, 0.7)
    for format in ("md", "html"):
        text = render(made, format)
        assert "ECE" in text
        assert "1.500" in text
    assert "ECE" not in screen(made, 80)
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(calibration(made))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "calibration, cw" in shown
    for text in ("70.0", "45.0", "90.0", "25.0", "1.500"):
        assert text in shown


def test_divergence_is_unknown_where_a_seed_did_not_record_it() -> None:
    database = confident()
    database.connection.execute("UPDATE outcomes SET divergence = NULL WHERE evaluation_id = 1")
    row = boards(database)[0].rows[0]
    assert row.robust.calibration is not None
    assert row.robust.calibration.divergence is None
    assert row.robust.calibration.ece == pytest.approx(0.45)


# ---- soundness


def checked(*verdicts: tuple[str, str, str, str, str]) -> list[Board]:
    """Two methods under two attacks, with verdicts (method, norm, eps, check, verdict)."""
    database = sample_database(("trades", "adr"), 1, ("clean", "cw", "autoattack"))
    for method, norm, eps, name, verdict in verdicts:
        database.connection.execute(
            "INSERT INTO checks VALUES (?, 'data-digits-719', ?, ?, ?, 1.0, 0.5, ?, 100, 'why', 1)",
            [f"recipe-{method}--convnet-6-digits-last-0", norm, eps, name, verdict],
        )
    return boards(database)


def test_a_row_that_fails_a_check_is_marked_and_keeps_its_rank() -> None:
    before = checked()
    after = checked(
        ("trades", "Linf", "0.15", "zero-gradient", "fail"),
        ("trades", "none", "0", "precision", "fail"),
        ("adr", "none", "0", "precision", "pass"),
    )
    for plain, marked in zip(before, after, strict=True):
        assert [row.rank for row in marked.rows] == [row.rank for row in plain.rows]
        assert [row.robust for row in marked.rows] == [row.robust for row in plain.rows]
        assert {row.method: row.checks for row in marked.rows} == {"trades": "fail", "adr": "pass"}
        assert {row.checks for row in plain.rows} == {"not run"}
        for row in marked.rows:
            assert row.failed_checks == (("precision", "zero-gradient") if row.method == "trades" else ())
    overview = overview_table(after)
    assert overview is not None
    for table in (*map(board_table, after), *map(class_table, after), overview):
        names = [cells[1 if table.headings[0].title == "#" else 0].text for cells in table.rows]
        assert sorted(names) == ["adr", "trades †"]
        assert [names[number] for number in table.doubtful] == ["trades †"]
        assert "trades (precision, zero-gradient)" in table.note


def test_a_failed_check_is_told_in_every_format() -> None:
    made = checked(("trades", "Linf", "0.15", "zero-gradient", "fail"))
    for text in (screen(made, 120), render(made, "md"), render(made, "html")):
        assert "trades †" in text
        assert "fails soundness checks" in text
        assert "(zero-gradient)" in text
    page = Page(render(made, "html"))
    rows = [attributes.get("class") for attributes in page.all("tr")]
    assert rows.count("doubtful") == 1 + 2 * len(made)  # the overview, each board and its classes
    by_method = {row["method"]: row for row in csv.DictReader(io.StringIO(render(made, "csv")))}
    assert (by_method["trades"]["checks"], by_method["trades"]["failed_checks"]) == ("fail", "zero-gradient")
    assert (by_method["adr"]["checks"], by_method["adr"]["failed_checks"]) == ("not run", "")
    listed = {row["method"]: row for row in json.loads(render(made, "json"))[0]["rows"]}
    assert listed["trades"]["failed_checks"] == ["zero-gradient"]


def test_only_checks_of_the_same_data_and_budget_count() -> None:
    made = checked(
        ("trades", "Linf", "8/255", "a", "fail"),
        ("trades", "L2", "0.15", "b", "fail"),
        ("adr", "none", "0", "c", "warn"),
    )
    for board in made:
        assert {row.method: row.checks for row in board.rows} == {"trades": "not run", "adr": "warn"}
        assert not board_table(board).doubtful
    assert "†" not in render(made, "md")


def test_a_row_is_only_passed_if_all_its_seeds_are() -> None:
    database = sample_database(("trades",), 2, ("cw",))
    sql = "INSERT INTO checks VALUES (?, 'data-digits-719', 'none', '0', 'a', NULL, NULL, 'pass', 9, '', 1)"
    for seed, wanted in enumerate(("not run", "pass")):
        database.connection.execute(sql, [f"recipe-trades--convnet-6-digits-last-{seed}"])
        assert boards(database)[0].rows[0].checks == wanted


# ---- start-up


def test_the_board_starts_without_torch_and_matplotlib() -> None:
    program = (
        "import sys, bench.report.leaderboard, bench.report.plots;"
        "heavy = {'torch', 'matplotlib', 'pandas', 'duckdb', 'jinja2', 'rich', 'scipy'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=SCHEMA.parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_database_is_anything_that_answers_queries(database: Database) -> None:
    asked: Queryable = database
    assert boards(asked)


def test_a_scope_leaves_the_rest_of_the_database_out() -> None:
    database = sample_database(METHODS[:2], seeds=2, attacks=ATTACKS[:2])
    everything = boards(database)
    known = database.query("SELECT checkpoint_id FROM checkpoints ORDER BY checkpoint_id")["checkpoint_id"].tolist()
    attack = everything[0].attack_id
    one = boards(
        database, scope=Scope(checkpoints=(known[0],), attacks=(attack,), datasets=(everything[0].dataset_id,))
    )
    assert [board.attack_id for board in one] == [attack]
    assert [row.seeds for row in one[0].rows] == [1]
    assert boards(database, scope=Scope(checkpoints=())) == []
    assert boards(database, scope=Scope()) == everything
