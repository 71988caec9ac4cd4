from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.models.architecture import Architecture, build
from bench.norms import LINF
from bench.randomness import Streams
from bench.training.method import compose
from bench.training.recipe import OneHot
from bench.training.values import Batch, Context, Tally
from methods.averaging import EMA
from methods.fgsm_rs import METHOD, Guard


def tally(right, seen):
    held = Tally.zeros(len(right))
    held.hits_adv, held.count_adv = torch.tensor(right), torch.tensor(seen)
    return held


def after_epochs(rule, accuracies):
    """What is kept after each epoch, as the number of the epoch whose weights it is; and the states."""
    architecture = Architecture("convnet-2", 3, 1)
    model, averaged = build(architecture, 0), build(architecture, 1)
    ctx = Context(model, averaged, {}, 3, 0.1, len(accuracies), Streams(0, torch.arange(1)))
    state, kept, states = rule.init(ctx), [], []
    for epoch, accuracy in enumerate(accuracies):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.fill_(epoch + 1)
        held = tally([100 * accuracy, 0.0, 100 * accuracy], [100.0, 0.0, 100.0])
        ctx.validate = lambda network, held=held: held
        ctx.epoch, before = epoch, state.clone()
        after = rule.end_epoch(ctx, state, None)
        assert torch.equal(state, before)
        state = after
        (weights,) = {float(value.flatten()[0]) for value in averaged.state_dict().values()}
        kept.append(weights)
        states.append(state.item())
    return kept, states


def test_a_collapse_leaves_the_weights_of_before_until_robustness_is_back():
    kept, best = after_epochs(Guard(drop=0.25), [0.25, 0.5, 0.75, 0.49, 0.0, 0.5, 0.625, 0.375])
    #                                            keep  keep keep  -0.26 -.75 -.25 keep   -0.375
    assert kept == [1, 2, 3, 3, 3, 6, 7, 7]
    assert best == [0.25, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75]


def test_with_a_drop_of_1_the_last_weights_are_kept():
    kept, _ = after_epochs(Guard(drop=1), [1.0, 0.0, 0.5, 0.0])
    assert kept == [1, 2, 3, 4]


def test_it_asks_how_the_trained_weights_fare():
    model, averaged, asked = nn.Linear(1, 2), nn.Linear(1, 2), []
    ctx = Context(model, averaged, {}, 2, 0.1, 1, Streams(0, torch.arange(1)))
    ctx.validate = lambda network: asked.append(network) or tally([1.0, 1.0], [2.0, 2.0])
    Guard().end_epoch(ctx, Guard().init(ctx), None)
    assert asked == [model]


def test_one_step_of_ten_255ths_from_a_uniform_start():
    recipe = compose("fgsm-rs", dataset="cifar10", preset="paper").recipe
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    eps = 8 / 255
    ctx = Context(model, model, {}, 2, eps, 1, Streams(0, torch.arange(6)))
    batch = Batch(torch.full((6, 1, 2, 2), 0.5), torch.tensor([0, 1] * 3))
    reach = recipe.budget.reach(ctx, batch, None)
    torch.testing.assert_close(reach.step, torch.full((6,), 10 / 255))
    adv = recipe.objective.perturb(ctx, batch, OneHot()(ctx, batch, None), reach)
    start = LINF.noise(ctx.streams.fork("start"), batch.x, reach.eps)
    # dCE/dx of a linear model: W^T (p - onehot), in sign the other class's row minus the own
    weight = model[1].weight.detach()
    sign = (weight[1 - batch.y] - weight[batch.y]).sign().reshape(6, 1, 2, 2)
    wanted = batch.x + (start + 10 / 255 * sign).clamp(-eps, eps)
    torch.testing.assert_close(adv, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_another_part_may_average_instead(accuracy):
    assert "average" not in METHOD.slots
    assert isinstance(compose("fgsm-rs", dataset="digits").recipe.average, Guard)
    assert isinstance(compose("fgsm-rs+wa", dataset="digits").recipe.average, EMA)
    kept, _ = after_epochs(Guard(), [accuracy])
    assert kept == [1]  # the first epoch is always kept
