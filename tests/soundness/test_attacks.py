from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bench.attacks.pgd import FGSM, PGD
from bench.attacks.trial import CLEAN, Trial
from bench.errors import OutOfBudget
from bench.evaluation.evaluate import evaluate
from bench.soundness import attacks
from bench.soundness.run import run_checks

from .conftest import EPS
from .impostors import Backwards, Forgetful, Lazy, Overshooting

ALL = (attacks.budget, attacks.attack_moves, attacks.attack_strength, attacks.silent_success)


def run(net, images, attack, eps=EPS):
    """What became of an attack: outcomes, or the error that stopped it."""
    trial = Trial(type(attack).__name__.lower(), attack, "Linf", eps)
    try:
        ((_, outcomes),) = evaluate(net, images, [trial])
    except OutOfBudget as problem:
        return {trial: problem}
    return {trial: outcomes}


def verdicts(net, images, runs, checks=ALL):
    return {v.name: v for v in run_checks(net, images, norm="Linf", eps=EPS, seed=0, runs=runs, checks=checks)}


@pytest.fixture(scope="module")
def net(honest):
    return honest("pgd-at")


def test_attacks_that_do_their_work_pass(net, images):
    runs = run(net, images, FGSM()) | run(net, images, PGD())
    found = verdicts(net, images, runs)
    assert {v.name: v.verdict for v in found.values()} == dict.fromkeys((c.name for c in ALL), "pass")
    assert found["budget"].n == 480


@pytest.mark.parametrize(
    ("attack", "caught_by", "verdict"),
    [
        (Overshooting(), "budget", "fail"),
        (Lazy(), "attack-moves", "fail"),
        (Backwards(), "attack-strength", "fail"),
        (Forgetful(), "silent-success", "warn"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_attack_that_does_not_attack_is_caught(net, images, attack, caught_by, verdict):
    found = verdicts(net, images, run(net, images, attack))
    assert found[caught_by].verdict == verdict
    assert type(attack).__name__.lower() in found[caught_by].detail


def test_an_attack_out_of_its_budget_is_told_of_beside_the_others(net, images):
    runs = run(net, images, FGSM()) | run(net, images, Overshooting())
    found = verdicts(net, images, runs)
    assert (found["budget"].verdict, found["budget"].value, found["budget"].n) == ("fail", 1, 240)
    assert "but eps is 0.15" in found["budget"].detail
    assert found["attack-moves"].verdict == "pass"


def test_weaker_than_noise_fails(honest, images):
    net = honest("natural")
    strong = verdicts(net, images, run(net, images, PGD()))["attack-strength"]
    assert strong.verdict == "pass"
    ((trial, outcomes),) = run(net, images, FGSM()).items()
    idle = replace(
        outcomes, predicted=outcomes.label.copy(), broken_by=np.zeros(240), confidence=np.ones(240)
    )  # says that nothing broke
    eager = [check for check in ALL if check.name == "attack-strength"]
    big = {replace(trial, eps=Fraction(1, 2)): idle}
    noise = next(run_checks(net, images, norm="Linf", eps=Fraction(1, 2), seed=0, runs=big, checks=eager))
    assert noise.verdict == "fail"
    assert "random noise" in noise.detail


def test_attacks_of_another_threat_are_not_compared(net, images):
    found = verdicts(net, images, run(net, images, FGSM(), eps=Fraction(1, 4)))
    assert found["attack-strength"].verdict == "not-run"
    assert found["attack-moves"].verdict == "pass"


def test_outcomes_of_old_that_tell_no_divergence_are_no_proof_of_idleness(net, images):
    ((trial, outcomes),) = run(net, images, FGSM()).items()
    survivors = outcomes.select(np.flatnonzero(outcomes.broken_by == 0))
    found = verdicts(net, images, {trial: replace(survivors, divergence=np.zeros(len(survivors)))})
    assert found["attack-moves"].verdict == "pass"


def test_without_attacks_there_is_nothing_to_say(net, images):
    runs = dict(evaluate(net, images, [CLEAN]))
    ((trial, outcomes),) = run(net, images, FGSM()).items()
    for none in ({}, runs):
        assert {v.verdict for v in verdicts(net, images, none).values()} == {"not-run"}
    unfinished = verdicts(net, images, {trial: outcomes.select(np.arange(0))})
    assert unfinished["attack-moves"].verdict == "not-run"


def test_an_attack_that_is_too_dear_is_not_run_once_more(net, images):
    ((trial, outcomes),) = run(net, images, FGSM()).items()
    dear = replace(trial, attack=PGD(steps=1001), name="long")
    found = verdicts(net, images, {dear: outcomes})["silent-success"]
    assert found.verdict == "not-run"
    assert "long" in found.detail
