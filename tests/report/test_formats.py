"""One table in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console, RenderableType

from bench.report.formats import bare, csv_text, framed, inline, json_text, lines, markdown
from bench.report.tables import Datum, Heading, Table, named, text_table

FIGURES = Table(
    "a [title]",
    (Heading("name", numeric=False), Heading("high", "", "high"), Heading("low", "", "low"), Heading("any")),
    tuple(
        (named(name), *(Datum(str(value), value) for value in (value, value, value)))
        for name, value in (("a|b", 1.0), ("名前", 22.0), ("same", 22.0))
    ),
    "a note",
)


def printed(shown: RenderableType, *, colour: bool = False) -> str:
    console = Console(width=100, file=io.StringIO(), force_terminal=colour, color_system="standard" if colour else None)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_markdown_lines_up_and_shows_every_sign() -> None:
    assert markdown(FIGURES).splitlines() == [
        "| name | high |  low |  any |",
        "| ---- | ---: | ---: | ---: |",
        r"| a\|b |  1.0 |  1.0 |  1.0 |",
        "| 名前 | 22.0 | 22.0 | 22.0 |",
        "| same | 22.0 | 22.0 | 22.0 |",
    ]
    assert markdown(text_table("", ("a", "b"), [])).splitlines() == ["| a   |   b |", "| --- | --: |"]


def test_the_best_figures_are_those_of_their_columns() -> None:
    best = [(row, column) for row in range(3) for column in range(4) if FIGURES.is_best(row, column)]
    assert best == [(0, 2), (1, 1), (2, 1)]
    assert printed(framed(FIGURES), colour=True).count("\x1b[1m22.0") == 2


def test_the_terminal_shows_brackets_and_sets_figures_to_the_right() -> None:
    for grid in (framed, bare):
        shown = printed(grid(FIGURES))
        assert "a [title]" in shown
        assert "a|b" in shown
    assert "a note" in printed(framed(FIGURES))
    lines = printed(
        bare(text_table("", ("name", "n", "word"), [("x", "1", "y"), ("z", "234", "long")], words=("word",)))
    )
    assert lines.splitlines() == [" name    n  word ", " x       1  y    ", " z     234  long "]


def test_csv_leaves_the_unknown_empty_and_quotes_what_must_be() -> None:
    assert csv_text(("a", "b"), [(None, 0.5), ("x,y", "1")]) == 'a,b\n,0.5\n"x,y",1\n'


def test_json_keeps_letters_and_refuses_what_is_no_number() -> None:
    assert json_text({"名": (1, None)}) == '{\n  "名": [\n    1,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"nsd": float("nan")})


# Names of others

EVIL = "a\x1b[2J\x07\u202eb\u2066\x9bc\u200f\rd"
SHOWN = "a\\x1b[2J\\x07\\u202eb\\u2066\\x9bc\\u200f\\rd"


@pytest.mark.parametrize("spell", [framed, bare])
def test_no_name_reaches_the_terminal_but_as_text(spell):
    shown = printed(spell(text_table(EVIL, (EVIL, "x"), [(EVIL, EVIL)], note=EVIL)))
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert "x1b" in shown


def test_signs_that_a_terminal_obeys_are_text_in_every_other_format():
    cell = inline(EVIL.replace("\r", ""))
    assert all(sign.isprintable() for sign in cell)
    assert csv_text(["name"], [[EVIL]]) == f"name\n{SHOWN}\n"
    told = json_text([EVIL])
    assert all(sign.isprintable() or sign == "\n" for sign in told)
    assert json.loads(told) == [EVIL]
    assert lines(f"one\n{EVIL}") == f"one\n{SHOWN}"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("![x](http://evil/x.png)", "![x]\\(http://evil/x.png)"),
        ("<img src=//evil>", "&lt;img src=//evil>"),
        ("a|b", "a\\|b"),
        ("a\n# b", "a # b"),
    ],
)
def test_a_name_in_markdown_is_no_markup(name, wanted):
    assert inline(name) == wanted
    assert wanted in markdown(text_table("", ("name",), [(name,)]))


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_a_name_in_csv_is_no_formula(begin):
    found = list(csv.reader(io.StringIO(csv_text(["name", "value"], [[f"{begin}1+2", -0.5]]))))
    assert found[1][0].startswith("'")
    assert found[1][1] == "-0.5"
