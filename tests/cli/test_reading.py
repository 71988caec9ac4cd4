"""Verbs that read, through the command: what they print, what they write, what they exit with."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from bench.cli import options, reading, run
from bench.outcomes import Outcomes
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow
from bench.verdict import Verdict

N, CLASSES = 200, 4


def test_leaderboard_in_every_format(db, capsys, tmp_path):
    assert run(["leaderboard", "--db", db]) == 0
    table = capsys.readouterr().out
    assert "good" in table
    assert "90.0" in table
    assert run(["leaderboard", "--db", db, "--json"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told)
    assert run(["leaderboard", "--db", db, "--format", "json"]) == 0
    assert capsys.readouterr().out == told
    assert run(["leaderboard", "--db", db, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["method"] for row in rows} == {"good", "bad", "other"}
    for form, sign in (("md", "| "), ("html", "<!doctype html")):
        out = tmp_path / "new" / f"board.{form}"
        assert run(["leaderboard", "--db", db, "--format", form, "--out", str(out)]) == 0
        assert sign in out.read_text().lower()
        assert f"wrote {out}" in capsys.readouterr().err


def test_leaderboard_sorts_and_filters(db, capsys):
    def order(*arguments: str) -> list[str]:
        assert run(["leaderboard", "--db", db, "--format", "csv", *arguments]) == 0
        rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
        return [row["method"] for row in rows if row["attack"] == "fgsm"]

    assert order()[-1] == "bad"
    assert order("--sort", "method") == ["bad", "good", "other"]
    assert order("--dataset", "digits") == order()


def test_plot_draws_what_is_named_and_says_where(db, capsys, tmp_path):
    assert run(["plot", "heatmap", "--db", db, "--out", str(tmp_path / "f")]) == 0
    drawn = capsys.readouterr().out.splitlines()
    assert drawn
    for path in drawn:
        assert "heatmap" in path
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


def test_compare_in_every_format(db, capsys):
    assert run(["compare", "bad", "good", "--db", db]) == 0
    table = capsys.readouterr().out
    assert "+45.0" in table
    assert "dog" in table
    assert run(["compare", "bad", "good", "--db", db, "--json"]) == 0
    (clean, fgsm) = json.loads(capsys.readouterr().out)["meetings"]
    assert (clean["attack"], fgsm["attack"]) == ("clean", "fgsm")
    assert fgsm["total"]["difference"] == pytest.approx(0.45)
    assert (fgsm["total"]["only_a"], fgsm["total"]["only_b"]) == (0, 90)
    for form in ("md", "csv"):
        assert run(["compare", "bad", "good", "--db", db, "--format", form]) == 0
        assert "ape" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("candidate", "baseline", "code", "word"),
    [("good", "bad", 0, "better"), ("other", "good", 0, "not worse"), ("bad", "good", 1, "worse")],
)
def test_check_exits_with_its_verdict(db, capsys, candidate, baseline, code, word):
    margins = ["--margin", "2", "--class-margin", "8", "--worst-margin", "8", "--nsd-margin", "0.4"]
    assert run(["check", candidate, "--against", baseline, "--db", db, *margins]) == code
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("About these checkpoints only")
    assert last.startswith(f"{word}: {candidate}@m#0 against {baseline}@m#0")
    assert run(["check", candidate, "--against", baseline, "--db", db, "--json", "--attack", "fgsm", *margins]) == code
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["verdict"], verdict["exit_code"], len(verdict["findings"])) == (word, code, 1)
    assert [one["margin"] for one in verdict["findings"][0]["figures"][:4]] == [0.02, 0.08, 0.4, 0.08]


def test_check_writes_for_other_programs(db, capsys, tmp_path):
    files = ["--junit", str(tmp_path / "new" / "check.xml"), "--markdown", str(tmp_path / "check.md")]
    assert run(["check", "bad", "--against", "good", "--db", db, *files]) == 1
    assert capsys.readouterr().err.count("wrote ") == 2
    assert "<testsuites" in (tmp_path / "new" / "check.xml").read_text()
    assert (tmp_path / "check.md").read_text().startswith("# worse: bad@m#0 against good@m#0")


def test_a_strict_check_fails_where_it_cannot_tell(db, capsys):
    for arguments, code in (([], 0), (["--strict"], 3)):
        assert run(["check", "other", "--against", "good", "--db", db, *arguments]) == code
        assert "inconclusive: other@m#0 against good@m#0" in capsys.readouterr().out
    assert run(["check", "other", "--against", "good", "--db", db, "--question", "method"]) == 0
    assert "needs 3 seeds of each" in capsys.readouterr().out.replace("\n", " ")
    assert run(["check", "other", "--against", "good", "--db", db, "--question", "seeds"]) == 2
    assert "no question is called 'seeds'" in capsys.readouterr().err


def test_check_of_what_shares_nothing_is_incomparable(db, capsys):
    store = Store(Path(db))
    row = ("id-new", "new", "", "p", "m", "digits", 0, "run9", "r9", 2, 2, "last", None, "{}", "{}", "{}")
    store.add_checkpoint(CheckpointRow(*row))
    assert run(["check", "new", "--against", "good", "--db", db]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("incomparable")
    assert run(["compare", "new", "good", "--db", db]) == 2


def test_export_and_import_give_the_same_board(db, capsys, tmp_path):
    assert run(["export", "parquet", "--db", db]) == 0
    assert (tmp_path / "parquet" / "manifest.json").exists()
    assert run(["import", "parquet", "--db", "fresh/c.duckdb"]) == 0
    assert "6 new evaluations" in capsys.readouterr().err
    assert run(["import", "parquet", "--db", "fresh/c.duckdb"]) == 0
    assert "0 new evaluations" in capsys.readouterr().err
    boards = []
    for path in (db, "fresh/c.duckdb"):
        assert run(["leaderboard", "--db", path, "--json"]) == 0
        boards.append(capsys.readouterr().out)
    assert boards[0] == boards[1]


def test_an_import_waits_as_long_as_all_that_writes(db, monkeypatch):
    asked, opened = [], reading.store_at
    monkeypatch.setattr(reading, "store_at", lambda *given: asked.append(given[1:]) or opened(*given))
    assert run(["export", "parquet", "--db", db]) == 0
    assert run(["import", "parquet", "--db", db]) == 0
    assert asked == [(), (options.PATIENCE,)]


def test_sql_answers_and_cannot_write(db, capsys):
    query = "SELECT method, accuracy FROM summary WHERE attack = 'fgsm' ORDER BY accuracy, method"
    assert run(["sql", query, "--db", db]) == 0
    assert capsys.readouterr().out.split() == ["method", "accuracy", "bad", "0.45", "good", "0.90", "other", "0.90"]
    assert run(["sql", query, "--db", db, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"method": "bad", "accuracy": 0.45}
    assert run(["sql", "DELETE FROM outcomes", "--db", db]) == 2
    assert "queries only read" in capsys.readouterr().err


def test_compare_shows_one_attack_if_asked(capsys, db):
    assert run(["compare", "bad", "good", "--db", db, "--attack", "fgsm"]) == 0
    shown = capsys.readouterr().out
    assert "fgsm Linf" in shown
    assert "clean on" not in shown
    assert run(["compare", "bad", "good", "--db", db, "--attack", "fgms"]) == 2
    assert "did you mean 'fgsm'" in capsys.readouterr().err


def test_compare_and_check_find_an_attack_whose_name_holds_a_space(capsys, db):
    store = Store(Path(db))
    store.add_attack(AttackRow("e71de9ce", "evidence:my adv", "Linf", "0.15", 0.15, (), "{}"))
    label = np.arange(N) % CLASSES
    for method in ("good", "bad"):
        evaluation = store.begin(f"id-{method}", "d", "e71de9ce", N)
        store.add_chunk(evaluation, Outcomes(np.arange(N), label, label, np.full(N, 0.9), np.zeros(N)))
    for called in ("evidence:my adv", "e71de9ce", "e71d"):
        assert run(["compare", "bad", "good", "--db", db, "--attack", called]) == 0
        shown = capsys.readouterr().out
        assert "evidence:my adv Linf 0.15 on digits test" in shown
        assert "fgsm" not in shown
        assert run(["check", "bad", "--against", "good", "--db", db, "--attack", called]) == 0
        assert "evidence:my adv Linf 0.15 on digits test" in capsys.readouterr().out
    assert run(["compare", "bad", "good", "--db", db, "--attack", "evidence:my"]) == 2
    assert "known: clean, evidence:my adv, fgsm" in capsys.readouterr().err


def examine(db: str) -> None:
    store = Store(Path(db))
    fine = Verdict("eval-mode", 0.0, 0.5, "pass", 50, "no module is in training mode")
    store.add_verdicts("id-good", "d", "none", "0", [fine])
    store.add_verdicts("id-bad", "d", "none", "0", [fine])
    store.add_verdicts(
        "id-bad",
        "d",
        "Linf",
        "0.15",
        [
            Verdict("ordering", None, None, "not-run", 0, "no attack to order"),
            Verdict("zero-gradient", 0.75, 0.1, "fail", 40, "the gradient is zero on 30 of 40 samples"),
            Verdict("steps", 0.02, 0.01, "warn", 40, "more steps break 2 % more"),
        ],
    )


def test_soundness_shows_the_gravest_first_and_exits_with_1_if_one_fails(db, capsys):
    examine(db)
    assert run(["soundness", "bad", "--db", db]) == 1
    shown = capsys.readouterr().out
    assert "bad@m#0, Linf eps 0.15, on digits test" in shown
    assert "bad@m#0, whatever the threat, on digits test" in shown
    order = [shown.index(name) for name in ("eval-mode", "zero-gradient", "steps", "ordering")]
    assert order == sorted(order)
    assert re.search(r"zero-gradient +0.75 +0.1 +fail +40 +the gradient is zero on 30 of 40 samples", shown)
    assert shown.splitlines()[-1].startswith("bad@m#0 fails zero-gradient")
    assert run(["soundness", "id-bad", "--db", db, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["failed"], told["exit_code"]) == (["zero-gradient"], 1)
    verdicts = [one["verdict"] for each in told["examinations"] for one in each["verdicts"]]
    assert verdicts == ["pass", "fail", "warn", "not-run"]
    assert told["examinations"][1]["verdicts"][0]["threshold"] == 0.1


def test_soundness_exits_with_0_if_none_fails_and_2_if_there_is_none(db, capsys):
    examine(db)
    assert run(["soundness", "good", "--db", db]) == 0
    assert "good@m#0: no soundness check fails" in capsys.readouterr().out
    for name, said in (("other", "no soundness check of other@m#0 is recorded"), ("nobody", "no entry is called")):
        assert run(["soundness", name, "--db", db]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
        assert len(err.splitlines()) == 1


def test_the_old_spelling_of_soundness_says_so_and_still_works(db, capsys):
    examine(db)
    for arguments, code in ((["bad"], 1), (["id-bad", "--json"], 1), (["good"], 0)):
        assert run(["soundness", *arguments, "--db", db]) == code
        out, err = capsys.readouterr()
        assert err == ""
        assert run(["checks", *arguments, "--db", db]) == code
        assert capsys.readouterr() == (
            out,
            "'evenbench checks' is now 'evenbench soundness'; the old spelling goes with the next version\n",
        )
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"^\W*soundness ", listed, re.MULTILINE)
    assert not re.search(r"^\W*checks ", listed, re.MULTILINE)


def test_the_leaderboard_marks_what_fails_and_shows_calibration_if_asked(db, capsys):
    examine(db)
    assert run(["leaderboard", "--db", db]) == 0
    assert "bad †" in capsys.readouterr().out
    assert run(["leaderboard", "--db", db, "--calibration"]) == 0
    shown = capsys.readouterr().out
    assert "calibration, fgsm" in shown
    assert "equal mass" in shown


def test_an_import_of_nothing_makes_no_database(capsys, tmp_path):
    assert run(["import", str(tmp_path), "--db", str(tmp_path / "new.duckdb")]) == 2
    assert "holds no manifest.json" in capsys.readouterr().err
    assert not (tmp_path / "new.duckdb").exists()


EVIL = "\x1b]0;owned\x07<script>alert(1)</script>![i](http://evil/i.png)\u202e|"


@pytest.mark.parametrize(
    "command",
    [
        ["leaderboard"],
        *(["leaderboard", "--format", form] for form in ("md", "csv", "json", "html")),
        ["compare", "id-good", "id-bad"],
        *(["compare", "id-good", "id-bad", "--format", form] for form in ("md", "csv", "json")),
        ["check", "id-bad", "--against", "id-good"],
        ["soundness", "id-good"],
        ["sql", "SELECT method, class_names FROM checkpoints, datasets"],
        ["sql", "SELECT method FROM checkpoints", "--json"],
        ["compare", "nothing", "id-bad"],
    ],
)
def test_a_name_from_an_import_is_shown_and_never_obeyed(db, capsys, command):
    store = Store(Path(db))
    with store._writing() as connection:
        connection.execute("UPDATE checkpoints SET method = method || ?", [EVIL])
        connection.execute("UPDATE datasets SET class_names = ['=1+1', ?, 'cat', 'dog'], name = ?", [EVIL, EVIL])
        connection.execute("UPDATE attacks SET name = ? WHERE name = 'fgsm'", [EVIL])
    store.add_verdicts("id-good", "d", "none", "0", [Verdict(EVIL, 0.1, 0.2, "pass", 3, EVIL)])
    run([*command, "--db", db])
    out, err = capsys.readouterr()
    assert all(sign.isprintable() or sign == "\n" for sign in out + err)
    if "md" in command or "html" in command:
        assert "<script>alert" not in out
        assert "](http://evil" not in out if "md" in command else '<img src="http' not in out
    if "csv" in command:
        cells = [cell for row in csv.reader(io.StringIO(out)) for cell in row]
        assert not any(cell.startswith("=") for cell in cells)
