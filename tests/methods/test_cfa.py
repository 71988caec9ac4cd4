from __future__ import annotations

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
from methods.cfa import CFA
from methods.fawa import FAWA
from methods.pgd_at import PGDAT
from methods.trades import TRADES

T = torch.tensor([0.25, 0.5, 0.75])
BATCH = Batch(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 2, 0]))
LOSSES = Losses(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.6, 1.2, 3.0, 6.0]), None, None)


def context(epoch=10, epochs=200):
    model = nn.Linear(1, 1)
    return Context(model, model, {}, 3, 0.1, epochs, Streams(0, torch.arange(4)), epoch=epoch)


def test_the_radius_is_the_class_s_and_the_step_is_not():
    reach = CFA(margin=0.3).reach(context(), BATCH, T)
    np.testing.assert_allclose(reach.eps, 0.1 * (0.3 + np.array([0.25, 0.5, 0.75, 0.25])), rtol=1e-6)
    np.testing.assert_allclose(reach.step, [0.025] * 4, rtol=1e-6)


def test_trades_is_a_mixture_by_the_class_s_beta():
    # L = [CE + b KL] / (1 + b), b = (lambda_2 + t) beta; the objective's smooth is 6 KL
    weights = CFA(beta=6).weigh(context(), BATCH, LOSSES, T)
    got = weights.fit * LOSSES.fit + weights.smooth * LOSSES.smooth
    b = 6 * (0.5 + np.array([0.25, 0.5, 0.75, 0.25]))
    ce, kl = LOSSES.fit.double().numpy(), LOSSES.smooth.double().numpy() / 6
    np.testing.assert_allclose(got, (ce + b * kl) / (1 + b), rtol=1e-6)


def test_adversarial_training_has_nothing_to_trade():
    weights = CFA().weigh(context(), BATCH, LOSSES, T)
    assert weights.fit.tolist() == weights.smooth.tolist() == [1, 1, 1, 1]


def tally(hits, count):
    made = Tally.zeros(len(hits))
    made.count_adv, made.hits_adv = torch.tensor(count).float(), torch.tensor(hits).float()
    return made


def test_t_is_the_share_of_the_class_s_own_images():
    got = CFA().end_epoch(context(), T, tally([5, 0, 30], [10, 0, 40]))
    np.testing.assert_allclose(got, [0.5, 0, 0.75], rtol=1e-6)
    released = 3 * np.array([5, 0, 30]) / 50  # K hits over all images: above 1 for the largest class
    np.testing.assert_allclose(released, [0.3, 0, 1.8])


@pytest.mark.parametrize(("epochs", "first"), [(200, 10), (100, 5), (40, 2), (30, 2), (2, 1)])
def test_it_begins_at_epoch_10_of_200(epochs, first):
    calibrated = [epoch for epoch in range(epochs) if CFA().calibrated(context(epoch, epochs))]
    assert calibrated == list(range(first, epochs))
    assert not CFA(begin=0).calibrated(context(0, epochs))  # no epoch before it


def test_a_class_of_neutral_accuracy_is_the_method_below_bit_for_bit():
    neutral = torch.full((3,), 0.5)
    reach, base = CFA().reach(context(), BATCH, neutral), Uniform().reach(context(), BATCH, None)
    assert torch.equal(reach.eps, base.eps)
    assert torch.equal(reach.step, base.step)
    # and TRADES's own loss over 1 + beta, as both parts have one weight
    weights = CFA(beta=6).weigh(context(), BATCH, LOSSES, neutral)
    assert torch.equal(weights.fit, weights.smooth)
    np.testing.assert_allclose(weights.fit, [1 / 7] * 4, rtol=1e-6)


def trained(recipe):
    """Everything but the slots' states after two epochs of two steps."""
    rig, batch = Rig.build(recipe), separable()
    for _ in range(2):
        rig.step(batch)
        rig.end_epoch(batch, rig.step(batch))
        rig.done = 4
    return {name: value for name, value in rig.state().items() if not name.startswith("budget")}


@pytest.mark.parametrize("objective", [PGDAT(), TRADES()])
def test_before_it_begins_it_is_the_method_below_bit_for_bit(objective):
    base, same = trained(Recipe(objective)), trained(Recipe(objective, budget=CFA(beta=6, begin=1)))
    assert all(torch.equal(same[name], value) for name, value in base.items())
    other = trained(Recipe(objective, budget=CFA(beta=6)))
    assert not all(torch.equal(other[name], value) for name, value in base.items())


def test_presets_know_the_company():
    assert compose("cfa", dataset="cifar10", preset="paper").recipe.budget == CFA()
    for name in ("cfa+trades", "trades+cfa"):
        for dataset, preset in (("cifar10", "paper"), ("svhn", "short"), ("digits", "digits")):
            recipe = compose(name, dataset=dataset, preset=preset).recipe
            assert recipe.budget == CFA(margin=0.3, beta=6)
            assert recipe.objective == TRADES(beta=6)
            assert recipe.average == FAWA(decay=0.85, threshold=0.2, begin=0.25, judged=True)
    assert compose("cfa", dataset="cifar10", preset="paper").schedule.selection == "best-robust-plus-worst"


@pytest.mark.parametrize("settings", [{"margin": -1}, {"trade": -1}, {"beta": -1}, {"begin": 2}, {"step": -1}])
def test_fields_out_of_range_are_refused(settings):
    with pytest.raises(BadRecipe):
        CFA(**settings)
