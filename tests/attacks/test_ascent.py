from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

import bench
from bench.attacks.ascent import ascend
from bench.norms import L2, LINF, NORMS
from bench.randomness import Streams


def images(n: int, seed: int) -> torch.Tensor:
    """Half of the pixels are exactly 0 or 1."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 4, 4, generator=draw)
    return torch.where(torch.rand(x.shape, generator=draw) < 0.5, x.round(), x)


@given(st.integers(0, 1000), st.floats(0.01, 0.6))
@settings(deadline=None, max_examples=30)
def test_a_linear_gain_is_climbed_to_its_closed_form_optimum(seed, radius):
    x = images(3, seed)
    weight = torch.randn(16, generator=torch.Generator().manual_seed(seed)).reshape(1, 4, 4)
    eps = torch.full((3,), radius)
    best = (x + radius * weight.sign()).clamp(0, 1)
    start = LINF.noise(Streams(seed, torch.arange(3)), x, eps)
    for begin in (torch.zeros_like(x), start):
        adv = ascend(lambda a: (a * weight).flatten(1).sum(1), x, eps, eps / 4, steps=9, start=begin)
        torch.testing.assert_close(adv, best, rtol=0, atol=1e-6)


def test_l2_climbs_along_the_gradient():
    x = torch.full((2, 1, 4, 4), 0.5)
    weight = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    eps = torch.tensor([0.1, 0.4])
    adv = ascend(lambda a: (a * weight).flatten(1).sum(1), x, eps, eps / 4, steps=6, start=torch.zeros_like(x), norm=L2)
    expected = x + eps[:, None, None, None] * weight / weight.norm()
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-6)


@given(st.integers(0, 1000), st.floats(0.001, 1.5), st.floats(0.1, 3), st.sampled_from(sorted(NORMS)))
@settings(deadline=None, max_examples=40)
def test_it_never_leaves_ball_or_box_whatever_the_start(seed, radius, stride, name):
    x, norm = images(3, seed), NORMS[name]
    eps = torch.tensor([radius, radius / 2, radius / 3])
    start = 5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    adv = ascend(lambda a: a.sin().flatten(1).sum(1), x, eps, stride * eps, steps=3, start=start, norm=norm)
    assert not adv.requires_grad
    assert float(adv.min()) >= 0
    assert float(adv.max()) <= 1
    assert (norm.size(adv - x) <= eps * (1 + 1e-5) + 1e-7).all()


def test_radii_belong_to_images():
    x = torch.full((3, 1, 4, 4), 0.5)
    eps = torch.tensor([0.0, 0.1, 0.2])
    adv = ascend(lambda a: a.flatten(1).sum(1), x, eps, eps, steps=1, start=torch.zeros_like(x))
    torch.testing.assert_close(adv - x, eps[:, None, None, None].expand_as(x))


def test_it_works_in_inference_and_does_not_touch_its_images():
    x = images(2, 0)
    before = x.clone()
    ascend(lambda a: a.flatten(1).sum(1), x, torch.ones(2), torch.ones(2), steps=2, start=torch.ones_like(x))
    assert torch.equal(x, before)


def test_no_steps_is_the_start_in_ball_and_box():
    x = torch.tensor([[[[0.0, 0.5]]]])
    adv = ascend(
        lambda a: a.sum(),
        x,
        torch.tensor([0.2]),
        torch.tensor([0.1]),
        steps=0,
        start=torch.tensor(-1.0) * torch.ones_like(x),
    )
    torch.testing.assert_close(adv, torch.tensor([[[[0.0, 0.3]]]]))


def test_an_in_graph_clamp_is_blind_where_pixels_are_0_or_1():
    # Gain w.x at black and white pixels: from a random start, half of the useful pixels begin outside the box.
    x = images(64, 3).round()
    weight = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(1))
    eps = torch.full((64,), 0.2)
    start = LINF.noise(Streams(0, torch.arange(64)), x, eps)

    def gain(a: torch.Tensor) -> torch.Tensor:
        return (a * weight).flatten(1).sum(1)

    honest = ascend(gain, x, eps, eps / 4, steps=20, start=start)
    delta = start
    for _ in range(20):
        delta.requires_grad_()
        (grad,) = torch.autograd.grad(gain((x + delta).clamp(0, 1)).sum(), delta)
        delta = LINF.project(delta.detach() + 0.05 * grad.sign(), eps)
    blind = (x + delta).clamp(0, 1)
    gained, missed = (gain(honest) - gain(x)).sum(), (gain(blind) - gain(x)).sum()
    assert missed < 0.75 * gained


def test_there_is_only_this_loop():
    root = Path(inspect.getfile(bench)).parent
    holders = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"for .*\brange\([^)]*\bsteps\b", path.read_text()) and "autograd.grad(" in path.read_text()
    }
    assert holders == {"attacks/ascent.py"}


@pytest.mark.parametrize("steps", [1, 5])
def test_one_backward_per_step(steps):
    calls = []

    def gain(a: torch.Tensor) -> torch.Tensor:
        calls.append(len(a))
        return a.flatten(1).sum(1)

    x = images(3, 0)
    ascend(gain, x, torch.ones(3), torch.ones(3), steps=steps, start=torch.zeros_like(x))
    assert calls == [3] * steps
