from __future__ import annotations

import torch

from bench.models.architecture import Architecture, build
from bench.randomness import Streams
from bench.training.recipe import Last
from bench.training.values import Context, Losses
from methods.averaging import EMA

NOTHING = Losses(torch.zeros(1), torch.zeros(1), None, None)


def setting():
    architecture = Architecture("convnet-2", 3, 1)
    model, averaged = build(architecture, 0), build(architecture, 1)
    for index, value in enumerate(model.buffers()):
        value.fill_(index + 2)
    return Context(model, averaged, {}, 3, 0.1, 1, Streams(0, torch.arange(1)))


def test_ema_is_decay_times_the_average_plus_the_rest_of_the_weights():
    ctx = setting()
    before = {name: value.double() for name, value in ctx.averaged.state_dict().items()}
    now = {name: value.double() for name, value in ctx.model.state_dict().items()}
    EMA(decay=0.9).end_step(ctx, None, NOTHING)
    for name, value in ctx.averaged.state_dict().items():
        if value.is_floating_point():  # BatchNorm statistics among them
            torch.testing.assert_close(value.double(), 0.9 * before[name] + 0.1 * now[name], rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(value.double(), now[name])


def test_after_n_steps_the_start_has_weight_decay_to_the_n():
    ctx = setting()
    with torch.no_grad():
        for value in ctx.averaged.parameters():
            value.fill_(1)
        for value in ctx.model.parameters():
            value.zero_()
    for _ in range(7):
        EMA(decay=0.8).end_step(ctx, None, NOTHING)
    for value in ctx.averaged.parameters():
        torch.testing.assert_close(value.detach(), torch.full_like(value, 0.8**7), rtol=1e-5, atol=0)


def test_last_is_an_exact_copy():
    ctx = setting()
    Last().end_step(ctx, None, NOTHING)
    for name, value in ctx.averaged.state_dict().items():
        assert torch.equal(value, ctx.model.state_dict()[name])


def test_only_wa_judges_the_average():
    assert not EMA().judged
    assert not Last().judged
