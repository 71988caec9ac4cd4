"""The gate: exact test, floor, correction, and a verdict that maps to an exit code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from bench.errors import BadOption, UnknownName
from bench.outcomes import Outcomes
from bench.report.regression import Decision, check, holm, mcnemar
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow

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
}


def of(*columns: Any) -> Outcomes:
    """Outcomes from columns of any integer type, which the constructor narrows."""
    return Outcomes(*columns)


def survivors(count: int) -> Outcomes:
    label: npt.NDArray[np.int64] = np.arange(N) % 2
    correct = np.arange(N) < count
    return of(np.arange(N), label, np.where(correct, label, 1 - label), np.ones(N), np.where(correct, 0, 1))


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
    return made


# The statistics


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    wanted = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(wanted, rel=1e-6, abs=1e-290)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(3, 11) == mcnemar(11, 3)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=50)
def test_mcnemar_is_the_sum_of_binomials(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7]) == [0.7]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_lies_between_none_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, one in zip(p, adjusted, strict=True):
        assert raw <= one <= min(1.0, len(p) * raw) or one == pytest.approx(raw)
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


# The verdict


def words(decision: Decision) -> list[str]:
    return [one.verdict for one in decision.differences]


@pytest.mark.parametrize(
    ("candidate", "per_attack", "verdict", "code"),
    [
        ("base#0", ["same", "same"], "same", 0),
        ("worse", ["same", "worse"], "worse", 1),
        ("better", ["same", "better"], "better", 0),
        ("mixed", ["better", "worse"], "worse", 1),
        ("trifle", ["same", "same"], "same", 0),
        ("noise", ["same", "same"], "same", 0),
        ("other", [], "incomparable", 2),
    ],
)
def test_verdicts(store: Store, candidate: str, per_attack: list[str], verdict: str, code: int) -> None:
    made = check(store, candidate, "base#0")
    assert words(made) == per_attack
    assert (made.verdict, made.exit_code) == (verdict, code)
    assert made.sentence.startswith(verdict)
    assert "\n" not in made.sentence


def test_the_figures_behind_a_verdict(store: Store) -> None:
    made = check(store, "worse", "base#0")
    clean, pgd = made.differences
    assert (pgd.meeting.total.only_a, pgd.meeting.total.only_b) == (40, 0)
    assert pgd.meeting.total.difference == pytest.approx(-0.1)
    assert pgd.p == pytest.approx(2 / 2**40)
    assert pgd.adjusted == pytest.approx(2 * pgd.p)
    assert clean.p == clean.adjusted == 1.0


def test_exchanging_the_two_turns_the_verdict(store: Store) -> None:
    assert check(store, "base#0", "worse").verdict == "better"
    assert check(store, "base#0", "better").verdict == "worse"


def test_the_floor_must_be_exceeded(store: Store) -> None:
    assert check(store, "worse", "base#0", floor=0.1).verdict == "same"
    assert check(store, "worse", "base#0", floor=0.0999).verdict == "worse"


def test_alpha_must_be_reached(store: Store) -> None:
    # 4 one-sided discordant samples: p = 0.125; 3 of them: 0.25
    assert check(store, "noise", "base#0", attack="pgd-sat", alpha=0.125).verdict == "worse"
    assert check(store, "noise", "base#0", attack="pgd-sat", alpha=0.1249).verdict == "same"
    assert check(store, "noise", "base#0", alpha=0.125).verdict == "same"
    assert check(store, "noise", "base#0", alpha=0.25).verdict == "worse"


def test_one_attack_by_name_or_fingerprint(store: Store) -> None:
    for attack in ("pgd-sat", "9d900000", "9d90"):
        made = check(store, "mixed", "base#0", attack=attack)
        assert words(made) == ["worse"]
    assert check(store, "mixed", "base#0", attack="clean").verdict == "better"


def test_an_unknown_attack_and_one_not_shared(store: Store) -> None:
    with pytest.raises(UnknownName, match="did you mean 'pgd-sat'"):
        check(store, "worse", "base#0", attack="pgd-sta")
    made = check(store, "worse", "base#0", attack="cw")
    assert made.verdict == "incomparable"
    assert "'cw'" in made.sentence


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_alpha_out_of_range(store: Store, alpha: float) -> None:
    with pytest.raises(BadOption, match="alpha"):
        check(store, "worse", "base", alpha=alpha)


@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_floor_out_of_range(store: Store, floor: float) -> None:
    with pytest.raises(BadOption, match="floor"):
        check(store, "worse", "base", floor=floor)


def test_seeds_are_pooled_and_shown_one_by_one(store: Store) -> None:
    made = check(store, "two-seeds", "base")
    pgd = made.differences[1]
    assert pgd.meeting.total.n == 2 * N
    assert pgd.p == pytest.approx(2 / 2**14)
    assert [(seed.candidate, seed.baseline) for seed in pgd.seeds] == [(0, 0), (1, 1)]
    assert [seed.difference for seed in pgd.seeds] == pytest.approx([-10 / N, -4 / N])
    assert [seed.p for seed in pgd.seeds] == pytest.approx([2 / 2**10, 2 / 2**4])
    assert not any("One training seed" in note for note in made.notes())


def test_what_is_not_compared_is_said(store: Store) -> None:
    made = check(store, "half", "base")
    assert words(made) == ["worse"]
    assert made.unpaired == ("base@net#0",)
    notes = " ".join(made.notes())
    assert "clean on digits test, which only the baseline met" in notes
    assert "cw Linf 8/255 on digits test, which only the candidate met" in notes
    assert "One training seed" in notes


def test_no_seed_in_common(store: Store) -> None:
    made = check(store, "worse", "base#1")
    assert made.differences  # one checkpoint each
    made = check(store, "worse", "base")
    assert made.unpaired == ("base@net#1",)


# Showing


def test_rows_and_json(store: Store) -> None:
    made = check(store, "worse", "base#0")
    table = made.table()
    rows = table.texts
    assert {len(row) for row in rows} == {len(table.headings)}
    assert table.titles[5:7] == ("lost", "won")
    assert rows[1][:7] == ("pgd-sat Linf 8/255 on digits test", "400", "50.00", "40.00", "-10.00", "40", "0")
    assert rows[1][-1] == "worse"
    found = json.loads(json.dumps(made.as_dict(), allow_nan=False))
    assert found["verdict"] == "worse"
    assert found["exit_code"] == 1
    assert found["findings"][1]["only_baseline"] == 40
    assert found["findings"][1]["accuracy_candidate"] == 0.4
    empty = check(store, "other", "base#0").as_dict()
    assert empty["findings"] == []
    assert "share no complete evaluation" in empty["reason"]


def test_a_missing_database(tmp_path: Path) -> None:
    from bench.errors import BadStore

    with pytest.raises(BadStore, match="there is no database"):
        check(Store(tmp_path / "absent.duckdb"), "a", "b")
