"""AdaAD and AdaIAD."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance.rig import Rig, separable
from bench.errors import BadRecipe
from bench.randomness import Streams
from bench.training.inner import Inner
from bench.training.method import compose
from bench.training.recipe import Recipe, Uniform
from bench.training.values import Batch, Context
from methods.adaad import AdaAD, TeacherEverywhere
from methods.adaiad import AdaIAD


class Linear(nn.Module):
    """Logits linear in two pixels."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1).double() @ self.weight.T


STUDENT, TEACHER = [[2.0, -1.0], [-1.0, 0.5], [0.0, 1.0]], [[-1.0, 3.0], [0.5, -2.0], [1.0, 1.0]]


def setting(teacher=TEACHER, epoch=0, epochs=200):
    student = Linear(STUDENT)
    teachers = {"teacher": Linear(teacher).eval()}
    ctx = Context(student, student, teachers, 3, 0.1, epochs, Streams(0, torch.arange(2)), epoch=epoch)
    return ctx, Batch(torch.tensor([[0.5, 0.5], [0.2, 0.7]]).view(2, 1, 1, 2), torch.tensor([0, 2]))


def softmax(weight, x, t=1.0):
    z = np.asarray(x, dtype=float).reshape(2, 2) @ np.array(weight).T / t
    e = np.exp(z)
    return e / e.sum(1, keepdims=True)


def divergence(p, q):
    return (p * np.log(p / q)).sum(1)


MOVED = torch.tensor([[0.6, 0.4], [0.3, 0.6]]).view(2, 1, 1, 2)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_by_the_formula(scale):
    ctx, batch = setting()
    targets = TeacherEverywhere()(ctx, batch, None)
    found = AdaAD(alpha=0.75, scale=scale).losses(ctx, batch, MOVED, targets)
    fit = 0.25 * scale * divergence(softmax(TEACHER, batch.x), softmax(STUDENT, batch.x))
    smooth = 0.75 * scale * divergence(softmax(TEACHER, MOVED), softmax(STUDENT, MOVED))
    np.testing.assert_allclose(found.fit.detach(), fit, rtol=1e-5)
    np.testing.assert_allclose(found.smooth.detach(), smooth, rtol=1e-5)
    (found.fit + found.smooth).sum().backward()
    assert ctx.teacher().weight.grad is None  # not frozen here, and still without a graph in the loss


def test_with_the_whole_weight_on_the_adversarial_term_the_clean_image_is_not_looked_at():
    ctx, batch = setting()
    found = AdaAD().losses(ctx, batch, MOVED, TeacherEverywhere()(ctx, batch, None))
    assert found.logits_clean is None
    assert not found.fit.any()


def test_the_attack_s_gradient_goes_through_both_networks():
    # d KL(p_T || p_S) / dx = J_T (log p_T - log p_S) + W_S^T (p_S - p_T), J_T = W_T^T (diag p_T - p_T p_T^T)
    other = [[1.0, -3.0], [-2.0, 1.0], [1.0, 2.0]]
    ctx, batch = setting(other)
    batch = batch._replace(x=torch.tensor([[0.1, 0.1], [0.5, 0.5]]).view(2, 1, 1, 2))
    targets = TeacherEverywhere()(ctx, batch, None)
    adv = AdaAD(inner=Inner(steps=1, start="gaussian")).perturb(
        ctx, batch, targets, Uniform(1.0).reach(ctx, batch, None)
    )
    start = batch.x + 0.001 * ctx.streams.fork("start").normal((1, 1, 2))
    start = start.reshape(2, 2).numpy()
    p, q = softmax(other, start), softmax(STUDENT, start)
    r = np.log(p / q)
    through_teacher = (p * (r - (p * r).sum(1, keepdims=True))) @ np.array(other)
    through_student = (q - p) @ np.array(STUDENT)
    signs = np.sign(through_teacher + through_student)
    assert (signs != np.sign(through_student)).any()  # the student's gradient alone leads elsewhere
    np.testing.assert_allclose(adv.reshape(2, 2), start + 0.1 * signs, atol=4e-3)


def test_a_teacher_whose_probabilities_underflow_still_has_a_gradient():
    ctx, batch = setting(teacher=[[900.0, 0.0], [0.0, -900.0], [0.0, 0.0]])
    targets = TeacherEverywhere()(ctx, batch, None)
    assert (targets.clean == 0).any()
    adv = AdaAD().perturb(ctx, batch, targets, Uniform().reach(ctx, batch, None))
    torch.testing.assert_close((adv - batch.x).abs().amax((1, 2, 3)), torch.full((2,), 0.1), rtol=0, atol=1e-6)


def test_the_teacher_is_asked_where_the_image_is():
    ctx, batch = setting()
    targets = TeacherEverywhere()(ctx, batch, None)
    np.testing.assert_allclose(targets.clean.detach(), softmax(TEACHER, batch.x), rtol=1e-6)
    np.testing.assert_allclose(targets.at(MOVED).detach(), softmax(TEACHER, MOVED), rtol=1e-6)
    assert not targets.clean.requires_grad


@pytest.mark.parametrize(("epoch", "begun"), [(59, False), (60, True)])
@pytest.mark.parametrize("t", [1.0, 30.0])
@pytest.mark.parametrize("released", [True, False])
def test_adaiad_by_the_formula(epoch, begun, t, released):
    ctx, batch = setting(epoch=epoch)
    found = AdaIAD(temperature=t, as_released=released).losses(ctx, batch, MOVED, TeacherEverywhere()(ctx, batch, None))
    told = t**2 * divergence(softmax(TEACHER, MOVED, t), softmax(STUDENT, MOVED, t))
    a = softmax(TEACHER, MOVED)[[0, 1], batch.y] ** 0.1 if begun else np.ones(2)  # t does not enter the trust
    own = (1 - a) * divergence(softmax(STUDENT, batch.x), softmax(STUDENT, MOVED))
    np.testing.assert_allclose(found.fit.detach(), told if released else a * told, rtol=2e-5, atol=2e-7 * t**2)
    np.testing.assert_allclose(found.smooth.detach(), own, rtol=2e-5, atol=1e-12)
    (found.fit + found.smooth).sum().backward()
    assert ctx.teacher().weight.grad is None


def test_adaiad_that_never_begins_is_adaad_bit_for_bit():
    batch = separable()
    rigs = [Rig.build(Recipe(o, TeacherEverywhere())) for o in (AdaIAD(temperature=1.0, begin=1.0), AdaAD())]
    a, b = (rig.step(batch) for rig in rigs)
    assert torch.equal(a.adv, b.adv)
    assert torch.equal(a.losses.fit, b.losses.smooth)
    assert torch.equal(a.loss, b.loss)


def test_presets_scale_as_the_release_does():
    for name, objectives in (("adaad", [AdaAD(scale=0.1), AdaAD()]), ("adaiad", [AdaIAD(), AdaIAD()])):
        plans = [compose(name, dataset=d, preset="paper") for d in ("cifar10", "cifar100")]
        assert [p.recipe.objective for p in plans] == objectives
        s = plans[0].schedule
        assert (s.epochs, s.first_epochs_of_drops(), s.weight_decay) == (200, [100, 150], 5e-4)
        assert s.selection == "best-robust"
        assert math.isclose(s.eps, 8 / 255)


@pytest.mark.parametrize(("kind", "field", "value"), [(AdaAD, "alpha", 1.001), (AdaIAD, "temperature", 0.0)])
def test_a_default_of_its_own_keeps_the_range(kind, field, value):
    with pytest.raises(BadRecipe, match=f"{kind.__name__}.{field} is {value}; it must"):
        kind(**{field: value})
