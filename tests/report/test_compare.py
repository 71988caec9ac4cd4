"""Comparison: entries found by name, samples and seeds paired, counts that add up."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bench.errors import AmbiguousName, BadStore, Incomparable, UnknownName
from bench.outcomes import Outcomes
from bench.report.compare import CSV_HEADER, compare
from bench.report.names import find
from bench.report.pairing import Counts, pair
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow

N = 60
CLASSES = ("zero", "one", "two", "three")
LABEL = np.arange(N) % 3  # class three has no sample
CLEAN = AttackRow("c1ea0000", "clean", "none", "0", 0.0, (), "{}")
PGD = AttackRow("9d900000", "pgd-sat", "Linf", "8/255", 8 / 255, (), "{}")
CW = AttackRow("c0000000", "cw", "Linf", "8/255", 8 / 255, (), "{}")

# checkpoint_id, method, variant, preset, model, seed, recipe_id
ZOO = [
    ("aaaa0000", "rslad", "", "short", "convnet-6", 0, "e0000000"),
    ("aaaa0001", "rslad", "", "short", "convnet-6", 1, "e0000000"),
    ("aaaa0002", "rslad", "", "short", "convnet-6", 2, "e0000000"),
    ("bbbb0000", "adr", "", "short", "convnet-6", 0, "e1111111"),
    ("bbbb0001", "adr", "", "short", "convnet-6", 1, "e1111111"),
    ("bbbb0007", "adr", "average.judged=true", "short", "convnet-6", 7, "e2222222"),
    ("cccc0000", "pgd-at", "", "short", "convnet-6", 0, "e3333333"),
    ("cccc0001", "pgd-at", "", "short", "convnet-16", 0, "e4444444"),
    ("dddd0000", "trades", "", "short", "convnet-6", 0, "e5555555"),
    ("dddd0001", "trades", "", "paper", "convnet-6", 0, "e6666666"),
    ("eeee0000", "nets/mine.py:net", "", "", "custom", None, "e7777777"),
    ("ffff0000", "absld", "", "short", "convnet-6", 0, "e8888888"),
    ("ffff0001", "absld", "", "short", "convnet-6", 0, "e8888888"),
    ("abab0000", "natural", "", "short", "convnet-6", 9, "e9999999"),
]


def of(*columns: Any) -> Outcomes:
    """Outcomes from columns of any integer type, which the constructor narrows."""
    return Outcomes(*columns)


def result(checkpoint_id: str, attack: AttackRow) -> Outcomes:
    rng = np.random.default_rng(int(checkpoint_id, 16) + int(attack.attack_id, 16))
    predicted = np.where(rng.random(N) < np.array([0.9, 0.6, 0.3])[LABEL], LABEL, 3)
    return of(np.arange(N) * 2, LABEL, predicted, np.ones(N), np.where(predicted == LABEL, 0, 1))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("compare") / "bench.duckdb")
    made.create()
    made.add_dataset(DatasetRow("da7a", "digits", "test", "", N, CLASSES))
    made.add_dataset(DatasetRow("da7b", "digits", "test", "n=60,seed=0", N, CLASSES))
    for attack in (PGD, CLEAN, CW):
        made.add_attack(attack)
    for checkpoint_id, method, variant, preset, model, seed, recipe_id in ZOO:
        made.add_checkpoint(
            CheckpointRow(
                checkpoint_id,
                method,
                variant,
                preset,
                model,
                "digits",
                seed,
                None,
                recipe_id,
                1,
                1,
                "last",
                None,
                "{}",
                "{}",
                "{}",
            )
        )
        if method in ("pgd-at", "natural"):
            continue
        for attack in (CLEAN, PGD) if method != "rslad" or seed == 1 else (CLEAN, PGD, CW):
            evaluation = made.begin(checkpoint_id, "da7a", attack.attack_id, N)
            made.add_chunk(evaluation, result(checkpoint_id, attack))
    made.add_chunk(made.begin("abab0000", "da7b", "c1ea0000", N), result("abab0000", CLEAN))
    incomplete = result("abab0000", PGD)
    half = of(*(getattr(incomplete, name)[:30] for name in ("sample", "label", "predicted", "confidence", "broken_by")))
    made.add_chunk(made.begin("abab0000", "da7a", "9d900000", N), half)
    return made


# Finding


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rslad", ["aaaa0000", "aaaa0001", "aaaa0002"]),
        ("rslad@convnet-6", ["aaaa0000", "aaaa0001", "aaaa0002"]),
        ("rslad#1", ["aaaa0001"]),
        ("rslad@convnet-6#2", ["aaaa0002"]),
        ("adr", ["bbbb0000", "bbbb0001"]),
        ("adr[average.judged=true]", ["bbbb0007"]),
        ("adr[average.judged=true]@convnet-6#7", ["bbbb0007"]),
        ("adr#7", ["bbbb0007"]),
        ("bbbb0001", ["bbbb0001"]),
        ("aaaa0002", ["aaaa0002"]),
        ("eeee", ["eeee0000"]),
        ("e111", ["bbbb0000", "bbbb0001"]),
        ("pgd-at@convnet-16", ["cccc0001"]),
        ("nets/mine.py:net", ["eeee0000"]),
        ("e5555555", ["dddd0000"]),
        ("ffff0001", ["ffff0001"]),
    ],
)
def test_found(store: Store, text: str, wanted: list[str]) -> None:
    assert [member.checkpoint_id for member in find(store, text).members] == wanted


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("pgd-at", ["pgd-at@convnet-16#0", "pgd-at@convnet-6#0"]),
        ("trades", ["(paper, recipe_id e6666666)", "(short, recipe_id e5555555)"]),
        ("absld", ["2 checkpoints", "ffff0000", "ffff0001"]),
        ("absld#0", ["ffff0000", "ffff0001"]),
        ("cccc", ["pgd-at@convnet-16#0", "pgd-at@convnet-6#0"]),
    ],
)
def test_ambiguous_names_list_what_they_fit(store: Store, text: str, listed: list[str]) -> None:
    with pytest.raises(AmbiguousName) as error:
        find(store, text)
    assert "\n" not in str(error.value)
    assert all(candidate in str(error.value) for candidate in listed), str(error.value)


def test_everything_listed_is_found(store: Store) -> None:
    for text in ("pgd-at@convnet-16#0", "pgd-at@convnet-6#0", "e6666666", "e5555555", "ffff0000"):
        assert len(find(store, text).members) == 1


@pytest.mark.parametrize("text", ["rsald", "rslad#9", "rslad@convnet-7", "aaa", "0123456", ""])
def test_unknown_names(store: Store, text: str) -> None:
    with pytest.raises(UnknownName, match="no entry is called") as error:
        find(store, text)
    assert text != "rsald" or "did you mean 'rslad'?" in str(error.value)


def test_nothing_to_find(tmp_path: Path) -> None:
    store = Store(tmp_path / "empty.duckdb")
    store.create()
    with pytest.raises(BadStore, match="holds no checkpoints"):
        find(store, "rslad")


def test_checkpoints_without_evaluations_stand_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "bench.duckdb")
    store.create()
    store.add_dataset(DatasetRow("da7a", "digits", "test", "", N, CLASSES))
    store.add_attack(CLEAN)
    row = CheckpointRow("a1", "m", "", "", "net", "", 0, None, "r1", 1, 1, "", None, "{}", "{}", "{}")
    store.add_checkpoint(row)
    store.add_checkpoint(replace(row, checkpoint_id="a2", recipe_id="r2", model="other"))
    with pytest.raises(AmbiguousName):
        find(store, "m")
    store.add_chunk(store.begin("a2", "da7a", "c1ea0000", N), result("a2", CLEAN))
    assert find(store, "m").model == "other"


# Pairing


counts = st.builds(Counts, *[st.integers(0, 50)] * 4)


@given(counts, counts)
def test_counts_add_up(one: Counts, other: Counts) -> None:
    both = one + other
    assert both.n == one.n + other.n
    if both.n:
        assert both.difference == pytest.approx(both.accuracy_b - both.accuracy_a)
        assert both.accuracy_a * both.n == pytest.approx(both.both + both.only_a)


def test_counts_equal_numpy_on_the_same_samples(store: Store) -> None:
    comparison = compare(store, "rslad#0", "adr#0")
    assert [meeting.attack for meeting in comparison.meetings] == ["clean", "pgd-sat"]
    for meeting, attack in zip(comparison.meetings, (CLEAN, PGD), strict=True):
        a, b = result("aaaa0000", attack).correct, result("bbbb0000", attack).correct
        for index, found in enumerate(meeting.classes):
            of = index == LABEL
            wanted = Counts(*(int((of & hit).sum()) for hit in (a & b, a & ~b, ~a & b, ~a & ~b)))
            assert found == wanted
        assert meeting.total.n == N
        assert meeting.total.accuracy_a == pytest.approx(a.mean())


def test_seeds_are_paired_and_the_rest_named(store: Store) -> None:
    pairing = compare(store, "rslad", "adr")
    for meeting in pairing.meetings:
        assert [(one.a.checkpoint_id, one.b.checkpoint_id) for one in meeting.pairs] == [
            ("aaaa0000", "bbbb0000"),
            ("aaaa0001", "bbbb0001"),
        ]
        assert meeting.total.n == 2 * N
    assert pairing.unpaired == ("rslad@convnet-6#2",)
    assert pairing.only_a == ("cw Linf 8/255 on digits test",)
    assert pairing.only_b == ()


def test_single_checkpoints_are_paired_whatever_their_seeds(store: Store) -> None:
    for other in ("adr[average.judged=true]", "nets/mine.py:net"):
        assert compare(store, "rslad#0", other).meetings[0].total.n == N


def test_the_figures_are_those_of_the_board(store: Store) -> None:
    comparison = compare(store, "adr", "rslad@convnet-6")
    for meeting in comparison.meetings:
        ((accuracy, worst, nsd),) = store.rows(
            "SELECT accuracy, worst_accuracy, nsd FROM leaderboard WHERE recipe_id = 'e1111111' AND attack_id = ?",
            [meeting.attack_id],
        )
        assert meeting.a.accuracy == pytest.approx(accuracy)
        assert meeting.a.worst_accuracy == pytest.approx(worst)
        assert meeting.a.nsd == pytest.approx(nsd)
        assert meeting.a.worst_class == "two"


def test_an_entry_with_itself_differs_nowhere(store: Store) -> None:
    for meeting in compare(store, "rslad", "rslad").meetings:
        assert (meeting.total.only_a, meeting.total.only_b, meeting.total.difference) == (0, 0, 0)


def test_exchanging_the_two_exchanges_the_counts(store: Store) -> None:
    there, back = compare(store, "rslad", "adr"), compare(store, "adr", "rslad")
    for one, other in zip(there.meetings, back.meetings, strict=True):
        assert (one.total.only_a, one.total.only_b) == (other.total.only_b, other.total.only_a)
        assert one.total.difference == -other.total.difference


def test_nothing_shared(store: Store) -> None:
    with pytest.raises(Incomparable, match="share no complete evaluation"):
        compare(store, "rslad#0", "natural")  # another subset, and a half-done attack
    with pytest.raises(Incomparable, match="no seed in common"):
        compare(store, "rslad", "adr[average.judged=true]")
    assert pair(store, find(store, "rslad#0"), find(store, "natural")).meetings == ()


def test_one_attack_is_chosen_by_its_name_or_the_beginning_of_its_fingerprint(store: Store) -> None:
    comparison = compare(store, "rslad#0", "adr#0")
    for text in ("pgd-sat", "9d900000", "9d90"):
        assert [meeting.attack for meeting in comparison.under(text)] == ["pgd-sat"]
    assert comparison.under(None) == comparison.meetings
    for text in ("9d9", "cw", "pgd", ""):
        with pytest.raises(UnknownName, match="known: clean, pgd-sat"):
            comparison.under(text)


# Showing


def test_rows(store: Store) -> None:
    comparison = compare(store, "rslad#0", "adr#0")
    meeting = comparison.meetings[0]
    table = comparison.table(meeting)
    rows = table.texts
    assert table.title == meeting.title
    assert [row[0] for row in rows] == ["zero", "one", "two", "all", "worst class", "NSD"]
    assert {len(row) for row in rows} == {len(table.headings)}
    assert table.titles[2:4] == ("rslad %", "adr %")
    total = meeting.total
    assert rows[3][1:] == (
        "60",
        f"{100 * total.accuracy_a:.1f}",
        f"{100 * total.accuracy_b:.1f}",
        f"{100 * total.difference:+.1f}",
        *map(str, (total.both, total.only_a, total.only_b, total.neither)),
    )
    assert rows[4][2] == f"{100 * meeting.a.worst_accuracy:.1f} ({meeting.a.worst_class})"


def test_labels_tell_the_two_apart(store: Store) -> None:
    assert compare(store, "rslad", "adr").labels == ("rslad", "adr")
    assert compare(store, "rslad#0", "rslad#1").labels == ("rslad@convnet-6#0", "rslad@convnet-6#1")
    assert compare(store, "dddd0000", "dddd0001").labels == ("trades@convnet-6#0 (A)", "trades@convnet-6#0 (B)")


def test_notes(store: Store) -> None:
    notes = " ".join(compare(store, "rslad", "adr").notes())
    assert "summed over training seeds" in notes
    assert "rslad@convnet-6#2" in notes
    assert "Only rslad was evaluated on: cw" in notes
    assert compare(store, "rslad#1", "adr#1").notes() == []


def test_json(store: Store) -> None:
    made = json.loads(json.dumps(compare(store, "rslad", "adr").as_dict(), allow_nan=False))
    assert made["a"]["checkpoints"][1] == {"checkpoint_id": "aaaa0001", "seed": 1}
    first = made["meetings"][0]
    assert first["attack"] == "clean"
    assert first["seeds"] == [[0, 0], [1, 1]]
    assert [one["class_name"] for one in first["classes"]] == ["zero", "one", "two"]
    assert first["total"]["n"] == 2 * N
    assert set(first["a"]) == {"accuracy", "worst_class", "worst_accuracy", "nsd"}


def test_markdown(store: Store) -> None:
    text = compare(store, "rslad#0", "adr#0").to_markdown()
    lines = text.splitlines()
    assert lines[0] == "# rslad and adr, class by class"
    assert "## pgd-sat Linf 8/255 on digits test" in lines
    assert {line.count("|") for line in lines if line.startswith("|")} == {10}
    for is_table, table in itertools.groupby(lines, lambda line: line.startswith("|")):
        assert not is_table or len({len(line) for line in table}) == 1  # lines up in plain text too


def test_csv(store: Store) -> None:
    rows = list(csv.DictReader(io.StringIO(compare(store, "rslad#0", "adr#0").to_csv())))
    assert tuple(rows[0]) == CSV_HEADER
    assert len(rows) == 2 * 4
    assert [row["class"] for row in rows[:4]] == ["0", "1", "2", ""]
    assert float(rows[3]["difference"]) == pytest.approx(float(rows[3]["accuracy_b"]) - float(rows[3]["accuracy_a"]))


def test_all_classes_at_zero_have_no_nsd(tmp_path: Path) -> None:
    store = Store(tmp_path / "bench.duckdb")
    store.create()
    store.add_dataset(DatasetRow("da7a", "digits", "test", "", 3, CLASSES))
    store.add_attack(CLEAN)
    for name in ("a1", "a2"):
        store.add_checkpoint(
            CheckpointRow(name, name, "", "", "n", "", 0, None, name, 1, 1, "", None, "{}", "{}", "{}")
        )
        wrong = of(np.arange(3), np.arange(3), np.full(3, 3), np.ones(3), np.ones(3))
        store.add_chunk(store.begin(name, "da7a", "c1ea0000", 3), wrong)
    comparison = compare(store, "a1", "a2")
    assert comparison.table(comparison.meetings[0]).texts[-1][2:5] == ("-", "-", "-")
    assert comparison.as_dict()["meetings"][0]["a"]["nsd"] is None


def test_two_evaluations_whose_labels_disagree_are_not_compared(store: Store, tmp_path: Path) -> None:
    copy = Store(tmp_path / "copy.duckdb")
    shutil.copy(store.path, copy.path)
    with copy._writing() as connection:
        connection.execute(
            "UPDATE outcomes SET label = 3 WHERE sample = 6 AND evaluation_id IN "
            "(SELECT evaluation_id FROM evaluations WHERE checkpoint_id = 'aaaa0001')"
        )
    with pytest.raises(BadStore, match="of the same images with different labels"):
        compare(copy, "rslad", "adr")
