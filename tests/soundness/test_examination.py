from __future__ import annotations

import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from torch import nn

from bench.attacks.trial import Trial, plan
from bench.data.load import load
from bench.evaluation.evaluate import evaluate
from bench.evaluation.network import InMemory, foreign
from bench.soundness import examination as examining
from bench.soundness.examination import examinations, recorded_clean, stored, threats
from bench.store.database import Store
from bench.store.rows import EpochRow
from bench.study.record import attack_row, dataset_row, put
from bench.verdict import Verdict

TRIALS = plan(["fgsm", "fgsm@L2:1/2", "pgd-sat"], eps=Fraction(3, 20), batch_size=8)


@pytest.fixture(scope="module")
def images():
    return load("digits").take(20, 0)


@pytest.fixture(scope="module")
def given():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return foreign("mine", "linear", "0123456789abcdef", {}, InMemory(network))


@pytest.fixture
def store(tmp_path, given, images):
    made = Store(tmp_path / "a.duckdb")
    made.create()
    made.add_dataset(dataset_row(images))
    made.add_checkpoint(given.row)
    for trial in TRIALS:
        made.add_attack(attack_row(trial))
    for trial, outcomes in evaluate(given.module(), images, TRIALS[:2], batch_size=8):
        put(made, given.row.checkpoint_id, images, trial, outcomes)
    return made


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the checks, and notes what they were asked."""
    calls = []

    def run_checks(network, images, **options):
        calls.append(options)
        yield Verdict("first", float(len(calls)), None, "pass", 20, "")
        yield Verdict("second", None, None, "warn", 20, "look")

    monkeypatch.setattr(examining, "run_checks", run_checks)
    return calls


def run(store, given, images, **options):
    for each in examinations(store, given, images, TRIALS, **{"which": "default"} | options):
        again = pickle.loads(pickle.dumps(each))  # as to a worker
        verdicts = list(again.verdicts(given.module(), images, batch_size=8, device="cpu"))
        again.enter(store, given.row.checkpoint_id, images, verdicts)


def test_every_budget_is_examined_and_the_verdicts_are_stored(store, given, images, asked):
    run(store, given, images)
    assert [(call["norm"], call["eps"]) for call in asked] == [("Linf", Fraction(3, 20)), ("L2", Fraction(1, 2))]
    for norm, eps, value in (("Linf", "0.15", 1), ("L2", "0.5", 2)):
        found = store.verdicts(given.row.checkpoint_id, images.dataset_id, norm, eps)
        assert [(verdict.name, verdict.value) for verdict in found] == [("first", value), ("second", None)]


def test_the_checks_see_what_the_attacks_did(store, given, images, asked):
    run(store, given, images)
    runs = asked[0]["runs"]
    assert list(runs) == list(TRIALS)
    assert len(runs[TRIALS[3]]) == 0
    assert len(runs[TRIALS[2]]) == 0
    for trial, outcomes in evaluate(given.module(), images, TRIALS[:2], batch_size=20):
        for name in ("sample", "predicted", "broken_by", "forwards"):
            assert np.array_equal(getattr(runs[trial], name), getattr(outcomes, name))


def test_what_has_verdicts_is_run_anew_only_where_asked(store, given, images, asked):
    run(store, given, images)
    run(store, given, images, anew=False)
    assert len(asked) == 2
    run(store, given, images, which="all")
    assert len(asked) == 4
    assert asked[-1]["which"] == "all"


def test_nothing_can_be_defended_within_the_whole_box():
    assert threats(plan(["pgd-sat", "pgd-sat@Linf:1", "pgd-sat@L2:2"], eps=Fraction(1, 9), batch_size=1)) == [
        ("Linf", Fraction(1, 9)),
        ("L2", Fraction(2)),
    ]
    assert threats([Trial("clean")]) == []


def test_an_evaluation_that_has_not_begun_has_no_outcomes(store, given, images):
    assert len(stored(store, given.row.checkpoint_id, images, TRIALS[3])) == 0


def test_the_record_of_a_training_is_that_of_its_kept_epoch_on_like_data(given, images):
    rows = [
        EpochRow(epoch, split, class_, 10, hits, 1)
        for epoch, split, class_, hits in (
            (1, "valid", 0, 1),
            (2, "train", 0, 9),
            (2, "valid", 0, 7),
            (2, "valid", 1, 6),
        )
    ]
    trained = replace(given, epochs=tuple(rows), row=replace(given.row, epoch=2, trained_on="digits"))
    assert recorded_clean(trained, images) == (13, 20)
    assert recorded_clean(given, images) is None
    assert recorded_clean(replace(trained, row=replace(trained.row, trained_on="svhn")), images) is None
    rows[-1] = replace(rows[-1], hits_clean=None)
    assert recorded_clean(replace(trained, epochs=tuple(rows)), images) is None
