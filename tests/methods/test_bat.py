"""BAT: which iterates are kept, and the loss, against the paper's formula in float64."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance.rig import Rig, separable
from bench.randomness import Streams
from bench.training.inner import Inner
from bench.training.recipe import OneHot, Recipe, Uniform
from bench.training.values import Batch, Context, Targets, constant
from methods.bat import BAT, METHOD, Around
from methods.trades import TRADES

STEPS = 4
PATTERNS = ["".join(p) for p in itertools.product("CW", repeat=STEPS)]
X = STEPS + 1
"""Number of the clean image; iterates are 0 to STEPS, the last of which is never asked about."""


class Scripted(nn.Module):
    """Class 0 for iterate t of image i where PATTERNS[i][t] is C, else class 1."""

    def forward(self, x):
        wrong = torch.tensor([[c == "W" for c in pattern] + [False, False] for pattern in PATTERNS])
        at = wrong[torch.arange(len(x)), x[:, 0, 0, 0].long()].float()
        return torch.stack([1 - at, at], 1) + 0 * x.sum((1, 2, 3))[:, None]


@dataclass(frozen=True)
class Numbered(Inner):
    """Iterate t is an image of t's, at `gain` in turn."""

    def __call__(self, ctx, gain, x, reach):
        """The last."""
        for t in range(STEPS):
            gain(torch.full_like(x, t).requires_grad_())
        return torch.full_like(x, STEPS)


def by_hand(pattern, tau, as_released):
    """Numbers of x_fa and x_lc: a walk along the iterates of one image."""
    seen = [t for t, c in enumerate(pattern) if c == "W"]
    if not seen:
        return STEPS, STEPS
    last = X if seen[0] == 0 else seen[0] - 1
    first = (seen[tau] if tau < len(seen) else STEPS) if as_released else min(seen[0] + tau, STEPS)
    return first, last


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("tau", [0, 1, 2, 3])
def test_it_keeps_the_last_iterate_before_the_boundary_and_one_tau_steps_past_it(tau, as_released):
    model = Scripted()
    n = len(PATTERNS)
    ctx = Context(model, model, {}, 2, 0.1, 1, Streams(0, torch.arange(n)))
    batch = Batch(torch.full((n, 1, 1, 1), float(X)), torch.zeros(n, dtype=torch.long))
    objective = BAT(tau=tau, as_released=as_released, inner=Numbered())
    found = objective.perturb(ctx, batch, OneHot()(ctx, batch, None), None)
    assert not found.first_adv.requires_grad
    assert not found.last_clean.requires_grad
    got = list(zip(found.first_adv.flatten().tolist(), found.last_clean.flatten().tolist(), strict=True))
    assert got == [by_hand(pattern, tau, as_released) for pattern in PATTERNS]


def test_without_steps_both_are_the_start():
    rig, batch = Rig.build(Recipe(BAT(inner=Inner(steps=0, start="gaussian")))), separable()
    targets, reach = rig.call(batch)
    found = rig.recipe.objective.perturb(rig.ctx, batch, targets, reach)
    assert torch.equal(found.first_adv, found.last_clean)
    assert not torch.equal(found.first_adv, batch.x)


def test_tau_beyond_the_attack_gives_the_end_of_trades_s_attack():
    rig, batch = Rig.build(Recipe(BAT(tau=99))), separable()
    targets, reach = rig.call(batch)
    found = rig.recipe.objective.perturb(rig.ctx, batch, targets, reach)
    assert torch.equal(found.first_adv, TRADES().perturb(rig.ctx, batch, targets, reach))


LOGITS = {"x": [1.0, 0.2, -0.7], "fa": [-0.4, 0.9, 0.3], "lc": [0.5, 0.4, -2.0]}


class Table(nn.Module):
    """Row n of the parameter for images of n's."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(list(LOGITS.values()), dtype=torch.float64))

    def forward(self, x):
        return self.rows[x.flatten(1)[:, 0].long()]


def images(n):
    return torch.full((1, 1, 2, 2), float(n))


@pytest.mark.parametrize("target", [[1, 0, 0], [0.6, 0.3, 0.1]])
def test_the_loss_and_its_gradient_by_hand(target):
    p, q, r = (np.exp(z) / np.exp(z).sum() for z in map(np.array, LOGITS.values()))
    model = Table()
    ctx = Context(model, model, {}, 3, 0.1, 1, Streams(0, torch.arange(1)))
    wanted = torch.tensor([target], dtype=torch.float64)
    losses = BAT(beta=6).losses(
        ctx, Batch(images(0), torch.tensor([0])), Around(images(1), images(2)), Targets(wanted, constant(wanted))
    )
    penalty = (p * np.log(p / q)).sum()
    uneven = [(v * np.log(3 * v)).sum() for v in (q, r)]  # KL(p || u), u = 1/3; the other way round is another number
    assert losses.fit.item() == pytest.approx(-(np.array(target) * np.log(r)).sum(), abs=1e-14)
    assert losses.smooth.item() == pytest.approx(6 * penalty + sum(uneven), abs=1e-14)
    assert torch.equal(losses.logits_clean[0], model.rows[0])
    assert torch.equal(losses.logits_adv[0], model.rows[1])
    (losses.fit + losses.smooth).sum().backward()
    # d KL(p||q) / dz_p = p (log(p/q) - KL), / dz_q = q - p; d KL(p||u) / dz = p (log(K p) - KL)
    through = [
        6 * p * (np.log(p / q) - penalty),
        6 * (q - p) + q * (np.log(3 * q) - uneven[0]),
        r - np.array(target) + r * (np.log(3 * r) - uneven[1]),
    ]
    torch.testing.assert_close(model.rows.grad, torch.tensor(np.stack(through)), rtol=0, atol=1e-13)


def test_a_probability_of_zero_has_a_finite_gradient():
    model = Table()
    with torch.no_grad():
        model.rows[1:, 0] = 2000.0
    ctx = Context(model, model, {}, 3, 0.1, 1, Streams(0, torch.arange(1)))
    batch = Batch(images(0), torch.tensor([0]))
    targets = OneHot()(ctx, batch, None)
    losses = BAT(beta=0).losses(ctx, batch, Around(images(1), images(2)), targets)
    assert losses.smooth.item() == pytest.approx(2 * math.log(3))
    losses.smooth.sum().backward()
    assert model.rows.grad.isfinite().all()


def test_the_paper_s_setting():
    preset = METHOD.presets["cifar10/paper"]
    assert preset.schedule.first_epochs_of_drops() == [74, 89, 99]
    assert float(preset.schedule.eps) * preset.slots["budget"].step == pytest.approx(0.007)
    assert replace(preset.slots["budget"], step=0.25) == Uniform()
