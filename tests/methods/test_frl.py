from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance.rig import Rig, separable
from bench.errors import BadRecipe
from bench.randomness import Streams
from bench.training.method import compose
from bench.training.recipe import Recipe
from bench.training.values import Batch, Context, Losses, Tally
from methods.frl import FRL, Multipliers
from methods.trades import TRADES

COUNT, CLEAN, ADV = np.array([10.0, 20.0, 20.0]), np.array([5.0, 18.0, 19.0]), np.array([4.0, 4.0, 16.0])


def held(count=COUNT, clean=CLEAN, adv=ADV):
    made = Tally.zeros(len(count))
    made.count = made.count_clean = made.count_adv = torch.tensor(count).float()
    made.hits_clean, made.hits_adv = torch.tensor(clean).float(), torch.tensor(adv).float()
    return made


def context(tally=None, classes=3):
    model = nn.Linear(1, 1)
    ctx = Context(model, nn.Linear(1, 1), {}, classes, 0.1, 1, Streams(0, torch.arange(4)))
    ctx.validate = {model: tally}.__getitem__  # only the trained weights may be asked about
    return ctx


def after(rule, state, tally, classes=3):
    return rule.end_epoch(context(tally, classes), state, Tally.zeros(classes))


START = Multipliers(torch.tensor([0.01, 0.02, 0.0]), torch.tensor([0.0, 0.03, 0.01]), torch.tensor([-0.1, 0.2, 0.0]))


def test_multipliers_move_with_the_excess_errors():
    # clean errors .5, .1, .05 of the classes and 8/50 of all; boundary errors .1, .7, .15 and 18/50
    g0 = np.array([0.5, 0.1, 0.05]) - 0.16 - 0.07
    g1 = np.array([0.1, 0.7, 0.15]) - 0.36 - 0.07
    got = after(FRL(), START, held())
    np.testing.assert_allclose(got.clean, (START.clean.double().numpy() + 0.05 * g0).clip(0), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(got.boundary, (START.boundary.double().numpy() + 0.1 * g1).clip(0), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(got.margin, START.margin.double().numpy() + 0.2 * g1, rtol=1e-5)


def test_multipliers_of_a_kind_sum_to_a_half_at_most():
    got = after(FRL(rate=1, slack=0.0), Multipliers(*torch.full((3, 3), 1.0)), held())
    l0 = 1 + np.array([0.5, 0.1, 0.05]) - 0.16
    np.testing.assert_allclose(got.clean, 0.5 * l0 / l0.sum(), rtol=1e-6)
    assert got.boundary.sum().item() == pytest.approx(0.5)
    assert got.margin.sum() > 2


def test_reweighing_alone_leaves_the_radii():
    got = after(FRL(remargin=0, slack=0.1), Multipliers(*torch.zeros(3, 3)), held())
    assert got.margin.tolist() == [0, 0, 0]
    assert got.clean[0].item() == pytest.approx(0.05 * (0.5 - 0.16 - 0.1), rel=1e-5)


def test_weights_are_relative_to_the_batch():
    # L = sum w0 CE / sum w0 + beta sum w1 KL / sum w1, w_k = 1/K + l_k - sum(l) / K
    y = np.array([0, 1, 2, 1])
    losses = Losses(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0.25, 1.0, 2.0]), None, None)
    weights = FRL().weigh(context(), Batch(torch.zeros(4), torch.tensor(y)), losses, START)
    got = (weights.fit * losses.fit + weights.smooth * losses.smooth).mean().item()
    w0, w1 = ((1 / 3 + m - m.sum() / 3)[y] for m in (START.clean.double().numpy(), START.boundary.double().numpy()))
    ce, smooth = losses.fit.double().numpy(), losses.smooth.double().numpy()
    assert got == pytest.approx((w0 * ce).sum() / w0.sum() + (w1 * smooth).sum() / w1.sum(), rel=1e-6)


def test_radii_follow_the_margin_within_bounds():
    state = START._replace(margin=torch.tensor([-0.1, 0.2, 0.9]))
    reach = FRL().reach(context(), Batch(torch.zeros(3), torch.tensor([0, 1, 2])), state)
    wide = np.array([0.98, np.exp(0.4), 3.0])
    np.testing.assert_allclose(reach.eps, 0.1 * wide, rtol=1e-6)
    np.testing.assert_allclose(reach.step, 0.025 * wide, rtol=1e-6)
    # the release steps every image of a batch by a quarter of the largest of their radii
    assert not np.allclose(reach.step, 0.025 * wide.max())


def test_a_class_without_images_and_two_classes():
    got = after(FRL(), Multipliers(*torch.full((3, 2), 0.1)), held([4, 0], [2, 0], [1, 0]), classes=2)
    # the class that is there errs as everyone does: only the slack is left
    np.testing.assert_allclose(got.clean, [0.1 - 0.05 * 0.07, 0.1], rtol=1e-6)
    np.testing.assert_allclose(got.margin, [0.1 - 0.2 * 0.07, 0.1], rtol=1e-6)


def trained(recipe):
    """Everything but the slots' states after two epochs of two steps."""
    rig, batch = Rig.build(recipe), separable()
    for _ in range(2):
        rig.step(batch)
        rig.step(batch)
        rig.ctx.validate = {rig.ctx.model: held([10, 20, 20, 10], [5, 18, 19, 9], [4, 4, 16, 2])}.__getitem__
        rig.budget = recipe.budget.end_epoch(rig.ctx, rig.budget, Tally.zeros(4))
    return {name: value for name, value in rig.state().items() if not name.startswith("budget")}


def test_without_rates_it_is_trades_bit_for_bit():
    objective = TRADES(beta=1.5)
    base, same = trained(Recipe(objective)), trained(Recipe(objective, budget=FRL(rate=0, remargin=0)))
    assert all(torch.equal(same[name], value) for name, value in base.items())
    other = trained(Recipe(objective, budget=FRL(rate=1, slack=-0.1)))
    assert not all(torch.equal(other[name], value) for name, value in base.items())


@pytest.mark.parametrize(("dataset", "preset"), [("cifar10", "paper"), ("svhn", "short"), ("digits", "digits")])
def test_it_goes_on_from_a_start_with_its_own_beta(dataset, preset):
    plan = compose("frl", dataset=dataset, preset=preset)
    assert plan.teachers == ("start",)
    assert plan.recipe.objective == TRADES(beta=1.5)
    assert plan.recipe.budget == FRL()
    assert compose("trades+frl", dataset=dataset, preset=preset).recipe.objective == TRADES()


@pytest.mark.parametrize(
    "settings", [{"rate": -1}, {"remargin": -1}, {"most": 0}, {"radii": (-1.0, 3.0)}, {"step": -1}]
)
def test_fields_out_of_range_are_refused(settings):
    with pytest.raises(BadRecipe):
        FRL(**settings)
