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
from bench.data.load import load
from bench.errors import BadModel
from bench.evaluation.evaluate import evaluate
from bench.evaluation.network import foreign
from bench.store.database import Store
from bench.study.record import attack_row, dataset_row, put, record

TRIALS = plan(["fgsm", "pgd-sat"], eps=Fraction(3, 20), batch_size=8)
ALL = """
SELECT attack_id, sample, label, predicted, correct, confidence, broken_by
FROM outcomes JOIN evaluations USING (evaluation_id) ORDER BY ALL
"""


class Shown:
    def __init__(self, stop_at: float = float("inf")) -> None:
        self.total, self.shares, self.lines, self.doing, self.stop_at = 0.0, [], [], set(), stop_at

    def plan(self, total: float) -> None:
        self.total = total

    def advance(self, done: float, doing: str) -> None:
        self.shares.append(done / self.total)
        self.doing.add(doing)
        if self.shares[-1] > self.stop_at:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def images():
    return load("digits", "test").take(20, 0)


@pytest.fixture
def target():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.sin(torch.arange(parameter.numel()) * (index + 1.0)).reshape(parameter.shape))
    return foreign("mine", "linear", "0123456789abcdef", {}, lambda: network)


def recorded(path, target, images, trials=TRIALS, shown=None, batch_size=8):
    store = Store(path)
    store.create()
    record(store, target, images, trials, batch_size=batch_size, device="cpu", progress=shown or Shown())
    return store


def test_rows_say_what_was_evaluated(images):
    row = dataset_row(images)
    assert (row.name, row.split, row.subset, row.n, row.class_names[3]) == ("digits", "test", "n=20,seed=0", 20, "3")
    clean = attack_row(CLEAN)
    assert (clean.name, clean.norm, clean.eps_exact, clean.eps, clean.lineup) == ("clean", "none", "0", 0.0, ())
    fgsm = attack_row(TRIALS[1])
    assert (fgsm.name, fgsm.norm, fgsm.eps_exact, fgsm.eps) == ("fgsm", "Linf", "0.15", 0.15)
    assert fgsm.attack_id == TRIALS[1].attack_id


def test_everything_is_stored_and_progress_reaches_the_end(tmp_path, target, images):
    shown = Shown()
    store = recorded(tmp_path / "a.duckdb", target, images, shown=shown)
    assert [tuple(row) for row in store.rows("SELECT attack, n FROM summary ORDER BY attack")] == [
        ("clean", 20),
        ("fgsm", 20),
        ("pgd-sat", 20),
    ]
    assert 0 <= min(shown.shares) < 0.1
    assert max(shown.shares) <= 1
    assert shown.shares[-1] == pytest.approx(1)
    assert shown.doing == {"mine: clean", "mine: fgsm", "mine: pgd-sat"}


@pytest.mark.parametrize("stop_at", [0.001, 0.3, 0.7])
def test_an_interrupted_evaluation_goes_on_to_the_same_outcomes(tmp_path, target, images, stop_at):
    whole = recorded(tmp_path / "whole.duckdb", target, images).query(ALL)
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path / "parts.duckdb", target, images, shown=Shown(stop_at))
    before = Store(tmp_path / "parts.duckdb").query(ALL)
    assert len(before) < 60
    again = Shown()
    parts = recorded(tmp_path / "parts.duckdb", target, images, shown=again)
    assert again.shares[0] >= len(before) / 60 * 0.01
    pd.testing.assert_frame_equal(parts.query(ALL), whole)
    assert parts.rows("SELECT sum(n) FROM chunks") == [(60,)]


def test_done_is_done_whatever_the_batch_size(tmp_path, target, images):
    path = tmp_path / "a.duckdb"
    first = recorded(path, target, images).query(ALL)
    chunks = Store(path).rows("SELECT count(*) FROM chunks")
    store = recorded(path, target, images, batch_size=3)
    pd.testing.assert_frame_equal(store.query(ALL), first)
    assert store.rows("SELECT count(*) FROM chunks") == chunks


def test_a_model_that_breaks_midway_loses_nothing_of_what_was_stored(tmp_path, target, images):
    network, calls, last = target.network(), [], float("inf")

    class Breaks(nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return network(x) * (float("nan") if len(calls) > last else 1)

    broken = foreign("mine", "linear", "0123456789abcdef", {}, Breaks)
    recorded(tmp_path / "whole.duckdb", broken, images)
    last = len(calls) - 10
    calls.clear()
    with pytest.raises(BadModel, match="NaN"):
        recorded(tmp_path / "a.duckdb", broken, images)
    store = Store(tmp_path / "a.duckdb")
    kept = len(store.query(ALL))
    assert 0 < kept < 60
    assert len(recorded(tmp_path / "a.duckdb", target, images).query(ALL)) == 60


def test_probabilities_are_remarked_on_once(tmp_path, target, images):
    softmax = foreign("soft", "linear", "fedcba9876543210", {}, lambda: nn.Sequential(target.network(), nn.Softmax(1)))
    shown = Shown()
    recorded(tmp_path / "a.duckdb", softmax, images, shown=shown)
    assert sum("probabilities" in line for line in shown.lines) == 1


def test_what_another_process_stored_meanwhile_is_left_out(tmp_path, target, images):
    recorded(tmp_path / "a.duckdb", target, images)
    store = Store(tmp_path / "a.duckdb")
    before = store.query(ALL)
    network = target.network()
    for trial, outcomes in evaluate(network, images, TRIALS, batch_size=20):
        put(store, target.row.checkpoint_id, images, trial, outcomes)
    assert store.query(ALL).equals(before)
    half = Store(tmp_path / "b.duckdb")
    half.create()
    half.add_dataset(dataset_row(images))
    half.add_attack(attack_row(CLEAN))
    half.add_checkpoint(target.row)
    ((_, whole),) = evaluate(network, images, [CLEAN], batch_size=20)
    put(half, target.row.checkpoint_id, images, CLEAN, whole.select(np.arange(5)))
    put(half, target.row.checkpoint_id, images, CLEAN, whole)
    assert half.rows("SELECT count(*), count(DISTINCT sample) FROM outcomes") == [(20, 20)]
    assert half.complete(target.row.checkpoint_id, images.dataset_id, CLEAN.attack_id)


def test_a_network_that_fails_at_its_first_images_leaves_no_row(tmp_path, target, images):
    broken = replace(target, network=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 7)))
    with pytest.raises(BadModel, match=r"shape \(8, 7\)"):
        recorded(tmp_path / "a.duckdb", broken, images)
    assert Store(tmp_path / "a.duckdb").rows("SELECT count(*) FROM checkpoints") == [(0,)]
    assert Store(tmp_path / "a.duckdb").rows("SELECT count(*) FROM evaluations") == [(0,)]
