from __future__ import annotations

import pytest
import torch

from bench.models.architecture import Architecture, build
from bench.randomness import Streams
from bench.training.values import Context, Tally
from methods.fawa import FAWA, worst

ARCHITECTURE = Architecture("convnet-2", 3, 1)


def tally(right, seen):
    held = Tally.zeros(len(right))
    held.hits_adv, held.count_adv = torch.tensor(right), torch.tensor(seen)
    return held


def epochs_of(rule, worsts):
    """A weight that is 1, 2, 4, ... after the epochs: what is kept of it after each; the states."""
    model, averaged = build(ARCHITECTURE, 0), build(ARCHITECTURE, 1)
    ctx = Context(model, averaged, {}, 3, 0.1, len(worsts), Streams(0, torch.arange(1)))
    state, kept, states = rule.init(ctx), [], []
    for ctx.epoch, accuracy in enumerate(worsts):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.fill_(2**ctx.epoch)

        def validate(network, accuracy=accuracy):
            assert network is model
            assert ctx.epoch / ctx.epochs >= rule.begin  # a validation that decides nothing is not paid for
            return tally([90.0, 100 * accuracy, 100.0], [100.0, 100.0, 100.0])

        ctx.validate, before = validate, state.clone()
        after = rule.end_epoch(ctx, state, None)
        assert torch.equal(state, before)
        state = after
        (value,) = {float(v.flatten()[0]) for v in averaged.state_dict().values() if v.is_floating_point()}
        kept.append(value)
        states.append(state.item())
    return kept, states


def test_the_first_fair_epoch_is_copied_and_later_ones_are_blended():
    kept, states = epochs_of(FAWA(decay=0.75, threshold=0.25, begin=2 / 8), [0.9, 0.9, 0.1, 0.25, 0.5, 0.2, 0.9, 0.0])
    # before begin and until the first acceptance the trained weights: 1, 2, 4; then 8 copied;
    # 0.75 * 8 + 0.25 * 16 = 10; left out; 0.75 * 10 + 0.25 * 64 = 23.5; left out
    assert kept == [1, 2, 4, 8, 10, 10, 23.5, 23.5]
    assert states == [0, 0, 0, 1, 2, 2, 3, 3]


def test_without_decay_and_threshold_it_is_the_last_weights():
    trained = [build(ARCHITECTURE, seed) for seed in range(4)]
    averaged = build(ARCHITECTURE, 9)
    rule = FAWA(decay=0, threshold=0)
    ctx = Context(trained[0], averaged, {}, 3, 0.1, 4, Streams(0, torch.arange(1)))
    ctx.validate = lambda network: tally([0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    state = rule.init(ctx)
    for ctx.epoch, ctx.model in enumerate(trained):
        state = rule.end_epoch(ctx, state, None)
        for name, value in averaged.state_dict().items():
            assert torch.equal(value, ctx.model.state_dict()[name])
    assert state.item() == 3


def test_an_unfair_run_keeps_the_last_weights():
    kept, states = epochs_of(FAWA(begin=0), [0.1] * 4)
    assert kept == [1, 2, 4, 8]
    assert states == [0] * 4


@pytest.mark.parametrize(("epoch", "n"), [(49, 0), (50, 1)])
def test_the_paper_s_epoch_is_the_first_of_200(epoch, n):
    model = build(ARCHITECTURE)
    ctx = Context(model, build(ARCHITECTURE, 1), {}, 3, 0.1, 200, Streams(0, torch.arange(1)), epoch=epoch)
    ctx.validate = lambda network: tally([1.0] * 3, [1.0] * 3)
    assert FAWA().end_epoch(ctx, FAWA().init(ctx), None).item() == n


def test_a_class_that_is_not_held_out_is_not_the_worst():
    assert worst(tally([3.0, 0.0, 1.0], [4.0, 0.0, 2.0])).item() == 0.5
    assert worst(tally([3.0, 1.0], [4.0, 4.0])).item() == 0.25
