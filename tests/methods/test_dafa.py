from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from bench.conformance.rig import Rig, separable
from bench.errors import BadRecipe
from bench.randomness import Streams
from bench.training.method import compose
from bench.training.recipe import Recipe
from bench.training.values import Batch, Context, Losses, Tally
from methods.dafa import DAFA
from methods.pgd_at import PGDAT
from methods.trades import TRADES

P = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.15, 0.6]]


def context(epoch=0, epochs=110, classes=3):
    model = nn.Linear(1, 1)
    return Context(model, model, {}, classes, 0.1, epochs, Streams(0, torch.arange(4)), epoch=epoch)


def tally(rows, count):
    made = Tally.zeros(len(rows))
    made.count = made.count_adv = torch.tensor(count, dtype=torch.float32)
    made.prob_adv = torch.tensor(rows) * made.count[:, None]
    return made


def by_the_rule(p, strength):
    """The paper's double loop, in float64."""
    w = np.ones(len(p))
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j:
                w[i] += strength * (p[i, j] * p[j, j] if p[i, i] < p[j, j] else -p[j, i] * p[i, i])
    return w


def test_by_hand():
    # class 0 is the hardest: + 0.3 * 0.8 + 0.2 * 0.6; class 1 the easiest: - 0.3 * 0.8 - 0.15 * 0.8;
    # class 2 in between: - 0.2 * 0.6 to class 0, + 0.15 * 0.8 from class 1
    wanted = [1 + 0.24 + 0.12, 1 - 0.24 - 0.12, 1 - 0.12 + 0.12]
    got = DAFA(begin=0).end_epoch(context(), torch.ones(3), tally(P, [10, 20, 30]))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    half = DAFA(begin=0, strength=0.5).end_epoch(context(), torch.ones(3), tally(P, [10, 20, 30]))
    np.testing.assert_allclose(half, 1 + (np.array(wanted) - 1) / 2, rtol=1e-6)


@given(st.integers(2, 8), st.floats(0, 1.5), st.integers(0, 2**31))
def test_it_is_the_double_loop_and_what_one_class_gains_another_gives(classes, strength, seed):
    p = torch.rand((classes, classes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p /= p.sum(1, keepdim=True)
    wanted = by_the_rule(p.numpy(), strength)
    np.testing.assert_allclose(DAFA(strength=strength).weights(p), wanted.clip(0), atol=1e-12)
    assert wanted.sum() == pytest.approx(classes)


def test_a_class_without_images_trades_nothing():
    rows = torch.tensor([[0.7, 0.1, 0.2], [0.0, 0.0, 0.0], [0.3, 0.1, 0.6]])
    got = DAFA().weights(rows)
    np.testing.assert_allclose(got, [1 - 0.3 * 0.7, 1, 1 + 0.3 * 0.7], rtol=1e-6)


def test_a_radius_is_never_below_0():
    got = DAFA(strength=100).weights(torch.tensor(P))
    assert got.min() == 0


@pytest.mark.parametrize(("epochs", "first"), [(110, 69), (40, 25), (2, 1), (1, 0)])
def test_it_is_computed_once_at_the_end_of_the_epoch_that_passes_its_begin(epochs, first):
    before = torch.ones(3)
    seen = []
    for epoch in range(epochs):
        after = DAFA().end_epoch(context(epoch, epochs), before, tally(P, [10, 10, 10]))
        seen += [epoch] if after is not before else []
    assert seen == [first]  # counted from 0: epoch 70 of 110


def test_radius_step_and_fit_are_the_class_s_and_the_divergence_is_not():
    w = torch.tensor([1.36, 0.64, 1.0])
    batch = Batch(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 2, 0]))
    reach = DAFA(step=0.2).reach(context(), batch, w)
    np.testing.assert_allclose(reach.eps, [0.136, 0.064, 0.1, 0.136], rtol=1e-6)
    np.testing.assert_allclose(reach.step, [0.0272, 0.0128, 0.02, 0.0272], rtol=1e-6)
    weights = DAFA().weigh(context(), batch, Losses(torch.zeros(4), torch.zeros(4), None, None), w)
    assert torch.equal(weights.fit, w[batch.y])
    assert weights.smooth.tolist() == [1, 1, 1, 1]


def trained(recipe):
    """Everything but the slots' states after two epochs of two steps, in the second of which w could hold."""
    rig, batch = Rig.build(recipe), separable()
    for _ in range(2):
        rig.step(batch)
        rig.end_epoch(batch, rig.step(batch))
    return {name: value for name, value in rig.state().items() if not name.startswith("budget")}


@pytest.mark.parametrize("objective", [TRADES(), PGDAT()])
def test_strength_0_is_the_method_below(objective):
    base, same = trained(Recipe(objective)), trained(Recipe(objective, budget=DAFA(strength=0, begin=0)))
    assert all(torch.equal(same[name], value) for name, value in base.items())
    other = trained(Recipe(objective, budget=DAFA(strength=1, begin=0)))
    assert not all(torch.equal(other[name], value) for name, value in base.items())


def test_the_paper_s_setting():
    plan = compose("dafa", dataset="cifar100", preset="paper")
    assert plan.recipe.budget == DAFA(step=0.007 / 0.031, strength=1.5)
    assert plan.recipe.objective == TRADES()
    assert plan.schedule.first_epochs_of_drops() == [99, 104]
    assert compose("pgd-at+dafa", dataset="cifar10", preset="paper").recipe.objective == PGDAT()


@pytest.mark.parametrize("settings", [{"strength": -1}, {"begin": 1.1}, {"step": -1}])
def test_fields_out_of_range_are_refused(settings):
    with pytest.raises(BadRecipe):
        DAFA(**settings)
