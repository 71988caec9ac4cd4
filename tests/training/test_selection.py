from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bench.errors import BadRecipe, UnknownName
from bench.training.schedule import Schedule
from bench.training.selection import RULES, best_epoch, score

N, CLEAN, ADV = np.array([10.0, 20.0, 10.0]), np.array([9.0, 18.0, 5.0]), np.array([5.0, 4.0, 3.0])


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("best-robust", 12 / 40),
        ("best-robust-plus-worst", 12 / 40 + 4 / 20),
        ("best-mean-clean-robust", (32 / 40 + 12 / 40) / 2),
        ("last", 7),
    ],
)
def test_by_hand(rule, value):
    assert score(rule, 7, N, CLEAN, ADV) == pytest.approx(value)


def test_the_rules_are_those_that_a_schedule_can_name():
    assert [Schedule(selection=rule).selection for rule in RULES] == [*RULES]
    assert {"last", "best-robust", "best-robust-plus-worst", "best-mean-clean-robust"} == {*RULES}
    with pytest.raises(BadRecipe, match=r"^schedule\.selection=best: choose one of last, best-robust, "):
        Schedule(selection="best")


def test_an_unknown_rule():
    with pytest.raises(UnknownName, match="no selection rule is called 'best-robus'; did you mean 'best-robust'"):
        score("best-robus", 1, N, CLEAN, ADV)


def history(rows):
    return [
        {"epoch": e, "split": split, "n": [10, 10], "hits_clean": [10, 10], "hits_adv": list(adv)}
        for e, adv in rows
        for split in ("train", "valid")
    ]


def test_the_earliest_of_equals_is_kept():
    rows = history([(1, (2, 2)), (2, (4, 4)), (3, (8, 0)), (4, (4, 4))])
    assert best_epoch(rows, "best-robust") == 2
    assert best_epoch(rows, "best-robust-plus-worst") == 2
    assert best_epoch(rows, "last") == 4


def test_epochs_that_were_not_validated_are_not_kept_and_training_hits_do_not_count():
    late = {"epoch": 5, "split": "train", "n": [10, 10], "hits_clean": None, "hits_adv": [10, 10]}
    rows = [*history([(2, (3, 3)), (4, (5, 5))]), late]
    assert best_epoch(rows, "best-robust") == 4
    assert best_epoch([row for row in rows if row["split"] == "train"], "last") == 5


@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=1, max_size=8), st.sampled_from(sorted(RULES))
)
def test_the_kept_epoch_has_the_highest_score(adv, rule):
    rows = history(list(enumerate(adv, 1)))
    n = np.array([10.0, 10.0])
    scores = [score(rule, e, n, n, np.array(hits, float)) for e, hits in enumerate(adv, 1)]
    assert best_epoch(rows, rule) == int(np.argmax(scores)) + 1
