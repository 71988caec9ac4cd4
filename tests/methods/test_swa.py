from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.models.architecture import Architecture, build
from bench.randomness import Streams
from bench.training.values import Context
from methods.swa import SWA

ARCHITECTURE = Architecture("convnet-2", 3, 1)


def epochs_of(rule, networks):
    """The averaged weights after each epoch, the trained ones being those of `networks`; and the states."""
    averaged = build(ARCHITECTURE, 99)
    ctx = Context(networks[0], averaged, {}, 3, 0.1, len(networks), Streams(0, torch.arange(1)))
    state, kept, states = rule.init(ctx), [], []
    for ctx.epoch, ctx.model in enumerate(networks):
        before = state.clone()
        after = rule.end_epoch(ctx, state, None)
        assert torch.equal(state, before)
        state = after
        kept.append({name: value.clone() for name, value in averaged.state_dict().items()})
        states.append(state.item())
    return kept, states


def networks(n):
    """Networks of different weights, BatchNorm statistics and counters."""
    made = [build(ARCHITECTURE, seed) for seed in range(n)]
    for index, network in enumerate(made):
        for value in network.buffers():
            value.fill_(index**2 + 1)
    return made


def test_it_is_the_equal_average_of_the_ends_of_the_epochs_from_its_begin_on():
    trained = networks(8)
    kept, states = epochs_of(SWA(begin=3 / 8), trained)
    assert states == [0, 0, 0, 1, 2, 3, 4, 5]
    for epoch, got in enumerate(kept):
        taken = trained[epoch : epoch + 1] if epoch < 3 else trained[3 : epoch + 1]
        for name, value in got.items():
            each = [network.state_dict()[name].double().numpy() for network in taken]
            if value.is_floating_point():  # BatchNorm statistics among them
                np.testing.assert_allclose(value.double().numpy(), np.mean(each, 0), rtol=1e-6, atol=1e-7)
            else:
                assert torch.equal(value.double(), torch.tensor(each[-1]))


@pytest.mark.parametrize("begin", [0.0, 1.0])
def test_over_one_epoch_it_is_that_epoch_s_weights(begin):
    trained = networks(2)
    kept, _ = epochs_of(SWA(begin=begin), trained)
    once, _ = epochs_of(SWA(begin=0), trained[1:])
    for got, wanted in ((kept[0], trained[0]), (once[0], trained[1])):
        assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in got.items())


@pytest.mark.parametrize(("epoch", "n"), [(54, 0), (55, 1)])
def test_the_released_epoch_is_the_first_of_200(epoch, n):
    model = build(ARCHITECTURE)
    ctx = Context(model, build(ARCHITECTURE, 1), {}, 3, 0.1, 200, Streams(0, torch.arange(1)), epoch=epoch)
    assert SWA().end_epoch(ctx, SWA().init(ctx), None).item() == n
