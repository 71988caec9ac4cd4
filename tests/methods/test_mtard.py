from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance.rig import Rig, separable
from bench.errors import BadRecipe
from bench.randomness import Streams
from bench.training.method import compose
from bench.training.recipe import Recipe, Uniform
from bench.training.values import Batch, Context, Losses
from methods.mtard import MTARD, Balance, TwoTeachers


class Table(nn.Module):
    """The first row of logits at images of zeros, the second at images of ones."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows, dtype=torch.float64))

    def forward(self, x):
        return self.rows[x.flatten(1)[:, 0].long()]


STUDENT, ROBUST, NATURAL = [[1.0, 0.2], [-0.4, 0.9]], [[2.0, 0.0], [0.5, 0.8]], [[5.0, -1.0], [-2.0, 3.0]]


def context(drops=0):
    model = Table(STUDENT)
    teachers = {"teacher": Table(ROBUST).eval(), "natural": Table(NATURAL).eval()}
    return Context(model, model, teachers, 2, 0.1, 1, Streams(0, torch.arange(1)), drops=drops)


def softmax(z):
    e = np.exp(np.array(z))
    return e / e.sum()


def divergence(p, q):
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_each_teacher_is_asked_where_it_is_strong(scale):
    ctx, batch, adv = context(), Batch(torch.zeros(1, 1, 2, 2), torch.tensor([1])), torch.ones(1, 1, 2, 2)
    targets = TwoTeachers()(ctx, batch, None)
    found = MTARD(scale=scale).losses(ctx, batch, adv, targets)
    assert found.fit.item() == pytest.approx(scale * divergence(softmax(NATURAL[0]), softmax(STUDENT[0])), rel=1e-5)
    assert found.smooth.item() == pytest.approx(scale * divergence(softmax(ROBUST[1]), softmax(STUDENT[1])), rel=1e-5)
    (found.fit + found.smooth).sum().backward()
    assert all(teacher.rows.grad is None for teacher in ctx.teachers.values())


def parts(clean, adv):
    """Losses of two images with these means."""
    spread = torch.tensor([-0.25, 0.25])
    return Losses(clean + spread * clean, adv + spread * adv, None, None)


@pytest.mark.parametrize(("drops", "rate"), [(0, 0.025), (1, 0.0025), (3, 0.000025)])
def test_weights_follow_the_part_that_has_fallen_less(drops, rate):
    ctx, rule = context(drops), Balance()
    state, w, first = rule.init(ctx), 0.5, None
    for clean, adv in ((2.0, 4.0), (1.0, 3.0), (0.5, 4.4), (0.1, 0.3)):
        now = parts(clean, adv)
        weights = rule.weigh(ctx, None, now, state)
        state = rule.end_step(ctx, state, now)
        first = first or (clean, adv)
        l_n, l_a = clean / first[0], adv / first[1]
        w = w - rate * (w - l_n / (l_n + l_a))
        np.testing.assert_allclose(weights.fit, [w, w], rtol=1e-6)
        np.testing.assert_allclose(weights.smooth, [1 - w, 1 - w], rtol=1e-6)
        np.testing.assert_allclose(state.weights, [w, 1 - w], rtol=1e-6)  # what was weighed with is what is kept
        np.testing.assert_allclose(state.first, first, rtol=1e-6)
    assert w < 0.5  # the clean loss fell further


def test_the_first_step_is_even_to_the_bit_and_nothing_carries_a_graph():
    ctx, rule = context(), Balance(rate=1.0)
    now = parts(torch.tensor(0.3, requires_grad=True), torch.tensor(0.0017))
    weights = rule.weigh(ctx, None, now, rule.init(ctx))
    assert weights.fit.tolist() == weights.smooth.tolist() == [0.5, 0.5]
    assert not weights.fit.requires_grad
    assert not rule.end_step(ctx, rule.init(ctx), now).weights.requires_grad


def test_losses_of_zero_leave_the_weights_even():
    ctx, rule = context(), Balance(rate=1.0)
    state = rule.end_step(ctx, rule.init(ctx), parts(0.0, 0.0))
    assert state.weights.tolist() == [0.5, 0.5]
    assert rule.end_step(ctx, state, parts(2.0, 3.0)).weights.tolist() == [0.5, 0.5]  # the first that is one counts


@pytest.mark.parametrize("present", [(0, 1, 2, 3), (0, 2)])
def test_equal_teachers_and_frozen_weights_are_half_and_half_bit_for_bit(present):
    def rig(budget):
        made = Rig.build(Recipe(MTARD(), TwoTeachers(), budget))
        made.ctx.teachers["natural"] = made.ctx.teachers["teacher"]
        return made

    batch = separable()
    rows = torch.isin(batch.y, torch.tensor(present))
    batch = Batch(batch.x[rows], batch.y[rows])
    frozen, plain = rig(Balance(rate=0.0)), rig(Uniform())
    for done in range(3):
        plain.restore(frozen.state(), done)
        a, b = frozen.step(batch), plain.step(batch)
        assert torch.equal(a.adv, b.adv)
        assert torch.equal(a.loss, 0.5 * (b.losses.fit + b.losses.smooth).mean())


def test_the_balance_moves_the_weights_in_training_and_starts_again_from_its_state():
    rig, batch = Rig.build(replace(compose("mtard", dataset="digits").recipe, budget=Balance(rate=0.5))), separable()
    rig.step(batch)
    assert rig.budget.weights.tolist() == [0.5, 0.5]
    rig.step(batch)
    assert rig.budget.weights[0] != 0.5
    assert rig.budget.weights.sum() == 1


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_out_of_range(rate):
    with pytest.raises(BadRecipe, match="must"):
        Balance(rate=rate)


def test_presets_are_the_release_s_scale():
    for dataset in ("cifar10", "cifar100"):
        plan = compose("mtard", dataset=dataset, preset="paper")
        s = plan.schedule
        assert plan.recipe.objective.scale == 0.1
        assert (s.epochs, s.first_epochs_of_drops(), s.weight_decay) == (300, [215, 260, 285], 2e-4)
        assert s.selection == "best-mean-clean-robust"
        assert plan.teachers == ("teacher", "natural")
