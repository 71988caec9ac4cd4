from __future__ import annotations

import pytest
import torch

from bench.attacks.ascent import ascend
from bench.models.architecture import Architecture, build
from bench.norms import LINF
from bench.randomness import Streams
from bench.training.inner import Inner, switched
from bench.training.values import Context, Reach

B = 5


def context(seed=0):
    model = build(Architecture("convnet-2", 3, 1), 0).train()
    return Context(model, model, {}, 3, 0.1, 1, Streams(seed, torch.arange(B)))


def images():
    return torch.rand(B, 1, 8, 8, generator=torch.Generator().manual_seed(0)).mul(1.4).sub(0.2).clamp(0, 1)


REACH = Reach(torch.full((B,), 0.1), torch.full((B,), 0.025))


def gain(ctx):
    return lambda adv: torch.nn.functional.cross_entropy(ctx.model(adv), torch.arange(B) % 3, reduction="none")


def starts(inner, ctx, x=None, reach=REACH):
    """Where an attack of no steps ends: its start, in ball and box."""
    x = torch.full((B, 1, 8, 8), 0.5) if x is None else x
    return Inner(steps=0, start=inner)(ctx, gain(ctx), x, reach) - x


def test_a_uniform_start_fills_the_ball():
    delta = starts("uniform", context())
    assert float(delta.abs().max()) <= 0.1 + 1e-6
    assert float(delta.abs().max()) > 0.098
    assert abs(float(delta.mean())) < 0.02
    assert float(delta.std()) == pytest.approx(0.2 / 12**0.5, rel=0.1)


def test_a_gaussian_start_is_a_thousandth_of_a_normal():
    delta = starts("gaussian", context())
    assert float(delta.std()) == pytest.approx(0.001, rel=0.15)
    narrow = starts("gaussian", context(), reach=Reach(torch.full((B,), 5e-4), torch.full((B,), 1e-4)))
    assert float(narrow.abs().max()) <= 5e-4 + 1e-7


def test_starts_depend_on_the_image_and_the_streams_only():
    first, again, other = (starts("uniform", context(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    ctx = context()
    ctx.streams = ctx.streams.select(torch.tensor([3]))
    alone = Inner(steps=0)(ctx, gain(ctx), torch.full((1, 1, 8, 8), 0.5), Reach(REACH.eps[:1], REACH.step[:1])) - 0.5
    assert torch.equal(alone[0], first[3])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_mode_holds_during_the_attack_and_is_put_back(mode):
    ctx, seen = context(), []
    ctx.model.register_forward_pre_hook(lambda module, args: seen.append(module.training))
    for before in (True, False):
        ctx.model.train(before)
        statistics = ctx.model.bn1.running_mean.clone()
        Inner(steps=3, mode=mode)(ctx, gain(ctx), images(), REACH)
        assert ctx.model.training is before
        assert torch.equal(ctx.model.bn1.running_mean, statistics) is (mode == "eval")
    assert seen == [mode == "train"] * 6


def test_it_is_the_one_loop_and_works_where_gradients_are_off():
    ctx, x = context(), images()
    with torch.no_grad():
        adv = Inner(steps=4)(ctx, gain(ctx), x, REACH)
    start = LINF.noise(ctx.streams.fork("start"), x, REACH.eps)
    with switched(ctx.model, "eval"):
        assert torch.equal(adv, ascend(gain(ctx), x, *REACH, steps=4, start=start))
    assert all(p.grad is None for p in ctx.model.parameters())
    with torch.no_grad():
        assert gain(ctx)(adv).sum() > gain(ctx)(x).sum()


def test_the_mode_is_put_back_when_something_fails():
    model = torch.nn.Sequential(torch.nn.Dropout())

    def failing():
        with switched(model, "eval"):
            assert not model[0].training
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert model.training
    assert model[0].training
