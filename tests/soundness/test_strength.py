from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench.attacks.apgd import APGD_CE, APGD_DLR
from bench.attacks.base import Attack
from bench.attacks.pgd import FGSM_ATTACK, PGD_SAT
from bench.attacks.trial import Trial
from bench.norms import L2, LINF
from bench.outcomes import FIRST_OF_LINEUP, SURVIVED, WRONG_UNATTACKED, Outcomes
from bench.soundness import strength
from bench.soundness.measured import AttackResult, Course

EPS = Fraction(1, 10)


def mask(*rows: range, n: int = 64) -> torch.Tensor:
    """(n,) bool, true in some ranges of rows."""
    broken = torch.zeros(n, dtype=torch.bool)
    for each in rows:
        broken[list(each)] = True
    return broken


def stand_in(found, **more):
    """A subject of which attacks break what `found` says: by attack, or by attack and radius or temperature."""

    def answer(attack, *, eps=None, temperature=1.0):
        for key in ((attack, eps), (attack, temperature), attack):
            if key in found:
                return AttackResult(torch.zeros(64, 1), torch.zeros(64, 2), found[key])
        raise AssertionError(f"{attack} was not expected")

    attacked = SimpleNamespace(x=torch.zeros(64, 1, 4, 4), y=torch.zeros(64, dtype=torch.int64))
    common = {"result_of": answer, "norm": LINF, "eps": EPS, "random": False, "attacked": attacked, "runs": {}}
    return SimpleNamespace(**common | more)


@pytest.mark.parametrize(
    ("check", "weak", "strong"),
    [(strength.fgsm_vs_pgd, FGSM_ATTACK, PGD_SAT), (strength.pgd_vs_apgd, PGD_SAT, APGD_CE)],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_weaker_attack_must_not_break_more(check, weak, strong):
    fails = check(stand_in({weak: mask(range(20)), strong: mask(range(13))}))
    assert (fails.verdict, fails.value, fails.n) == ("fail", 7 / 64, 64)
    by_chance = check(stand_in({weak: mask(range(20)), strong: mask(range(14))}))
    assert (by_chance.verdict, by_chance.value) == ("pass", 6 / 64)
    right = check(stand_in({weak: mask(range(13)), strong: mask(range(20))}))
    assert (right.verdict, right.value) == ("pass", -7 / 64)


def test_noise_must_not_break_more_than_pgd():
    effort = SimpleNamespace(points=5)
    fails = strength.random_noise(stand_in({PGD_SAT: mask(range(3))}, noise=mask(range(10)), effort=effort))
    assert fails.verdict == "fail"
    assert strength.random_noise(stand_in({PGD_SAT: mask(range(9))}, noise=mask(range(10)), effort=effort)).value > 0


def course(broken_from: list[int]) -> Course:
    """41 iterates of 64 images, each broken from a step on, or never (41); the loss rises to its end at step 20."""
    step = torch.arange(41)[:, None]
    first = torch.tensor(broken_from + [41] * (64 - len(broken_from)))
    return Course(step.clamp(max=20).float().expand(41, 64), step >= first)


@pytest.mark.parametrize(("late", "verdict"), [(2, "pass"), (3, "warn")])
def test_what_falls_late_in_a_walk(late, verdict):
    found = strength.steps_doubled(stand_in({}, course=course([5, 20, *[21, 40, 30][:late]])))
    assert (found.verdict, found.value) == (verdict, late / 64)


def test_a_loss_that_still_rises():
    still = strength.incomplete_optimisation(stand_in({}, course=course([])))
    assert (still.verdict, still.value) == ("pass", 0)
    rising = torch.arange(41.0)[:, None].expand(41, 64).clone()
    rising[:, 20:] = 1.0  # and of these the loss never changes
    found = strength.incomplete_optimisation(stand_in({}, course=Course(rising, rising > 99)))
    assert (found.verdict, found.value) == ("warn", 20 / 64)


def test_restarts_that_break_more():
    many = strength.replace(PGD_SAT, restarts=5)
    assert strength.restarts(stand_in({PGD_SAT: mask(range(9)), many: mask(range(11))})).verdict == "pass"
    assert strength.restarts(stand_in({PGD_SAT: mask(range(9)), many: mask(range(12))})).verdict == "warn"


@pytest.mark.parametrize(("norm", "reach"), [(LINF, 1.0), (L2, 4.0)])
@pytest.mark.parametrize(("left", "classes", "verdict"), [(0, 10, "pass"), (6, 10, "warn"), (7, 10, "fail")])
def test_within_the_whole_box_all_must_fall(norm, reach, left, classes, verdict):
    images = SimpleNamespace(classes=classes)
    found = strength.unbounded(stand_in({(PGD_SAT, Fraction(reach)): mask(range(64 - left))}, norm=norm, images=images))
    assert (found.verdict, found.value) == (verdict, left / 64)


def test_a_larger_radius_must_break_more():
    rising = {(PGD_SAT, factor * EPS): mask(range(int(8 * factor))) for factor in strength.FACTORS}
    assert strength.eps_monotone(stand_in(rising)).verdict == "pass"
    fallen = rising | {(PGD_SAT, 4 * EPS): mask(range(5))}
    found = strength.eps_monotone(stand_in(fallen))
    assert (found.verdict, found.value) == ("fail", 11 / 64)
    assert "eps 0.2 alone" in found.detail


@pytest.mark.parametrize(("ce", "dlr", "verdict"), [(10, 20, "warn"), (20, 10, "warn"), (14, 20, "pass")])
def test_two_losses_should_break_about_the_same(ce, dlr, verdict):
    found = strength.loss_choice(stand_in({APGD_CE: mask(range(ce)), APGD_DLR: mask(range(dlr))}))
    assert (found.verdict, found.value) == (verdict, abs(ce - dlr) / 64)


@pytest.mark.parametrize(
    ("scaled", "n", "verdict"), [(2, 64, "pass"), (3, 64, "warn"), (6, 64, "warn"), (7, 64, "fail"), (8, 200, "warn")]
)
def test_a_scale_at_which_pgd_breaks_more(scaled, n, verdict):
    logits = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 5.0]])  # the last one is wrong and does not count
    shown = SimpleNamespace(y=torch.tensor([0, 0, 0]))
    broken = {(PGD_SAT, 1.0): mask(range(20), n=n), (PGD_SAT, 2.0): mask(range(20 + scaled), n=n)}
    found = strength.logit_scale(stand_in(broken, clean=logits, shown=shown))
    assert (found.verdict, found.value) == (verdict, scaled / n)
    assert "mean margin 2" in found.detail


class LineUpOfTwo(Attack):
    lineup = ("apgd-ce", "square")


def test_the_black_box_is_read_from_a_line_up_that_was_run():
    trial = Trial("autoattack", LineUpOfTwo(), "Linf", EPS)

    def found(by_square, of_threat=True):
        broken_by = np.full(400, SURVIVED)
        broken_by[:10], broken_by[10 : 10 + by_square] = WRONG_UNATTACKED, FIRST_OF_LINEUP + 1
        broken_by[300:350] = FIRST_OF_LINEUP
        run = Outcomes(np.arange(400), np.zeros(400), broken_by != SURVIVED, np.ones(400), broken_by)
        return strength.black_box(stand_in({}, runs={trial: run}, of_threat=lambda trial: of_threat))

    assert (found(3).verdict, found(3).value, found(3).n) == ("pass", 3 / 390, 390)
    assert (found(4).verdict, found(40).verdict) == ("warn", "fail")
    with pytest.raises(
        AssertionError, match="not expected"
    ):  # another threat's line-up says nothing: it attacks itself
        found(5, of_threat=False)
