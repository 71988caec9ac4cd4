from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance.rig import Rig, separable
from bench.errors import BadRecipe
from bench.training.method import METHODS, compose
from bench.training.recipe import OneHot, Recipe
from bench.training.values import Batch, Targets, constant
from methods.ard import ARD, tempered
from methods.pgd_at import PGDAT

CLEAN, ADV, TEACHER = [1.0, 0.2, -0.7], [-0.4, 0.9, 0.3], [4.0, 1.0, -2.0]


def softmax(z, t=1.0):
    e = np.exp(np.array(z) / t)
    return e / e.sum()


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


class Table(nn.Module):
    """CLEAN at images of zeros, ADV at images of ones."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor([CLEAN, ADV], dtype=torch.float64))

    def forward(self, x):
        return self.rows[x.flatten(1)[:, 0].long()]


BATCH = Batch(torch.zeros(1, 1, 2, 2), torch.tensor([2]))


def losses(objective):
    model = Table()
    told = torch.tensor(softmax(TEACHER))[None]
    found = objective.losses(
        SimpleNamespace(model=model, classes=3), BATCH, torch.ones(1, 1, 2, 2), Targets(told, constant(told))
    )
    return model, found


@pytest.mark.parametrize("t", [1.0, 2.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_by_the_formula(t, scale):
    model, found = losses(ARD(temperature=t, alpha=0.75, scale=scale))
    # (1 - alpha) CE(S(x), y) is not scaled; alpha t^2 KL is
    assert found.fit.item() == pytest.approx(-0.25 * math.log(softmax(CLEAN)[2]), rel=1e-12)
    p, q = softmax(TEACHER, t), softmax(ADV, t)
    assert found.smooth.item() == pytest.approx(0.75 * scale * t**2 * divergence(p, q), rel=1e-10)
    found.smooth.sum().backward()  # d/dz t^2 KL(p || softmax(z/t)) = t (q - p)
    np.testing.assert_allclose(model.rows.grad[1], 0.75 * scale * t * (q - p), atol=1e-12)


def test_with_the_whole_weight_on_the_teacher_the_clean_image_is_not_looked_at():
    model, found = losses(ARD())
    assert found.logits_clean is None
    assert found.fit.item() == 0
    assert found.smooth.item() == pytest.approx(900 * divergence(softmax(TEACHER, 30), softmax(ADV, 30)), rel=1e-9)
    found.smooth.sum().backward()
    assert not model.rows.grad[0].any()


@pytest.mark.parametrize("gap", [1.0, 20.0, 80.0])
def test_tempering_probabilities_is_tempering_logits(gap):
    z = torch.tensor([[gap, 0.0, 0.3 * gap], [0.0, 0.0, -gap]])
    torch.testing.assert_close(tempered(z.softmax(1), 30.0), (z / 30).softmax(1), rtol=1e-5, atol=0)
    assert tempered(z, 1.0) is z


def test_a_hard_label_stays_hard_at_any_temperature():
    assert torch.equal(tempered(torch.eye(3), 30.0), torch.eye(3))


@pytest.mark.parametrize("classes", [2, 4])
def test_on_hard_labels_without_temperature_it_is_pgd_at_bit_for_bit(classes):
    batch = separable()
    batch = Batch(batch.x, batch.y % classes)
    ours, theirs = (Rig.build(Recipe(o, OneHot()), classes) for o in (ARD(temperature=1.0), PGDAT()))
    for _ in range(3):
        a, b = ours.step(batch), theirs.step(batch)
        assert torch.equal(a.adv, b.adv)
        assert torch.equal(a.loss, b.loss)
    assert all(torch.equal(v, theirs.state()[k]) for k, v in ours.state().items())


def test_the_attack_climbs_the_label_s_loss_whatever_the_teacher_says():
    batch = separable()
    taught, hard = Rig.build(compose("ard", dataset="digits").recipe), Rig.build(Recipe(PGDAT(), OneHot()))
    assert torch.equal(taught.step(batch).adv, hard.step(batch).adv)


@pytest.mark.parametrize("setting", [{"temperature": 0.0}, {"alpha": 1.1}])
def test_out_of_range(setting):
    with pytest.raises(BadRecipe, match="must"):
        ARD(**setting)


def test_presets_are_the_paper_s():
    ten, hundred = (compose("ard", dataset=d, preset="paper") for d in ("cifar10", "cifar100"))
    assert METHODS.get("ard").teachers == ("teacher",)
    for plan, batch_size, scale in ((ten, 128, 0.1), (hundred, 256, 0.01)):
        s = plan.schedule
        assert (s.epochs, s.first_epochs_of_drops(), s.weight_decay, s.batch_size) == (
            200,
            [100, 150],
            2e-4,
            batch_size,
        )
        assert plan.recipe.objective == ARD(temperature=30, alpha=1, scale=scale)
