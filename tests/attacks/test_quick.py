from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.apgd import APGD_CE
from bench.attacks.prepare import prepared
from bench.attacks.quick import QUICK, Closer, NearMisses, Quick
from bench.attacks.reference import REFERENCE
from bench.attacks.square import Square
from bench.attacks.standing import Standing
from bench.attacks.trial import described
from bench.evaluation.meter import Meter
from bench.norms import L2, LINF
from bench.randomness import Streams

SHORT = Quick(near_misses=NearMisses(Closer(square=Square(queries=60))))


class Brightness(nn.Module):
    """Class 1 above half brightness, class 0 below; three more classes are far away."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1) - 0.5
        far = torch.full_like(bright, -20)
        return torch.stack([-bright, bright, far, far - 1, far - 2], 1)


def shade(*brightness: float) -> tuple[Tensor, Tensor]:
    """Grey images of class 0."""
    x = torch.tensor(brightness).reshape(-1, 1, 1, 1).expand(-1, 1, 6, 6).clone()
    return x, torch.zeros(len(x), dtype=torch.int64)


def network() -> tuple[nn.Module, Tensor, Tensor]:
    """A random network on 2x6x6 images of 6 classes, curved but without kinks, and its own answers as labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(
            *(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Flatten()),
            *(nn.Linear(216, 12), nn.Tanh(), nn.Linear(12, 6)),
        )
        x = torch.rand(60, 2, 6, 6)
    model = model.eval().requires_grad_(False)
    for layer in (0, 3, 5):
        model[layer].weight *= 5
    model[5].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


def attack(chosen, model, x, y, rows=None, *, eps, norm=LINF):
    rows = torch.arange(len(x)) if rows is None else rows
    with prepared(model):
        return chosen(model, x[rows], y[rows], eps=eps, norm=norm, streams=Streams(0, rows))


def test_only_near_misses_are_attacked_again():
    # The border is 0.5, 1.05, 1.1 and 2 eps away: the first falls, the second comes within 0.08 eps of it.
    x, y = shade(0.45, 0.395, 0.39, 0.3)
    meter = Meter(Brightness())
    standing = Standing(meter, x, y)
    standing.see(x + 0.1, standing.logits(x + 0.1))
    assert standing.rows.tolist() == [1, 2, 3]
    SHORT.near_misses.search(standing, eps=0.1, norm=LINF, streams=Streams(0, torch.arange(4)))
    looked, shown, seen = 1, 1, 1
    assert standing.forwards[[0, 2, 3]].tolist() == [seen, seen + looked + shown, seen + looked + shown]
    assert standing.forwards[1] > 100
    assert meter.forwards == int(standing.forwards.sum())
    assert meter.backwards == int(standing.backwards.sum())


def test_what_breaks_a_near_miss_is_kept():
    x, y = shade(0.396, 0.2)
    standing = Standing(Brightness(), x, y)
    standing.see(x + 0.1, standing.logits(x + 0.1))

    class Lucky(Closer):
        def search(self, standing, *, eps, norm, streams):
            assert standing.x.flatten(1).mean(1).tolist() == pytest.approx([0.396])
            assert streams.samples.tolist() == [7]
            standing.see(standing.x + 0.11, standing.logits(standing.x + 0.11))

    NearMisses(Lucky()).search(standing, eps=0.1, norm=LINF, streams=Streams(0, torch.tensor([7, 8])))
    assert standing.rows.tolist() == [1]
    answer = standing.answer()
    assert answer.by.tolist() == [0, -1]
    assert answer.adv.flatten(1).mean(1).tolist() == pytest.approx([0.506, 0.3])


@pytest.mark.parametrize(("norm", "eps"), [(LINF, 0.015), (L2, 0.12)], ids=["Linf", "L2"])
def test_results_do_not_depend_on_the_batch(norm, eps, exact):
    model, x, y = network()
    model = exact(model).eval().requires_grad_(False)
    whole = attack(SHORT, model, x, y, eps=eps, norm=norm)
    assert 10 < int((whole.by >= 0).sum()) < 50
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    for rows in (shuffled, *torch.arange(len(y)).split(25), torch.arange(1)):
        part = attack(SHORT, model, x, y, rows, eps=eps, norm=norm)
        assert torch.equal(part.by, whole.by[rows])
        assert (norm.size(part.adv - x[rows]) <= eps * (1 + 1e-5)).all()
        assert torch.equal(model(part.adv).argmax(1) != y[rows], part.by >= 0)


def test_it_breaks_what_a_longer_attack_breaks():
    model, x, y = network()
    quick, long = (attack(chosen, model, x, y, eps=0.012) for chosen in (QUICK, APGD_CE))
    assert 10 < int((long.by >= 0).sum()) < 50
    assert int((quick.by >= 0).sum()) >= int((long.by >= 0).sum())


def test_it_costs_a_twentieth_of_the_reference():
    budget = sum(REFERENCE.passes(10)) / 20
    assert 300 < sum(QUICK.passes(10)) < budget
    x, y = shade(0.1, 0.2)
    meter = Meter(Brightness())
    answer = attack(SHORT, meter, x, y, eps=0.1)
    assert answer.by.tolist() == [-1, -1]
    # Far from falling: the pair, and whether it is near. PMA: 31 and 30; MALT: 2 + 4 * 31 and 4 + 4 * 30.
    assert answer.forwards.tolist() == [31 + 2 + 4 * 31 + 1] * 2
    assert answer.backwards.tolist() == [30 + 4 + 4 * 30 + 1] * 2


def test_its_names_and_what_is_hashed():
    assert QUICK.lineup == ("pma", "malt", "near-misses")
    assert len(QUICK.parts) == 3
    about = described(QUICK)["fields"]["near_misses"]["fields"]
    assert about["attack"]["fields"]["square"]["fields"]["queries"] == 2000
    assert replace(QUICK, near_misses=NearMisses(reach=0.1)) != QUICK


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_change_every_part(classes):
    fitted = QUICK.fitted(classes)
    for malt in (fitted.malt, fitted.near_misses.attack.malt):
        assert (malt.loss, malt.targets) == ("margin", classes - 1)


@pytest.mark.parametrize("nan", [False, True])
def test_no_image_seems_near_where_there_is_no_gradient(nan):
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = 0 * x.flatten(1).sum(1, keepdim=True)
            return flat + (torch.nan if nan else 0) * flat + torch.tensor([1.0, 0, 0, 0, 0])

    x, y = shade(0.4, 0.5)
    standing = Standing(Blind(), x, y)
    NearMisses().search(standing, eps=0.1, norm=LINF, streams=Streams(0, torch.arange(2)))
    assert int(standing.forwards.sum()) <= 4
