"""Recording: chunk by chunk into the store, going on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bench.attacks.trial import CLEAN, plan
from bench.data.source import Source
from bench.errors import BadModel
from bench.evaluation.evaluate import evaluate
from bench.evaluation.network import InMemory, foreign
from bench.store.database import Store
from bench.study import runner
from bench.study.plan import Agenda, Cell
from bench.study.pool import Inline
from bench.study.record import attack_row, dataset_row, put
from bench.study.runner import run_study

from .shown import Shown

SOURCE = Source("digits", "test", n=20)
TRIALS = plan(["fgsm", "pgd-sat"], eps=Fraction(3, 20), batch_size=8)
ALL = """
SELECT attack_id, sample, label, predicted, correct, confidence, broken_by
FROM outcomes JOIN evaluations USING (evaluation_id) ORDER BY ALL
"""


@pytest.fixture(scope="module")
def images():
    return SOURCE.images()


@pytest.fixture
def given():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.sin(torch.arange(parameter.numel()) * (index + 1.0)).reshape(parameter.shape))
    return foreign("mine", "linear", "0123456789abcdef", {}, InMemory(network))


def recorded(path, network, trials=TRIALS, shown=None, batch_size=8):
    """Judge a network that is given; raises what went wrong."""
    store = Store(path)
    cell = Cell("mine", trials, batch_size, network=network)
    report = run_study(Agenda(store, SOURCE, [cell], "cpu", "none"), Inline(), shown or Shown())
    for problem in report.problems.values():
        raise problem
    return store


def test_rows_say_what_was_evaluated(images):
    row = dataset_row(images)
    assert (row.name, row.split, row.subset, row.n, row.class_names[3]) == ("digits", "test", "n=20,seed=0", 20, "3")
    clean = attack_row(CLEAN)
    assert (clean.name, clean.norm, clean.eps_exact, clean.eps, clean.lineup) == ("clean", "none", "0", 0.0, ())
    fgsm = attack_row(TRIALS[1])
    assert (fgsm.name, fgsm.norm, fgsm.eps_exact, fgsm.eps) == ("fgsm", "Linf", "0.15", 0.15)
    assert fgsm.attack_id == TRIALS[1].attack_id


def test_everything_is_stored_and_progress_reaches_the_end(tmp_path, given):
    shown = Shown()
    store = recorded(tmp_path / "a.duckdb", given, shown=shown)
    assert [tuple(row) for row in store.rows("SELECT attack, n FROM summary ORDER BY attack")] == [
        ("clean", 20),
        ("fgsm", 20),
        ("pgd-sat", 20),
    ]
    assert all(0 <= share <= 1 for share in shown.shares)
    assert (shown.shares[-1], shown.left[-1]) == (1.0, 0.0)
    assert set(filter(None, shown.doing)) == {"mine: clean", "mine: fgsm", "mine: pgd-sat"}


@pytest.mark.parametrize(("doing", "stop_at"), [("clean", 2), ("fgsm", 3), ("pgd-sat", 4)])
def test_an_interrupted_evaluation_goes_on_to_the_same_outcomes(tmp_path, given, monkeypatch, doing, stop_at):
    monkeypatch.setattr(runner, "OFTEN", 0.0)
    whole = recorded(tmp_path / "whole.duckdb", given).query(ALL)
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path / "parts.duckdb", given, shown=Shown(stop_at, doing))
    before = Store(tmp_path / "parts.duckdb").query(ALL)
    assert len(before) < 60
    parts = recorded(tmp_path / "parts.duckdb", given)
    pd.testing.assert_frame_equal(parts.query(ALL), whole)
    assert parts.rows("SELECT sum(n) FROM chunks") == [(60,)]


def test_done_is_done_whatever_the_batch_size(tmp_path, given):
    path = tmp_path / "a.duckdb"
    first = recorded(path, given).query(ALL)
    chunks = Store(path).rows("SELECT count(*) FROM chunks")
    store = recorded(path, given, batch_size=3)
    pd.testing.assert_frame_equal(store.query(ALL), first)
    assert store.rows("SELECT count(*) FROM chunks") == chunks


def test_a_model_that_breaks_midway_loses_nothing_of_what_was_stored(tmp_path, given):
    network, calls, last = given.module(), [], float("inf")

    class Breaks(nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return network(x) * (float("nan") if len(calls) > last else 1)

    broken = foreign("mine", "linear", "0123456789abcdef", {}, InMemory(Breaks()))
    recorded(tmp_path / "whole.duckdb", broken)
    last = len(calls) - 10
    calls.clear()
    with pytest.raises(BadModel, match="NaN"):
        recorded(tmp_path / "a.duckdb", broken)
    store = Store(tmp_path / "a.duckdb")
    kept = len(store.query(ALL))
    assert 0 < kept < 60
    assert len(recorded(tmp_path / "a.duckdb", given).query(ALL)) == 60


def test_probabilities_are_remarked_on_once(tmp_path, given):
    softmax = foreign("soft", "linear", "fedcba9876543210", {}, InMemory(nn.Sequential(given.module(), nn.Softmax(1))))
    shown = Shown()
    recorded(tmp_path / "a.duckdb", softmax, shown=shown)
    assert sum("probabilities" in line for line in shown.lines) == 1


def test_what_another_process_stored_meanwhile_is_left_out(tmp_path, given, images):
    recorded(tmp_path / "a.duckdb", given)
    store = Store(tmp_path / "a.duckdb")
    before = store.query(ALL)
    network = given.module()
    for trial, outcomes in evaluate(network, images, TRIALS, batch_size=20):
        put(store, given.row.checkpoint_id, images, trial, outcomes)
    assert store.query(ALL).equals(before)
    half = Store(tmp_path / "b.duckdb")
    half.create()
    half.add_dataset(dataset_row(images))
    half.add_attack(attack_row(CLEAN))
    half.add_checkpoint(given.row)
    ((_, whole),) = evaluate(network, images, [CLEAN], batch_size=20)
    put(half, given.row.checkpoint_id, images, CLEAN, whole.select(np.arange(5)))
    put(half, given.row.checkpoint_id, images, CLEAN, whole)
    assert half.rows("SELECT count(*), count(DISTINCT sample) FROM outcomes") == [(20, 20)]
    assert half.complete(given.row.checkpoint_id, images.dataset_id, CLEAN.attack_id)


def test_a_network_that_fails_at_its_first_images_leaves_no_row(tmp_path, given):
    broken = replace(given, origin=InMemory(nn.Sequential(nn.Flatten(), nn.Linear(64, 7))))
    with pytest.raises(BadModel, match=r"shape \(8, 7\)"):
        recorded(tmp_path / "a.duckdb", broken)
    assert Store(tmp_path / "a.duckdb").rows("SELECT count(*) FROM checkpoints") == [(0,)]
    assert Store(tmp_path / "a.duckdb").rows("SELECT count(*) FROM evaluations") == [(0,)]
