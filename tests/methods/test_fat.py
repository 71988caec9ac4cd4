from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.randomness import Streams
from bench.training.inner import Inner
from bench.training.recipe import OneHot, Uniform
from bench.training.values import Batch, Context, Reach
from methods.fat import FAT
from methods.pgd_at import PGDAT

INNER = Inner(steps=10, start="gaussian", mode="eval")


class Seen(nn.Module):
    """Two logits, linear in the pixels; remembers every image that it was asked about."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.bias = nn.Parameter(torch.zeros(1))
        self.asked = []

    def forward(self, x):
        self.asked.append(x.detach().clone())
        score = 20 * (x.mean((1, 2, 3)) - 0.5) + self.bias
        return score[:, None] * self.weight


class Wavering(nn.Module):
    """Calls images 0 or 1 by a script (steps, B), whatever they show; climbing its gain raises every pixel."""

    def __init__(self, script):
        super().__init__()
        self.script, self.asked = script, []

    def forward(self, x):
        said = torch.tensor(self.script[len(self.asked)])
        self.asked.append(x.detach().clone())
        away = x.mean((1, 2, 3))
        return torch.stack([3 * (1 - said) - away, 3 * said + away], 1)


def context(model, n, epoch=0, epochs=120):
    return Context(model, model, {}, 2, 0.1, epochs, Streams(0, torch.arange(n)), epoch=epoch)


def search(objective, model, x, y, epoch=0):
    ctx, batch = context(model, len(y), epoch), Batch(x, torch.tensor(y))
    targets = OneHot()(ctx, batch, None)
    return objective.perturb(ctx, batch, targets, Uniform().reach(ctx, batch, None))


def by_hand(asked, last, y, tau):
    """Algorithm 1 image by image: stop at a misclassified iterate once tau misclassified ones were passed by."""
    found = []
    for row, label in enumerate(y):
        left = tau
        for x, answer in asked:
            if answer[row] != label:
                if left == 0:
                    found.append(x[row])
                    break
                left -= 1
        else:
            found.append(last[row])
    return torch.stack(found)


SCRIPT = [  # columns: wrong from the start, never, at the third, in and out, at the last only
    [1, 0, 0, 0, 0],
    [1, 0, 0, 1, 0],
    [1, 0, 1, 0, 0],
    [1, 0, 1, 1, 0],
    [1, 0, 1, 0, 0],
    [1, 0, 1, 1, 1],
]


@pytest.mark.parametrize("tau", [0, 1, 2, 3, 5])
def test_each_image_keeps_its_own_iterate(tau):
    model, y = Wavering(SCRIPT), [0] * 5
    x = torch.full((5, 1, 2, 2), 0.5)
    inner = Inner(steps=len(SCRIPT), start="gaussian")
    got = search(FAT(inner=inner, tau=tau, rises=()), model, x, y)
    last = search(PGDAT(inner=inner), Wavering(SCRIPT), x, y)
    assert torch.equal(got, by_hand(list(zip(model.asked, SCRIPT, strict=True)), last, y, tau))
    assert torch.equal(got[1], last[1])  # never misclassified: the whole way
    assert torch.equal(got[0], model.asked[tau][0])  # misclassified at the start: tau steps on


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("tau", [10, 11])
def test_with_tau_as_large_as_the_steps_it_is_pgd_at(tau, mode):
    inner = Inner(steps=10, start="uniform", mode=mode)
    x = torch.linspace(0.42, 0.58, 8)[:, None, None, None].expand(8, 1, 2, 2).contiguous()
    y = [0, 1] * 4
    assert torch.equal(search(FAT(inner=inner, tau=tau), Seen(), x, y), search(PGDAT(inner=inner), Seen(), x, y))


def test_it_is_barely_misclassified_where_pgd_at_goes_to_the_edge():
    x, y = torch.full((2, 1, 2, 2), 0.54), [0, 0]
    friendly = search(FAT(inner=INNER, rises=()), Seen(), x, y)
    harsh = search(PGDAT(inner=INNER), Seen(), x, y)
    torch.testing.assert_close(harsh, torch.full_like(x, 0.44), rtol=0, atol=1e-6)
    # two steps of 0.025 cross the boundary at 0.5: 0.54 -> 0.515 -> 0.49, up to the start's 0.001
    torch.testing.assert_close(friendly, torch.full_like(x, 0.49), rtol=0, atol=5e-3)
    assert bool((Seen()(friendly).argmax(1) == 1).all())


@pytest.mark.parametrize(("epoch", "tau"), [(0, 0), (49, 0), (50, 1), (89, 1), (90, 2), (119, 2)])
def test_tau_goes_up_at_the_released_epochs(epoch, tau):
    x, y = torch.full((2, 1, 2, 2), 0.53), [0, 1]
    got = search(FAT(), Seen(), x, y, epoch)
    assert torch.equal(got, search(FAT(tau=tau, rises=()), Seen(), x, y))


def test_an_image_without_reach_stays_where_it_is():
    x, y = torch.full((2, 1, 2, 2), 0.54), torch.tensor([0, 0])
    ctx, batch = context(Seen(), 2), Batch(x, y)
    reach = Reach(torch.tensor([0.0, 0.1]), torch.tensor([0.0, 0.025]))
    adv = FAT().perturb(ctx, batch, OneHot()(ctx, batch, None), reach)
    assert torch.equal(adv[0], x[0])
    assert not torch.equal(adv[1], x[1])
