"""The gate: which question, margins, one family, a verdict that maps to an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.errors import BadOption, BadStore, UnknownName
from bench.outcomes import Outcomes
from bench.report.changes import Change
from bench.report.margins import Margins, judged, together
from bench.report.regression import Decision, asked, check
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow
from bench.verdict import Verdict

N = 400
CLEAN = AttackRow("c1ea0000", "clean", "none", "0", 0.0, (), "{}")
PGD = AttackRow("9d900000", "pgd-sat", "Linf", "8/255", 8 / 255, (), "{}")
CW = AttackRow("c0000000", "cw", "Linf", "8/255", 8 / 255, (), "{}")
ATTACKS = (CLEAN, PGD, CW)

# correct from the first sample up to so many, per attack; missing: not evaluated
ZOO: dict[tuple[str, int], tuple[int | None, int | None, int | None]] = {
    ("base", 0): (300, 200, None),
    ("base", 1): (300, 200, None),
    ("worse", 0): (300, 160, None),
    ("better", 0): (300, 240, None),
    ("mixed", 0): (360, 160, None),
    ("trifle", 0): (300, 199, None),
    ("noise", 0): (297, 196, None),
    ("other", 0): (None, None, 100),
    ("half", 1): (None, 150, 100),
    ("two-seeds", 0): (300, 190, None),
    ("two-seeds", 1): (300, 196, None),
    ("lopsided", 0): (300, None, None),
    ("masked", 0): (300, 240, None),
    **{("many", seed): (None, 200 + 2 * (seed % 3), None) for seed in range(5)},
    **{("fewer", seed): (None, 140 + 3 * (seed % 2), None) for seed in range(5)},
    **{("later", seed): (None, 200 + 2 * (seed % 3), None) for seed in range(5, 8)},
}


def survivors(count: int) -> Outcomes:
    label: npt.NDArray[np.int64] = np.arange(N) % 2
    correct = np.arange(N) < count
    return outcomes(label, correct)


def outcomes(label: npt.NDArray[np.int64], correct: npt.NDArray[np.bool_]) -> Outcomes:
    columns: tuple[Any, ...] = (
        np.arange(N),
        label,
        np.where(correct, label, 1 - label),
        np.ones(N),
        np.where(correct, 0, 1),
    )
    return Outcomes(*columns)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("check") / "bench.duckdb")
    made.create()
    made.add_dataset(DatasetRow("da7a", "digits", "test", "", N, ("zero", "one")))
    for attack in ATTACKS:
        made.add_attack(attack)
    for (method, seed), results in ZOO.items():
        name = f"{method}-{seed}"
        made.add_checkpoint(
            CheckpointRow(name, method, "", "", "net", "", seed, None, method, 1, 1, "", None, "{}", "{}", "{}")
        )
        for attack, count in zip(ATTACKS, results, strict=True):
            if count is not None:
                made.add_chunk(made.begin(name, "da7a", attack.attack_id, N), survivors(count))
    # as many right as the baseline has, but all losses are of class one
    label = np.arange(N) % 2
    correct = np.where(label == 0, np.arange(N) < 300, np.arange(N) < 100)
    made.add_chunk(made.begin("lopsided-0", "da7a", PGD.attack_id, N), outcomes(label, correct))
    made.add_verdicts("masked-0", "da7a", "Linf", "8/255", [Verdict("zero-gradient", 0.9, 0.1, "fail", 50, "masked")])
    made.add_verdicts("base-1", "da7a", "L2", "1/2", [Verdict("ordering", 0.9, 0.1, "fail", 50, "of another budget")])
    return made


# What an interval says


def change(difference: float, interval: tuple[float, float], *, kind: Any = "accuracy") -> Change:
    return Change(kind, "", 0.7, 0.7 + difference, difference, interval, interval, 0.01, (2.0, 0.85))


@pytest.mark.parametrize(
    ("difference", "interval", "word"),
    [
        (-0.03, (-0.05, -0.01), "worse"),
        (-0.008, (-0.015, -0.001), "inconclusive"),  # surely lower, but it does not look like more than the margin
        (-0.03, (-0.07, 0.01), "inconclusive"),
        (0.0, (-0.009, 0.009), "not worse"),
        (-0.005, (-0.009, -0.001), "not worse"),
        (0.02, (0.001, 0.04), "better"),
        (0.0, (-0.01, 0.01), "inconclusive"),
    ],
)
def test_words_by_interval_and_margin(difference: float, interval: tuple[float, float], word: str) -> None:
    assert judged(change(difference, interval), 0.01) == word


def test_of_the_nsd_less_is_better() -> None:
    assert judged(change(0.05, (0.01, 0.09), kind="NSD"), 0.02) == "worse"
    assert judged(change(-0.05, (-0.09, -0.01), kind="NSD"), 0.02) == "better"
    assert judged(change(0.0, (-0.3, 0.019), kind="NSD"), 0.02) == "not worse"


def test_not_worse_needs_every_figure_and_worse_needs_one() -> None:
    assert together(["better", "inconclusive", "worse"]) == "worse"
    assert together(["better", "inconclusive", "not worse"]) == "inconclusive"
    assert together(["not worse", "better"]) == "better"
    assert together(["not worse", "not worse"]) == "not worse"
    assert together([]) == "incomparable"


def test_the_smallest_loss_that_could_be_seen() -> None:
    assert change(0.0, (0, 0)).visible(0.01) == pytest.approx(0.01 * (2 + 0.85))
    assert change(0.0, (0, 0)).visible(0.05) == pytest.approx(0.05 + 0.0085)


@pytest.mark.parametrize("margins", [{"accuracy": -0.1}, {"each_class": 1.0}, {"nsd": float("nan")}])
def test_margins_out_of_range(margins: dict[str, float]) -> None:
    with pytest.raises(BadOption, match="margin of"):
        Margins(**margins)


# The verdict


def of(decision: Decision, attack: str, kind: str) -> Any:
    """The finding on one figure, of classes the second."""
    found = [one for each, one in decision.findings if each.trials.setting.attack == attack and one.change.kind == kind]
    return found[-1]


@pytest.mark.parametrize(
    ("candidate", "clean", "attacked", "verdict", "code"),
    [
        ("base#0", "not worse", "not worse", "not worse", 0),
        ("worse", "not worse", "worse", "worse", 1),
        ("better", "not worse", "better", "better", 0),
        ("mixed", "better", "worse", "worse", 1),
        ("trifle", "not worse", "not worse", "not worse", 0),
        ("noise", "inconclusive", "inconclusive", "inconclusive", 0),
    ],
)
def test_verdicts(store: Store, candidate: str, clean: str, attacked: str, verdict: str, code: int) -> None:
    made = check(store, candidate, "base#0", margins=Margins(0.012, 0.05, 0.05, 0.2))
    assert of(made, "clean", "accuracy").verdict == clean
    assert of(made, "pgd-sat", "accuracy").verdict == attacked
    assert (made.verdict, made.exit_code) == (verdict, code), made.sentence
    assert made.sentence.startswith(verdict)
    assert "\n" not in made.sentence


def test_what_shares_nothing_is_incomparable(store: Store) -> None:
    made = check(store, "other", "base#0")
    assert (made.verdict, made.exit_code, made.findings) == ("incomparable", 2, [])
    assert made.sentence.startswith("incomparable: base@net#0 and other@net#0 share no complete evaluation")


def test_an_inconclusive_check_fails_where_it_is_strict(store: Store) -> None:
    assert check(store, "noise", "base#0").exit_code == 0
    assert check(store, "noise", "base#0", strict=True).exit_code == 3
    assert check(store, "worse", "base#0", strict=True).exit_code == 1


def test_exchanging_the_two_turns_the_verdict(store: Store) -> None:
    assert check(store, "base#0", "worse").verdict == "better"
    assert check(store, "base#0", "better").verdict == "worse"


def test_a_class_that_falls_is_worse_though_the_accuracy_holds(store: Store) -> None:
    made = check(store, "lopsided", "base#0", attack="pgd-sat")
    assert of(made, "pgd-sat", "accuracy").verdict == "inconclusive"
    fallen = of(made, "pgd-sat", "class")
    assert (fallen.name, fallen.verdict) == ("class one", "worse")
    assert of(made, "pgd-sat", "worst class").verdict == of(made, "pgd-sat", "NSD").verdict == "worse"
    assert made.exit_code == 1
    assert "class one under pgd-sat by -25.0" in made.sentence


def test_the_margin_must_be_exceeded(store: Store) -> None:
    wide = Margins(0.1, 0.1, 0.1, 0.1)
    assert check(store, "worse", "base#0", margins=wide).verdict == "inconclusive"
    narrower = Margins(0.0999, 0.1, 0.1, 0.1)
    assert check(store, "worse", "base#0", margins=narrower).verdict == "worse"


def test_a_failed_soundness_check_vetoes_what_is_good(store: Store) -> None:
    made = check(store, "masked", "base#0")
    assert (made.verdict, made.exit_code, made.unsound) == ("inconclusive", 3, ("zero-gradient",))
    assert "fails zero-gradient" in made.sentence
    assert check(store, "better", "base#0").verdict == "better"
    assert check(store, "base#0", "masked").doubtful == ("zero-gradient",)
    assert any("baseline fails zero-gradient" in note for note in check(store, "base#0", "masked").notes())
    assert check(store, "base#1", "base#0").unsound == ()  # what it fails is under another budget
    assert check(store, "masked", "base#0", attack="clean").unsound == ()


def test_one_attack_by_name_or_fingerprint(store: Store) -> None:
    for attack in ("pgd-sat", "9d900000", "9d90"):
        made = check(store, "mixed", "base#0", attack=attack)
        assert [each.trials.setting.attack for each in made.judged] == ["pgd-sat"]
        assert made.verdict == "worse"
    assert check(store, "mixed", "base#0", attack="clean").verdict == "better"


def test_an_unknown_attack_and_one_not_shared(store: Store) -> None:
    with pytest.raises(UnknownName, match="did you mean 'pgd-sat'"):
        check(store, "worse", "base#0", attack="pgd-sta")
    made = check(store, "worse", "base#0", attack="cw")
    assert made.verdict == "incomparable"
    assert "'cw'" in made.sentence


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -1.0, float("nan")])
def test_alpha_out_of_range(store: Store, alpha: float) -> None:
    with pytest.raises(BadOption, match="alpha"):
        check(store, "worse", "base", alpha=alpha)


# Seeds and questions


def test_one_seed_each_is_about_these_checkpoints(store: Store) -> None:
    made = check(store, "worse", "base#1")
    assert made.question == "checkpoints"
    assert made.heading.startswith("About these checkpoints only, on other images: 1 seed of each")
    assert "needs 3 seeds of each" in made.heading


def test_three_seeds_are_about_the_method(store: Store) -> None:
    made = check(store, "fewer", "many")
    assert made.question == "method"
    assert (
        made.heading == "About the methods, on other seeds and other images: 5 seeds of each, paired by seed and image."
    )
    assert made.verdict == "worse"
    images = check(store, "fewer", "many", question="images")
    assert "these images" in images.heading
    assert check(store, "fewer", "many", question="checkpoints").heading.startswith("About these checkpoints only")
    widths = [np.subtract(*of(one, "pgd-sat", "accuracy").change.interval) for one in (made, images)]
    assert widths[0] < widths[1] < 0  # seeds alone vary less here than seeds and images


def test_two_seeds_are_about_these_checkpoints_with_intervals_for_others(store: Store) -> None:
    made = check(store, "two-seeds", "base")
    assert (made.question, made.seeds_vary) == ("checkpoints", True)
    assert "as far as two tell" in made.heading
    narrow = check(store, "two-seeds", "base", question="checkpoints")
    assert not narrow.seeds_vary
    for attack in ("clean", "pgd-sat"):
        wide, thin = (of(one, attack, "accuracy").change for one in (made, narrow))
        assert wide.interval[0] <= thin.interval[0] <= thin.interval[1] <= wide.interval[1]
        assert wide.interval[0] >= -1


def test_other_seeds_are_paired_by_image_only(store: Store) -> None:
    made = check(store, "later", "many")
    (only,) = made.judged
    assert not only.trials.paired
    assert (len(only.trials.baseline.members), len(only.trials.candidate.members)) == (5, 3)
    assert "less is seen so" in made.heading
    assert made.verdict != "worse"


def test_some_seeds_by_their_numbers(store: Store) -> None:
    made = check(store, "many#3,4", "many@net#1,2,0")
    assert made.candidate.spelled == "many@net#3,4"
    assert made.baseline.spelled == "many@net#0,1,2"
    assert made.verdict != "worse"
    with pytest.raises(UnknownName, match=r"many@net has no seed 9; its seeds are 0, 1, 2, 3, 4"):
        check(store, "many#3,9", "many")


def test_what_is_not_compared_is_said(store: Store) -> None:
    made = check(store, "half", "base")
    assert made.left_out == ("base@net#0",)
    notes = " ".join(made.notes())
    assert "clean on digits test, which only the baseline met" in notes
    assert "cw Linf 8/255 on digits test, which only the candidate met" in notes
    assert "base@net#0" in notes


def test_a_question_by_its_name() -> None:
    assert asked(None) is None
    assert asked("images") == "images"
    with pytest.raises(UnknownName, match="did you mean 'method'"):
        asked("methods")


# Showing


def test_rows_and_json(store: Store) -> None:
    made = check(store, "worse", "base#0")
    _, table = made.tables()
    rows = table.texts
    assert {len(row) for row in rows} == {len(table.headings)}
    assert table.title == "pgd-sat Linf 8/255 on digits test, 400 images"
    assert rows[0][:4] == ("accuracy", "50.0", "40.0", "-10.0")
    assert rows[0][-2:] == ("1", "worse")
    assert [row[0] for row in rows] == ["accuracy", "worst class", "NSD", "class zero", "class one"]
    found = json.loads(json.dumps(made.as_dict(), allow_nan=False))
    assert (found["verdict"], found["exit_code"]) == ("worse", 1)
    second = found["findings"][1]
    assert (second["only_baseline"], second["only_candidate"]) == (40, 0)
    assert second["p"] == pytest.approx(2 / 2**40)
    assert second["figures"][0]["candidate"] == 0.4
    empty = check(store, "other", "base#0").as_dict()
    assert empty["findings"] == []
    assert "share no complete evaluation" in empty["reason"]


def test_what_could_have_been_seen_is_said(store: Store) -> None:
    notes = check(store, "base#0", "base#1").notes()
    assert any(
        note.startswith("The smallest loss that would have been called worse (power 0.8): accuracy") for note in notes
    )


def test_evaluations_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    made = Store(tmp_path / "bench.duckdb")
    made.create()
    made.add_dataset(DatasetRow("da7a", "digits", "test", "", N, ("zero", "one")))
    made.add_attack(PGD)
    for name in ("a", "b"):
        made.add_checkpoint(
            CheckpointRow(name * 4, name, "", "", "net", "", 0, None, name, 1, 1, "", None, "{}", "{}", "{}")
        )
        label = (np.arange(N) + (name == "b")) % 2
        made.add_chunk(made.begin(name * 4, "da7a", PGD.attack_id, N), outcomes(label, np.ones(N, dtype=np.bool_)))
    with pytest.raises(BadStore, match="contradict each other in label"):
        check(made, "a", "b")


def test_a_missing_database(tmp_path: Path) -> None:
    with pytest.raises(BadStore, match="there is no database"):
        check(Store(tmp_path / "absent.duckdb"), "a", "b")
