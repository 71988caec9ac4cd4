"""What the checks found of an entry: every checkpoint and budget, the gravest first."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BadStore, UnknownName
from bench.report.soundness import soundness
from bench.store.database import Store
from bench.store.rows import CheckpointRow, DatasetRow
from bench.verdict import Judgement, Verdict


def verdict(name: str, said: Judgement) -> Verdict:
    return Verdict(name, 0.123456, None, said, 40, "as measured")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two seeds of one method and a method that was not checked."""
    store = Store(tmp_path / "bench.duckdb")
    store.create()
    store.add_dataset(DatasetRow("d1", "digits", "test", "n=40,seed=0", 40, ("a", "b")))
    store.add_dataset(DatasetRow("d2", "cifar10", "test", "", 10, ("a", "b")))
    for key, method, seed in (("z0", "trades", 0), ("a1", "trades", 1), ("b0", "other", 0)):
        row = (key, method, "", "p", "m", "", seed, None, f"recipe-{method}", None, None, "", None, "{}", "{}", "{}")
        store.add_checkpoint(CheckpointRow(*row))
    return store


def test_every_checkpoint_and_budget_is_told_by_seed(store: Store) -> None:
    store.add_verdicts("a1", "d1", "none", "0", [verdict("precision", "pass")])
    store.add_verdicts(
        "z0", "d1", "Linf", "8/255", [verdict(*of) for of in (("b", "warn"), ("a", "pass"), ("c", "fail"))]
    )
    store.add_verdicts("z0", "d1", "none", "0", [verdict("d", "not-run"), verdict("e", "fail")])
    store.add_verdicts("z0", "d2", "L2", "1/2", [verdict("c", "fail")])
    found = soundness(store, "trades")
    assert [one.table().title for one in found.checked] == [
        "trades@m#0, L2 eps 1/2, on cifar10 test",
        "trades@m#0, whatever the threat, on digits test n=40,seed=0",
        "trades@m#0, Linf eps 8/255, on digits test n=40,seed=0",
        "trades@m#1, whatever the threat, on digits test n=40,seed=0",
    ]
    assert [one.name for one in found.checked[2].verdicts] == ["c", "b", "a"]
    assert found.checked[2].table().texts[0] == ("c", "0.1235", "–", "fail", "40", "as measured")  # noqa: RUF001  # the dash of the tables
    assert (found.failed, found.exit_code) == (("c", "e"), 1)
    assert "trades@m fails c, e" in found.sentence


def test_one_checkpoint_can_be_asked_for(store: Store) -> None:
    store.add_verdicts("a1", "d1", "none", "0", [verdict("precision", "warn")])
    store.add_verdicts("z0", "d1", "none", "0", [verdict("precision", "fail")])
    found = soundness(store, "trades#1")
    assert (found.failed, found.exit_code, found.sentence) == ((), 0, "trades@m#1: no soundness check fails")
    told = found.as_dict()
    assert (told["entry"], told["failed"], told["exit_code"]) == ("trades@m#1", [], 0)
    assert told["examinations"][0]["verdicts"][0]["verdict"] == "warn"


def test_without_a_recorded_check_there_is_no_verdict(store: Store) -> None:
    with pytest.raises(BadStore, match="no soundness check of other@m#0 is recorded; 'evenbench evaluate' runs them"):
        soundness(store, "other")
    with pytest.raises(UnknownName, match="did you mean 'trades'"):
        soundness(store, "trade")
