from __future__ import annotations

import torch
from torch import nn

from bench.evaluation.meter import Bfloat16, Meter


def test_images_are_counted_forward_and_backward():
    ticks: list[int] = []
    meter = Meter(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), ticks.append)
    x = torch.rand(5, 1, 2, 2)
    meter(x)
    assert (meter.forwards, meter.backwards) == (5, 0)
    leaf = x[:2].clone().requires_grad_()
    out = meter(leaf)
    torch.autograd.grad(out[:, 0].sum(), leaf, retain_graph=True)
    torch.autograd.grad(out[:, 1].sum(), leaf)
    assert (meter.forwards, meter.backwards) == (7, 4)
    with torch.no_grad():
        meter(leaf)
    assert (meter.forwards, meter.backwards) == (9, 4)
    assert ticks == [5, 7, 9]


def test_gradients_are_those_of_the_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x = torch.rand(5, 1, 2, 2, requires_grad=True)
    (through,) = torch.autograd.grad(Meter(model)(x).sin().sum(), x)
    (direct,) = torch.autograd.grad(model(x).sin().sum(), x)
    assert torch.equal(through, direct)


def test_a_model_that_works_in_place_does_not_change_the_images():
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sub_(0.5).div_(0.2).flatten(1)

    x = torch.rand(3, 1, 2, 2, requires_grad=True)
    before = x.detach().clone()
    (grad,) = torch.autograd.grad(Meter(InPlace())(x).sum(), x)
    assert torch.equal(x.detach(), before)
    torch.testing.assert_close(grad, torch.full_like(grad, 5.0))


def test_bfloat16_is_seen_but_float32_comes_out():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x = torch.rand(5, 1, 8, 8)
    seen = Bfloat16(model)(x)
    assert seen.dtype == torch.float32
    assert not torch.equal(seen, model(x))
    assert torch.equal(seen, seen.bfloat16().float())
    torch.testing.assert_close(seen, model(x), rtol=0.05, atol=0.02)


def test_modes_pass_through():
    model = nn.Dropout().eval()
    assert not Meter(model).training
    assert not Bfloat16(Meter(model)).training
    Meter(model).train()
    assert model.training
