"""FAAL: the worst distribution against a general solver and its optimality conditions, and the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bench.conformance.rig import Rig, separable
from bench.errors import BadRecipe
from bench.randomness import Streams
from bench.training.method import compose
from bench.training.recipe import Recipe
from bench.training.values import Batch, Context, Losses
from methods.faal import FAAL, worst_distribution
from methods.pgd_at import PGDAT
from methods.trades import TRADES


def solved(gain, radius):
    """q, by a solver that knows nothing of the dual."""
    k = len(gain)
    scale = np.abs(gain).max()
    result = minimize(
        lambda q: -(gain @ q) / scale,
        np.full(k, 1 / k),
        jac=lambda q: -gain / scale,
        method="SLSQP",
        bounds=[(1e-9, 1)] * k,
        constraints=[
            {"type": "eq", "fun": lambda q: q.sum() - 1, "jac": lambda q: np.ones(k)},
            {"type": "ineq", "fun": lambda q: radius + np.log(k * q).mean(), "jac": lambda q: 1 / (k * q)},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert result.success
    return result.x


def found(gain, radius):
    return worst_distribution(torch.tensor(gain, dtype=torch.float64), radius).numpy() / len(gain)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("radius", [0.05, 0.5, 2.0])
def test_it_is_what_a_general_solver_finds(classes, radius):
    for seed in range(3):
        gain = np.random.default_rng(seed).normal(size=classes) * 10 ** (seed - 1)
        ours, theirs = found(gain, radius), solved(gain, radius)
        assert gain @ ours >= gain @ theirs - 1e-7 * np.abs(gain).max()
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("classes", [2, 3, 10, 200])
@pytest.mark.parametrize("radius", [1e-6, 0.5, 2.0])
def test_the_optimality_conditions_hold(classes, radius):
    gain = np.random.default_rng(classes).normal(size=classes)
    q = found(gain, radius)
    assert q.sum() == pytest.approx(1, abs=1e-14)
    assert -np.log(classes * q).mean() == pytest.approx(radius, rel=1e-7)  # KL(u || q) = r: the ball is used up
    # g_k + lam u_k / q_k = nu for all k, with lam > 0: 1 / q falls linearly in g
    lam, nu = np.linalg.lstsq(np.stack([-1 / (classes * q), np.ones(classes)], 1), gain, rcond=None)[0]
    assert lam > 0
    np.testing.assert_allclose(gain + lam / (classes * q), nu, rtol=0, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 10, 49])
def test_no_radius_is_no_preference_to_the_bit(classes):
    gain = torch.randn(classes, generator=torch.Generator().manual_seed(0))
    assert worst_distribution(gain, 0.0).tolist() == [1.0] * classes


def test_equal_gains_are_equal_weights_and_ties_share():
    assert worst_distribution(torch.full((5,), -3.0), 0.5).tolist() == [1.0] * 5
    tied = found([1.0] * 9 + [0.0], 3.0)  # all but one at the top: the one must fall to e^-30 of its share or so
    assert np.ptp(tied[:9]) == 0
    assert -np.log(10 * tied).mean() == pytest.approx(3)


LOGITS = [[1.0, 0.5, -1.0], [2.0, 0.2, 0.1], [0.0, -0.3, 0.9], [1.2, 0.4, 0.0]]
Y = [0, 1, 0, 1]


def weights(rule, logits, y):
    made = torch.tensor(logits)
    ctx = Context(torch.nn.Identity(), torch.nn.Identity(), {}, 3, 0.1, 1, Streams(0, torch.arange(len(y))))
    batch = Batch(torch.zeros(len(y), 1, 2, 2), torch.tensor(y))
    one = torch.ones(len(y))
    found = rule.weigh(ctx, batch, Losses(one, one, None, made.requires_grad_()), None)
    assert torch.equal(found.fit, found.smooth)
    assert not found.fit.requires_grad
    assert found.fit.dtype == torch.float32
    return found.fit.numpy()


def test_images_weigh_k_q_of_their_class_and_an_absent_class_gains_nothing():
    p = np.exp(np.array(LOGITS))
    p /= p.sum(1, keepdims=True)
    margins = [max(np.delete(row, y)) - row[y] for row, y in zip(p, Y, strict=True)]
    # count times mean: 2 (m_0 + m_2) / 2 and 2 (m_1 + m_3) / 2; class 2 is absent
    gain = np.array([margins[0] + margins[2], margins[1] + margins[3], 0])
    np.testing.assert_allclose(weights(FAAL(radius=0.5), LOGITS, Y), 3 * solved(gain, 0.5)[Y], atol=1e-4)
    assert weights(FAAL(radius=0), LOGITS, Y).tolist() == [1, 1, 1, 1]


def test_a_single_image():
    weight = weights(FAAL(radius=0.5), LOGITS[1:2], [1])
    gain = np.array([0, (lambda e: (e[0] - e[1]) / e.sum())(np.exp(LOGITS[1])), 0])
    np.testing.assert_allclose(weight, 3 * solved(gain, 0.5)[1], atol=1e-4)


def test_an_objective_without_adversarial_images_is_refused():
    rig, batch = Rig.build(Recipe(PGDAT(), budget=FAAL())), separable()
    one = torch.ones(16)
    with pytest.raises(BadRecipe, match="no adversarial"):
        rig.recipe.budget.weigh(rig.ctx, batch, Losses(one, one, torch.zeros(16, 4), None), None)


@pytest.mark.parametrize("objective", [PGDAT(), TRADES()])
def test_no_radius_trains_as_the_method_below_bit_for_bit(objective):
    rigs = [Rig.build(Recipe(objective)), Rig.build(Recipe(objective, budget=FAAL(radius=0)))]
    batch = separable()
    for rig in rigs:
        for _ in range(3):
            rig.end_epoch(batch, rig.step(batch))
    first, second = (rig.state() for rig in rigs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_paper_s_setting():
    plan = compose("faal", dataset="cifar10", preset="paper")
    assert (plan.schedule.epochs, plan.schedule.lr, plan.schedule.first_epochs_of_drops()) == (2, 0.01, [1])
    assert plan.recipe.objective.inner.mode == "eval"
    assert plan.recipe.budget.radius == 0.5
    assert plan.teachers == ("start",)
    assert isinstance(compose("faal+trades", dataset="digits").recipe.objective, TRADES)
    assert compose("faal+trades", dataset="digits").schedule.epochs == 10
