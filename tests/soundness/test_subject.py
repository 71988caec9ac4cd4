from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch

from bench.attacks.pgd import FGSM_ATTACK, PGD, PGD_SAT
from bench.attacks.prepare import prepared
from bench.data.load import load
from bench.norms import LINF
from bench.soundness.measured import NotRun
from bench.soundness.subject import WALK, Effort, Subject

from .conftest import EPS
from .impostors import noisy

EFFORT = Effort(images=20, one_in=5, points=10, queries=10, own=100)


@pytest.fixture(scope="module")
def net(honest):
    return honest("pgd-at").eval().requires_grad_(False)


def subject(net, images, **options):
    settings = {"norm": LINF, "eps": EPS, "seed": 0, "device": "cpu", "effort": EFFORT, "batch_size": 250}
    return Subject(net, images, **settings | {"runs": {}, "recorded_clean": None} | options)


def test_only_what_is_right_is_attacked_and_no_more_than_can_be_afforded(net, images):
    whole = subject(net, images)
    assert len(whole.shown.y) == 80
    assert len(whole.attacked.y) == 20
    with torch.no_grad():
        assert torch.equal(net(whole.attacked.x).argmax(1), whole.attacked.y)
    few = subject(net, images.take(40, 0))
    assert len(few.shown.y) == 32
    right = float((few.clean.argmax(1) == few.shown.y).double().mean())
    assert len(few.attacked.y) == int(40 * right / 5)


def test_attacks_are_run_once_and_every_pass_is_counted(net, images):
    one = subject(net, images)
    size = len(one.attacked.y)
    before = one.passes
    found = one.result_of(FGSM_ATTACK)
    assert one.passes - before == size * (1 + 1 + 1)  # forward, backward, and a forward one to judge
    assert one.result_of(FGSM_ATTACK) is found
    assert one.passes - before == size * 3
    assert one.result_of(FGSM_ATTACK, eps=Fraction(1, 2)) is not found
    before = one.passes
    assert one.course.loss.shape == (WALK + 1, size)
    assert one.passes - before == size * (2 * WALK + 1)


def test_the_course_of_a_walk_is_that_of_pgd(net, images):
    """Its first 20 steps start elsewhere than PGD's, but break about as many."""
    one = subject(net, load("digits"), effort=Effort(images=120, one_in=1, points=1, queries=1, own=1))
    walked = one.course.broken[:21].any(0).double().mean()
    assert walked == pytest.approx(float(one.result_of(PGD_SAT).broken.double().mean()), abs=0.1)
    assert (one.course.loss[-1] > one.course.loss[0]).double().mean() > 0.9


def test_batches_make_no_difference(net, images, exact):
    net = exact(copy.deepcopy(net)).eval()
    whole, parts = subject(net, images), subject(net, images, batch_size=7)
    for attack in (FGSM_ATTACK, PGD_SAT):
        torch.testing.assert_close(parts.result_of(attack).adv, whole.result_of(attack).adv)
    torch.testing.assert_close(parts.course.loss, whole.course.loss)
    assert torch.equal(parts.noise, whole.noise)
    assert torch.equal(parts.flaws.zero, whole.flaws.zero)


def test_a_temperature_is_seen_by_the_attack_alone(net, images, exact):
    one = subject(exact(copy.deepcopy(net)).eval(), images)
    by_margin = PGD(steps=3, loss="margin")  # whose gradient only changes its length
    plain, scaled = one.result_of(by_margin), one.result_of(by_margin, temperature=4.0)
    torch.testing.assert_close(scaled.adv, plain.adv)
    torch.testing.assert_close(scaled.logits, plain.logits)
    assert not torch.equal(one.result_of(PGD_SAT).adv, one.result_of(PGD_SAT, temperature=4.0).adv)


def test_random_answers_are_attacked_only_in_expectation(net, images):
    random = noisy(net)
    with pytest.raises(NotRun, match="random"):
        _ = subject(random, images).attacked
    with prepared(random):
        averaged = subject(random, images, eot=3, votes=5)
        size, before = len(averaged.attacked.y), averaged.passes
        averaged.result_of(FGSM_ATTACK)
    assert averaged.passes - before == size * (3 + 3 + 5)
