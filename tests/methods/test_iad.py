"""IAD-I and IAD-II."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance.rig import Rig, separable
from bench.errors import BadRecipe
from bench.randomness import Streams
from bench.training.method import METHODS, compose
from bench.training.recipe import OneHot, Recipe
from bench.training.values import Batch, Context
from methods.adaad import TeacherEverywhere
from methods.ard import ARD
from methods.iad_1 import IAD1
from methods.iad_2 import IAD2
from methods.pgd_at import PGDAT
from methods.rslad import Teacher


class Table(nn.Module):
    """The first row of logits at images of zeros, the second at images of ones."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows, dtype=torch.float64))

    def forward(self, x):
        return self.rows[x.flatten(1)[:, 0].long()]


STUDENT = [[1.0, 0.2, -0.7], [-0.4, 0.9, 0.3]]
ROBUST = [[2.0, 0.0, -1.0], [0.5, 0.8, -0.2]]
NATURAL = [[5.0, -1.0, 0.0], [-2.0, 3.0, 1.0]]
Y = 0


def softmax(z, t=1.0):
    e = np.exp(np.array(z) / t)
    return e / e.sum()


def divergence(p, q):
    return float((p * np.log(p / q)).sum())


def losses(objective, epoch):
    teachers = {"teacher": Table(ROBUST).eval(), "natural": Table(NATURAL).eval()}
    model = Table(STUDENT)
    ctx = Context(model, model, teachers, 3, 0.1, 200, Streams(0, torch.arange(1)), epoch=epoch)
    batch = Batch(torch.zeros(1, 1, 2, 2), torch.tensor([Y]))
    found = objective.losses(ctx, batch, torch.ones(1, 1, 2, 2), TeacherEverywhere()(ctx, batch, None))
    (found.fit + found.smooth).sum().backward()
    assert all(net.rows.grad is None for net in teachers.values())  # not frozen here, and still without a graph
    return model.rows.grad, found.fit.item(), found.smooth.item()


@pytest.mark.parametrize(("epoch", "begun"), [(0, False), (59, False), (60, True), (199, True)])
@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("t", [1.0, 4.0])
def test_iad_1_by_the_formula(epoch, begun, released, t):
    grad, fit, smooth = losses(IAD1(temperature=t, as_released=released), epoch)
    a = softmax(ROBUST[1])[Y] ** 0.1 if begun else 1.0  # the teacher at x'
    w = 1.0 if released else a
    p, q = softmax(STUDENT[0]), softmax(STUDENT[1])
    assert fit == pytest.approx(w * t**2 * divergence(softmax(ROBUST[0], t), softmax(STUDENT[1], t)), rel=1e-5)
    assert smooth == pytest.approx((1 - a) * divergence(p, q), rel=1e-5)
    # the student's own target is not held fixed: d KL(p||q) / dz = p (log p/q - KL) flows into the clean branch
    np.testing.assert_allclose(grad[0], (1 - a) * p * (np.log(p / q) - divergence(p, q)), atol=1e-7)
    told = w * t * (softmax(STUDENT[1], t) - softmax(ROBUST[0], t))
    np.testing.assert_allclose(grad[1], told + (1 - a) * (q - p), atol=1e-6)


@pytest.mark.parametrize(("epoch", "begun"), [(39, False), (40, True)])
def test_iad_2_by_the_formula(epoch, begun):
    _, fit, smooth = losses(IAD2(), epoch)
    a = softmax(ROBUST[1])[Y] ** 0.1 if begun else 1.0
    q = softmax(STUDENT[1])
    wanted = -0.25 * math.log(q[Y]) + 0.5 * a * divergence(softmax(ROBUST[1]), q)
    assert fit == pytest.approx(wanted + 0.25 * divergence(softmax(NATURAL[1]), q), rel=1e-6)
    assert smooth == pytest.approx(0.5 * (1 - a) * divergence(softmax(STUDENT[0]), q), rel=1e-5, abs=1e-15)


def run(objective, targets, classes=4, present=(0, 1, 2, 3)):
    batch = separable()
    rows = torch.isin(batch.y, torch.tensor(present))
    batch = Batch(batch.x[rows], batch.y[rows] % classes)
    rig = Rig.build(Recipe(objective, targets), classes)
    return [rig.step(batch) for _ in range(5)]  # four steps an epoch


@pytest.mark.parametrize("always", [{"beta": 0.0, "begin": 0.0}, {"begin": 1.0}])
@pytest.mark.parametrize("present", [(0, 1, 2, 3), (1, 2)])
@pytest.mark.parametrize("classes", [2, 4])
def test_an_iad_1_that_always_trusts_is_ard_bit_for_bit(always, present, classes):
    # the first step: ARD does not forward the clean images afterwards, which moves nothing but BatchNorm's statistics
    ours = run(IAD1(temperature=3.0, **always), TeacherEverywhere(), classes, present)[0]
    theirs = run(ARD(temperature=3.0), Teacher(), classes, present)[0]
    assert torch.equal(ours.adv, theirs.adv)
    assert torch.equal(ours.losses.fit, theirs.losses.smooth)
    assert torch.equal(ours.loss, theirs.loss)


def test_an_iad_2_without_teachers_is_pgd_at_bit_for_bit():
    ours, theirs = run(IAD2(robust=0.0, natural=0.0), TeacherEverywhere()), run(PGDAT(), OneHot())
    assert all(torch.equal(a.loss, b.loss) and torch.equal(a.adv, b.adv) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("objective", [IAD1, IAD2])
def test_introspection_begins_at_its_share_of_the_run(objective):
    silent = [not made.losses.smooth.any() for made in run(objective(begin=0.5), TeacherEverywhere())]
    assert silent == [True, True, True, True, False]  # epochs of four steps, two in all


@pytest.mark.parametrize("setting", [{"robust": 0.8, "natural": 0.3}, {"begin": 1.5}, {"beta": -1.0}])
def test_out_of_range(setting):
    with pytest.raises(BadRecipe, match="must"):
        IAD2(**setting)


def test_presets_are_the_paper_s():
    for name, begin, roles in (("iad-1", 60, ("teacher",)), ("iad-2", 40, ("teacher", "natural"))):
        plan = compose(name, dataset="cifar10", preset="paper")
        s = plan.schedule
        assert (s.epochs, s.first_epochs_of_drops(), s.weight_decay, s.batch_size) == (200, [100, 150], 2e-4, 128)
        assert round(plan.recipe.objective.begin * s.epochs) == begin
        assert METHODS.get(name).teachers == plan.teachers == roles
