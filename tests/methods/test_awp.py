from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.models.architecture import Architecture, build
from bench.randomness import Streams
from bench.training.recipe import Descend
from bench.training.values import Context, Losses
from methods.awp import AWP


def setting(epoch=0, seed=0):
    model = build(Architecture("convnet-2", 3, 1), seed).double().train()
    ctx = Context(model, model, {}, 3, 0.1, 5, Streams(0, torch.arange(6)), epoch=epoch)
    draw = torch.Generator().manual_seed(1)
    x, y = torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=draw), torch.arange(6) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    calls = []

    def objective():
        calls.append({name: value.detach().clone() for name, value in model.state_dict().items()})
        fit = nn.functional.cross_entropy(model(x), y, reduction="none")
        return fit.mean(), Losses(fit, fit * 0, None, None)

    return model, ctx, optimizer, objective, calls, (x, y)


def expected(model, x, y, gamma, moving):
    """The weights after one step, by backward passes on copies: climb by gamma ||w|| g / ||g||, differentiate, step."""
    proxy = copy.deepcopy(model)
    nn.functional.cross_entropy(proxy(x), y).backward()
    climbed = copy.deepcopy(model)
    offsets = {}
    with torch.no_grad():
        for (name, w), g in zip(climbed.named_parameters(), [p.grad for p in proxy.parameters()], strict=True):
            if moving(name, w):
                offsets[name] = gamma * w.norm() / g.norm() * g
                w += offsets[name]
    nn.functional.cross_entropy(climbed(x), y).backward()
    after = {}
    for (name, w), p in zip(model.named_parameters(), climbed.parameters(), strict=True):
        # the optimizer sees the perturbed weight, so weight decay is taken at it
        after[name] = (p - 0.1 * (p.grad + 1e-3 * p) - offsets.get(name, 0)).detach()
        assert after[name].shape == w.shape
    return offsets, after, dict(climbed.named_buffers())


@pytest.mark.parametrize(
    ("tensors", "moving"),
    [("kernels", lambda name, w: w.ndim > 1), ("all", lambda name, w: w.norm() > 0)],
)
def test_one_step_equals_an_independent_computation(tensors, moving):
    model, ctx, optimizer, objective, calls, (x, y) = setting()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    offsets, after, buffers = expected(model, x, y, 0.02, moving)
    AWP(gamma=0.02, tensors=tensors)(ctx, optimizer, objective)
    assert len(calls) == 2
    for name, offset in offsets.items():
        torch.testing.assert_close(calls[1][name] - before[name], offset, rtol=1e-9, atol=1e-12)
        assert float(offset.norm()) == pytest.approx(0.02 * float(before[name].norm()), rel=1e-9)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), after[name], rtol=1e-9, atol=1e-12)
        if name not in offsets:
            assert torch.equal(calls[1][name], before[name])
    # BatchNorm counts the pass at the perturbed weights, once
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, buffers[name], rtol=1e-12, atol=0)
    assert int(model.bn1.num_batches_tracked) == 1


def test_kernels_are_the_weights_of_two_or_more_dimensions():
    model, ctx, optimizer, objective, calls, _ = setting()
    AWP()(ctx, optimizer, objective)
    moved = {name for name, _ in model.named_parameters() if not torch.equal(calls[0][name], calls[1][name])}
    assert moved == {"conv1.weight", "conv2.weight", "conv3.weight", "linear.weight"}


def test_before_its_beginning_it_is_descent():
    states = []
    for rule in (AWP(gamma=0.5, begin=3), Descend()):
        model, ctx, optimizer, objective, calls, _ = setting(epoch=2)
        rule(ctx, optimizer, objective)
        assert len(calls) == 1
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    model, ctx, optimizer, objective, calls, _ = setting(epoch=3)
    AWP(gamma=0.5, begin=3)(ctx, optimizer, objective)
    assert len(calls) == 2


def test_weights_and_statistics_come_back_when_the_objective_fails():
    model, ctx, optimizer, objective, calls, _ = setting()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def failing():
        if calls:
            raise RuntimeError
        return objective()

    with pytest.raises(RuntimeError):
        AWP(gamma=0.1)(ctx, optimizer, failing)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-12)
    assert model.bn1.momentum == 0.1
    assert "num_batches_tracked" in dict(model.bn1.named_buffers())
