from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance.rig import Rig, separable
from bench.errors import BadRecipe
from bench.randomness import Streams
from bench.training.method import compose
from bench.training.recipe import Recipe, Uniform
from bench.training.values import Batch, Context, Losses, Tally
from methods.trades import TRADES
from methods.wat import WAT, Accounts

CE, KL, COUNT = [0.5, 2.0, 1.0], [0.1, 0.3, 0.2], [10, 30, 20]


def held(ce=CE, kl=KL, count=COUNT):
    made = Tally.zeros(len(ce))
    made.count = made.count_clean = made.count_adv = torch.tensor(count, dtype=torch.float32)
    made.ce_clean, made.divergence = torch.tensor(ce) * made.count, torch.tensor(kl) * made.count
    return made


def context(tally=None, classes=3):
    model = nn.Linear(1, 1)
    asked = []
    ctx = Context(model, nn.Linear(1, 1), {}, classes, 0.1, 1, Streams(0, torch.arange(4)))
    ctx.validate = lambda network: asked.append(network) or tally
    return ctx, asked


def costs_by_hand():
    """CE + 6 KL per class and over the 60 images, in float64."""
    ce, kl, n = np.array(CE), np.array(KL), np.array(COUNT)
    return np.append(ce + 6 * kl, ((ce + 6 * kl) * n).sum() / n.sum())


def test_it_begins_as_twice_trades():
    ctx, _ = context()
    state = WAT().init(ctx)
    assert state.costs.tolist() == [0, 0, 0, 0]
    assert state.weights.tolist() == [1, 1, 1, 1]
    weights = WAT().weigh(
        ctx, Batch(torch.zeros(2), torch.tensor([0, 2])), Losses(*torch.zeros(2, 2), None, None), state
    )
    assert weights.fit.tolist() == weights.smooth.tolist() == [2, 2]


def test_costs_add_up_and_the_weights_are_k_times_their_softmax():
    ctx, asked = context(held())
    first = WAT().end_epoch(ctx, WAT().init(ctx), Tally.zeros(3))
    second = WAT().end_epoch(ctx, first, Tally.zeros(3))
    assert asked == [ctx.model, ctx.model]
    c = costs_by_hand()
    for epochs, state in ((1, first), (2, second)):
        np.testing.assert_allclose(state.costs, epochs * c, rtol=1e-6)
        v = np.exp(0.1 * epochs * c)
        np.testing.assert_allclose(state.weights, 3 * v / v.sum(), rtol=1e-6)
    # the release divides each sum by the images of whole batches, here 64 / 3 a class instead of its own count
    released = np.append(np.array(CE) + 6 * np.array(KL), 0)[:3] * np.array(COUNT) / (64 / 3)
    assert not np.allclose(first.costs[:3], released, rtol=1e-2)


def test_an_image_counts_by_its_class_and_by_the_mean():
    ctx, _ = context()
    state = Accounts(torch.zeros(4), torch.tensor([0.2, 1.5, 0.8, 0.5]))
    y = torch.tensor([1, 0, 2, 1])
    losses = Losses(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0.25, 1.0, 2.0]), None, None)
    weights = WAT().weigh(ctx, Batch(torch.zeros(4), y), losses, state)
    loss = (weights.fit * losses.fit + weights.smooth * losses.smooth).mean().item()
    each = (losses.fit + losses.smooth).double().numpy()
    by_class = sum(v * each[y.numpy() == k].sum() / 4 for k, v in enumerate((0.2, 1.5, 0.8)))
    assert loss == pytest.approx(by_class + 0.5 * each.mean())


def test_accounts_of_any_size_give_numbers():
    ctx, _ = context(held(ce=[1e4, 0.0, 5e3]))
    state = WAT().end_epoch(ctx, WAT().init(ctx), Tally.zeros(3))
    np.testing.assert_allclose(state.weights, [3, 0, 0, 0], atol=1e-6)


def test_a_class_without_images_costs_nothing_and_two_classes_are_enough():
    ctx, _ = context(held(ce=[1.0, 0.0], kl=[0.5, 0.0], count=[4, 0]), classes=2)
    state = WAT().end_epoch(ctx, WAT().init(ctx), Tally.zeros(2))
    assert state.costs.tolist() == [4, 0, 4]
    e = math.exp(0.4)
    np.testing.assert_allclose(state.weights, np.array([2 * e, 2, 2 * e]) / (2 * e + 1), rtol=1e-6)


def made(budget):
    rig, batch = Rig.build(Recipe(TRADES(), budget=budget)), separable()
    rig.end_epoch(batch, rig.step(batch))
    return rig, batch


def test_equal_weights_are_a_multiple_of_trades():
    # eta 0 keeps the weights equal: in the second epoch v is 4/5 each, so every image counts 8/5
    (base, batch), (same, _) = made(Uniform()), made(WAT(eta=0))
    same.restore({n: v for n, v in base.state().items() if not n.startswith("budget")} | budget_of(same), 4)
    base.done = 4
    once, twice = base.step(batch), same.step(batch)
    assert torch.equal(once.adv, twice.adv)
    assert twice.loss.item() == pytest.approx(1.6 * once.loss.item(), rel=1e-6)


def budget_of(rig):
    return {name: value for name, value in rig.state().items() if name.startswith("budget")}


def test_the_first_step_is_exactly_twice_trades():
    batch = separable()
    once, twice = Rig.build(Recipe(TRADES())).step(batch), Rig.build(Recipe(TRADES(), budget=WAT())).step(batch)
    assert torch.equal(once.adv, twice.adv)
    assert torch.equal(2 * once.loss, twice.loss)


def test_the_paper_s_setting():
    plan = compose("wat", dataset="cifar10", preset="paper")
    assert plan.recipe.budget == WAT(step=0.007 / 0.031)
    assert plan.recipe.budget.beta == plan.recipe.objective.beta == 6
    assert plan.schedule.first_epochs_of_drops() == [74, 89, 99]
    assert plan.schedule.holdout * 50000 / 10 == 300


@pytest.mark.parametrize("settings", [{"eta": -1}, {"beta": -1}, {"step": -1}])
def test_fields_out_of_range_are_refused(settings):
    with pytest.raises(BadRecipe):
        WAT(**settings)
