from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.randomness import Streams
from bench.training.recipe import OneHot, Uniform
from bench.training.values import Batch, Context, Targets, constant
from methods.mart import MART
from methods.pgd_at import PGDAT

CLEAN, ADV = [1.0, 0.2, -0.7], [-0.4, 0.9, 0.3]


class Table(nn.Module):
    """Logits by image: row 0 of the parameter for images of zeros, row 1 for images of ones."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows, dtype=torch.float64))

    def forward(self, x):
        return self.rows[x.flatten(1)[:, 0].round().long()]


def softmax(z):
    e = np.exp(np.array(z))
    return e / e.sum()


def losses(objective, clean, adv, y, target=None):
    model = Table(clean, adv)
    ctx = Context(model, model, {}, len(clean), 0.1, 1, Streams(0, torch.arange(1)))
    wanted = torch.tensor(np.eye(len(clean))[y] if target is None else target, dtype=torch.float64)[None]
    batch = Batch(torch.zeros(1, 1, 2, 2), torch.tensor([y]))
    return model, objective.losses(ctx, batch, torch.ones(1, 1, 2, 2), Targets(wanted, constant(wanted)))


def formula(clean, adv, y, beta, floor):
    """-log q_y - log(1 + floor - max_{k != y} q_k) and beta * KL(p || q) * (1 - p_y)."""
    p, q = softmax(clean), softmax(adv)
    fit = -math.log(q[y]) - math.log(1 + floor - np.delete(q, y).max())
    return fit, beta * (p * np.log(p / q)).sum() * (1 - p[y])


@pytest.mark.parametrize("y", [0, 1, 2])
@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_the_loss_is_the_paper_s_and_with_a_floor_the_release_s(y, floor):
    _, got = losses(MART(beta=5, floor=floor), CLEAN, ADV, y)
    assert (got.fit.item(), got.smooth.item()) == pytest.approx(formula(CLEAN, ADV, y, 5, floor), rel=1e-12)
    if floor:  # the release's own small constants change no more than this
        p, q = softmax(CLEAN), softmax(ADV)
        rival = np.delete(q, y).max()
        released = (
            -math.log(q[y]) - math.log(1.0001 - rival + 1e-12),
            5 * (p * (np.log(p) - np.log(q + 1e-12))).sum() * (1.0000001 - p[y]),
        )
        assert (got.fit.item(), got.smooth.item()) == pytest.approx(released, rel=1e-6)


def test_two_classes_make_the_fit_twice_the_cross_entropy():
    _, got = losses(MART(), [0.3, -0.2], [1.0, 2.5], 0)
    assert got.fit.item() == pytest.approx(2 * math.log(1 + math.exp(1.5)), rel=1e-12)


def test_the_gradient_passes_through_the_weight_and_through_both_branches():
    model, got = losses(MART(beta=5), CLEAN, ADV, 0)
    got.smooth.sum().backward()
    p, q, label = softmax(CLEAN), softmax(ADV), np.eye(3)[0]
    divergence = (p * np.log(p / q)).sum()
    # d KL / dz = p (log(p/q) - KL); d (1 - p_y) / dz = -p_y (onehot - p); d KL / dz_adv = q - p
    clean = 5 * ((1 - p[0]) * p * (np.log(p / q) - divergence) - divergence * p[0] * (label - p))
    wanted = np.stack([clean, 5 * (1 - p[0]) * (q - p)])
    torch.testing.assert_close(model.rows.grad, torch.tensor(wanted), rtol=0, atol=1e-13)


def test_the_gradient_of_the_fit_pushes_the_rival_down():
    model, got = losses(MART(), CLEAN, ADV, 0)
    got.fit.sum().backward()
    q = softmax(ADV)
    rest = np.array([q[0], 0, q[2]]) / (q[0] + q[2])  # d -log(1 - q_1) / dz = q - softmax over the others
    torch.testing.assert_close(model.rows.grad[1], torch.tensor((q - np.eye(3)[0]) + (q - rest)), rtol=0, atol=1e-13)


def test_a_rival_believed_beyond_rounding_has_a_finite_loss_and_gradient():
    model, got = losses(MART(), CLEAN, [0.0, 800.0, 1.0], 0)
    got.fit.sum().backward()
    assert got.fit.item() == pytest.approx(800 + 800 - math.log(1 + math.e))
    assert bool(model.rows.grad.isfinite().all())
    _, bounded = losses(MART(floor=1e-4), CLEAN, [0.0, 800.0, 1.0], 0)
    assert bounded.fit.item() == pytest.approx(800 - math.log(1e-4))


def test_a_soft_target_enters_the_cross_entropy_alone():
    soft = [0.6, 0.3, 0.1]
    _, hard = losses(MART(), CLEAN, ADV, 0)
    _, got = losses(MART(), CLEAN, ADV, 0, soft)
    log_q = np.log(softmax(ADV))
    assert (got.fit - hard.fit).item() == pytest.approx(log_q[0] - (soft * log_q).sum())
    assert torch.equal(got.smooth, hard.smooth)


def test_without_the_penalty_nothing_is_smooth():
    _, got = losses(MART(beta=0), CLEAN, ADV, 0)
    assert got.smooth.tolist() == [0]


def test_it_climbs_the_cross_entropy_as_pgd_at_does():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.arange(12).reshape(3, 4).sin())
        model[1].bias.zero_()
    ctx = Context(model, model, {}, 3, 0.1, 1, Streams(0, torch.arange(4)))
    batch = Batch(torch.full((4, 1, 2, 2), 0.5), torch.tensor([0, 1, 2, 0]))
    targets, reach = OneHot()(ctx, batch, None), Uniform().reach(ctx, batch, None)
    objective = MART()
    assert (objective.inner.start, objective.inner.mode) == ("gaussian", "eval")
    adv = objective.perturb(ctx, batch, targets, reach)
    assert torch.equal(adv, PGDAT(inner=objective.inner).perturb(ctx, batch, targets, reach))
