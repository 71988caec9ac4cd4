"""Losses of the objectives against their formulas, in float64 on logits that are given."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.randomness import Streams
from bench.training.recipe import OneHot, Uniform
from bench.training.values import Batch, Context, Reach, Targets, constant
from methods.natural import Natural
from methods.pgd_at import PGDAT
from methods.rslad import RSLAD, Teacher
from methods.trades import TRADES


class Table(nn.Module):
    """Logits by image: row 0 of the parameter for images of zeros, row 1 for images of ones."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows, dtype=torch.float64))
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return self.rows[x.flatten(1)[:, 0].round().long()]


CLEAN, ADV = [1.0, 0.2, -0.7], [-0.4, 0.9, 0.3]
SOFT = [0.6, 0.3, 0.1]


def softmax(z):
    e = np.exp(np.array(z))
    return e / e.sum()


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def setting(target):
    """A model that answers CLEAN at the clean image and ADV at the adversarial one; target (K,)."""
    model = Table([CLEAN, ADV])
    batch = Batch(torch.zeros(1, 1, 2, 2), torch.tensor([0]))
    wanted = torch.tensor([target], dtype=torch.float64)
    return model, batch, torch.ones(1, 1, 2, 2), Targets(wanted, constant(wanted))


def around(model):
    return Context(model, model, {}, 3, 0.1, 1, Streams(0, torch.arange(1)))


def value(losses):
    return losses.fit.item(), losses.smooth.item()


def test_natural_is_the_cross_entropy_of_the_clean_image():
    model, batch, adv, targets = setting([1, 0, 0])
    losses = Natural().losses(around(model), batch, adv, targets)
    assert value(losses) == pytest.approx((-math.log(softmax(CLEAN)[0]), 0), abs=1e-14)
    assert losses.logits_adv is None
    assert torch.equal(Natural().perturb(None, batch, targets, None), batch.x)


@pytest.mark.parametrize("target", [[1, 0, 0], SOFT])
def test_pgd_at_is_the_cross_entropy_of_the_adversarial_image(target):
    model, batch, adv, targets = setting(target)
    losses = PGDAT().losses(around(model), batch, adv, targets)
    assert value(losses) == pytest.approx((-(np.array(target) * np.log(softmax(ADV))).sum(), 0), abs=1e-14)
    assert losses.logits_clean is None


@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_trades_has_a_gradient_through_both_branches(beta):
    model, batch, adv, targets = setting([1, 0, 0])
    losses = TRADES(beta=beta).losses(around(model), batch, adv, targets)
    p, q = softmax(CLEAN), softmax(ADV)
    assert value(losses) == pytest.approx((-math.log(p[0]), beta * divergence(p, q)), abs=1e-14)
    (losses.fit + losses.smooth).sum().backward()
    # d CE / dz = p - onehot; d KL(p||q) / dz_adv = q - p; d KL(p||q) / dz_clean = p * (log(p/q) - KL)
    through_clean = (p - np.array([1, 0, 0])) + beta * p * (np.log(p / q) - divergence(p, q))
    torch.testing.assert_close(
        model.rows.grad, torch.tensor(np.stack([through_clean, beta * (q - p)])), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_rslad_is_five_sixths_adversarial_and_its_scale_is_that_of_both_parts(scale):
    model, batch, adv, targets = setting(SOFT)
    losses = RSLAD(scale=scale).losses(around(model), batch, adv, targets)
    wanted = (scale * divergence(SOFT, softmax(CLEAN)) / 6, scale * 5 * divergence(SOFT, softmax(ADV)) / 6)
    assert value(losses) == pytest.approx(wanted, abs=1e-14)
    (losses.fit + losses.smooth).sum().backward()
    gradient = np.stack([scale * (softmax(CLEAN) - SOFT) / 6, scale * 5 * (softmax(ADV) - SOFT) / 6])
    torch.testing.assert_close(model.rows.grad, torch.tensor(gradient), rtol=0, atol=1e-14)


def test_rslad_asks_for_the_adversarial_target_at_the_adversarial_image():
    model, batch, adv, _ = setting(SOFT)
    hard = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    asked = []
    targets = Targets(torch.tensor([SOFT], dtype=torch.float64), lambda at: asked.append(at) or hard)
    losses = RSLAD().losses(around(model), batch, adv, targets)
    assert asked[0] is adv
    assert losses.smooth.item() == pytest.approx(-5 / 6 * math.log(softmax(ADV)[1]))
    assert losses.fit.item() == pytest.approx(divergence(SOFT, softmax(CLEAN)) / 6)


class Linear(nn.Module):
    """Logits linear in the mean of the left and of the right half; remembers in which mode it was asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[2.0, -1.0], [-1.0, 0.5], [0.0, 1.0]]))
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        halves = torch.stack([x[..., :1].flatten(1).mean(1), x[..., 1:].flatten(1).mean(1)], 1)
        return halves @ self.weight.T


def context(model, teachers=None):
    ctx = Context(model, model, teachers or {}, 3, 0.1, 1, Streams(0, torch.arange(4)))
    return ctx, Batch(torch.full((4, 1, 2, 2), 0.5), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize(("objective", "training"), [(PGDAT(), True), (TRADES(), False), (RSLAD(), False)])
def test_the_inner_mode_is_the_released_one(objective, training):
    model = Linear().train()
    ctx, batch = context(model)
    objective.perturb(ctx, batch, OneHot()(ctx, batch, None), Uniform().reach(ctx, batch, None))
    assert set(model.modes) == {training}
    assert len(model.modes) == objective.inner.steps + isinstance(objective, TRADES)
    assert model.training


def test_pgd_at_climbs_the_cross_entropy_with_the_target():
    model = Linear()
    ctx, batch = context(model)
    adv = PGDAT().perturb(ctx, batch, OneHot()(ctx, batch, None), Uniform().reach(ctx, batch, None))
    # dCE/dhalf = W^T (p - onehot): its signs, reached in full after ten quarter steps
    p = model(batch.x).softmax(1).detach()
    signs = ((p - torch.eye(3)[batch.y]) @ model.weight.detach()).sign()
    torch.testing.assert_close(adv[:, 0, 0], 0.5 + 0.1 * signs, rtol=0, atol=1e-6)


def test_trades_climbs_away_from_its_own_prediction_and_ignores_the_label():
    ctx, batch = context(Linear())
    reach = Uniform().reach(ctx, batch, None)
    adv = TRADES().perturb(ctx, batch, OneHot()(ctx, batch, None), reach)
    other = Batch(batch.x, (batch.y + 1) % 3)
    assert torch.equal(adv, TRADES().perturb(ctx, other, OneHot()(ctx, other, None), reach))
    torch.testing.assert_close((adv - batch.x).abs().amax((1, 2, 3)), torch.full((4,), 0.1), rtol=0, atol=1e-6)


def test_rslad_climbs_away_from_the_teacher():
    ctx, batch = context(Linear())
    target = torch.tensor([[0.2, 0.7, 0.1]]).expand(4, 3)
    adv = RSLAD().perturb(
        ctx, batch, Targets(target, constant(target)), Reach(torch.full((4,), 0.1), torch.full((4,), 0.025))
    )
    signs = ((ctx.model(batch.x).softmax(1) - target) @ ctx.model.weight).sign().detach()
    torch.testing.assert_close(adv[:, 0, 0], 0.5 + 0.1 * signs, rtol=0, atol=1e-6)


def test_the_teacher_s_target_is_its_distribution_at_the_clean_image():
    teacher = Linear().eval()
    ctx, batch = context(Linear(), {"teacher": teacher})
    targets = Teacher()(ctx, batch, None)
    torch.testing.assert_close(targets.clean, teacher(batch.x).softmax(1))
    assert targets.at(batch.x + 0.3) is targets.clean
    assert not targets.clean.requires_grad
