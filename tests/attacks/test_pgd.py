from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from bench.attacks.base import Attributed
from bench.attacks.pgd import CW, FGSM, PGD, PGD_100, PGD_SAT, PGD_TRADES
from bench.attacks.prepare import prepared
from bench.conformance.attacks import black_and_white, run, small_network
from bench.data.load import load
from bench.errors import BadModel, BadOption
from bench.losses import margin
from bench.norms import L2, LINF
from bench.randomness import Streams


@pytest.fixture(scope="module")
def net(digits_network, exact) -> nn.Module:
    return exact(digits_network()).eval()


@pytest.fixture(scope="module")
def batch(net) -> tuple[torch.Tensor, torch.Tensor]:
    """60 test images that it classifies correctly."""
    x, y = load("digits").batch(slice(0, 80))
    right = net(x).argmax(1) == y
    return x[right][:60], y[right][:60]


def attack(chosen, net, batch, rows=None, eps=0.08, norm=LINF, seed=0):
    x, y = batch
    rows = torch.arange(len(x)) if rows is None else rows
    with prepared(net):
        answer = chosen(net, x[rows], y[rows], eps=eps, norm=norm, streams=Streams(seed, rows))
    return answer.adv if isinstance(answer, Attributed) else answer


def accuracy(net, adv, y):
    return float((net(adv).argmax(1) == y).float().mean())


def test_presets_are_those_of_the_literature():
    # At eps 8/255: 20 steps of 2/255; 20 steps of 0.003; 30 steps of 2/255 on the margin.
    eps = 8 / 255
    assert (PGD_SAT.steps, PGD_SAT.loss, PGD_SAT.start) == (20, "cross_entropy", "uniform")
    assert PGD_SAT.stride * eps == pytest.approx(2 / 255)
    assert (PGD_TRADES.steps, PGD_TRADES.loss, PGD_TRADES.start) == (20, "cross_entropy", "uniform")
    assert PGD_TRADES.stride * eps == pytest.approx(0.003)
    assert (CW.steps, CW.loss) == (30, "margin")
    assert CW.stride * eps == pytest.approx(2 / 255)


def test_fgsm_is_its_formula(net, batch):
    x, y = batch
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(leaf), y, reduction="sum"), leaf)
    assert torch.equal(attack(FGSM(), net, batch), (x + 0.08 * grad.sign()).clamp(0, 1))


def test_fgsm_reaches_the_optimum_of_a_linear_model():
    victim = black_and_white()
    adv = run(FGSM(), victim)
    toward = torch.where(victim.y == 0, -1.0, 1.0)[:, None] * victim.model.weight.detach()
    expected = (victim.x + 0.1 * toward.sign().reshape(victim.x.shape)).clamp(0, 1)
    torch.testing.assert_close(adv, expected)


def test_more_work_is_no_weaker(net, batch):
    """A longer walk from the same start breaks what a shorter one breaks; FGSM is one step of a walk from the image."""
    x, y = batch
    assert accuracy(net, x, y) == 1
    ends = {steps: attack(PGD(steps=steps, start="zero"), net, batch) for steps in (1, 5, 20, 100)}
    broken = [net(adv).argmax(1) != y for adv in ends.values()]
    for fewer, more in pairwise(broken):
        assert not (fewer & ~more).any()
    assert int(broken[0].sum()) < int(broken[-1].sum())
    assert torch.equal(attack(PGD(steps=1, stride=1.0, start="zero"), net, batch), attack(FGSM(), net, batch))
    fgsm, short, long = (accuracy(net, attack(a, net, batch), y) for a in (FGSM(), PGD_SAT, PGD_100))
    assert 0.05 < long <= short < fgsm < 1


@pytest.mark.parametrize(
    "chosen", [FGSM(), PGD_SAT, CW, PGD(steps=5, restarts=3)], ids=["fgsm", "pgd", "cw", "restarts"]
)
@pytest.mark.parametrize("norm", [LINF, L2], ids=lambda norm: norm.name)
def test_results_do_not_depend_on_batch_size_or_order(net, batch, chosen, norm):
    eps, y = 0.08 if norm is LINF else 0.5, batch[1]
    whole = attack(chosen, net, batch, eps=eps, norm=norm)
    verdicts = net(whole).argmax(1) == y
    assert 0 < int(verdicts.sum()) < len(y)
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    singles = torch.arange(6).split(1)
    for rows in (shuffled, *torch.arange(len(y)).split(7), *singles):
        part = attack(chosen, net, batch, rows, eps=eps, norm=norm)
        assert torch.equal(net(part).argmax(1) == y[rows], verdicts[rows])
        assert ((part - whole[rows]).abs() < 1e-4).float().mean() > 0.98


def test_seeds_and_restarts_draw_afresh(net, batch):
    first, again, other = (attack(PGD(steps=1, stride=0.01), net, batch, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def iterates(net, batch, stride, start, steps):
    """Every image of a walk of each digit, the start first, by the textbook's loop."""
    x, y = batch
    adv, seen = (x + start).clamp(0, 1), []
    for _ in range(steps):
        seen.append(adv)
        leaf = adv.clone().requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(leaf), y, reduction="sum"), leaf)
        adv = (x + (adv + stride * grad.sign() - x).clamp(-0.08, 0.08)).clamp(0, 1)
    return [*seen, adv]


def test_of_all_restarts_the_first_break_is_kept_or_else_the_largest_margin(net, batch):
    x, y = batch
    chosen = PGD(steps=3, restarts=2)
    own = Streams(0, torch.arange(len(y))).fork(repr(chosen))
    starts = [LINF.noise(own.fork(restart), x, torch.full((len(y),), 0.08)) for restart in range(2)]
    with prepared(net):
        seen = torch.stack([adv for start in starts for adv in iterates(net, batch, 0.02, start, 3)])
        margins = torch.stack([margin(net(adv), y) for adv in seen])
    broken = margins > 0
    assert 0 < int(broken.any(0).sum()) < len(y)
    best = torch.where(broken.any(0), broken.int().argmax(0), margins.argmax(0))
    expected = seen[best, torch.arange(len(y))]
    torch.testing.assert_close(attack(chosen, net, batch), expected)


def test_an_image_costs_nothing_more_once_it_is_broken(net, batch):
    x, y = batch
    start = LINF.noise(Streams(0, torch.arange(len(y))).fork(repr(PGD_SAT)).fork(0), x, torch.full((len(y),), 0.08))
    with prepared(net):
        broken = torch.stack([net(adv).argmax(1) != y for adv in iterates(net, batch, 0.02, start, 20)[:-1]])
        answer = PGD_SAT(net, x, y, eps=0.08, norm=LINF, streams=Streams(0, torch.arange(len(y))))
    expected = torch.where(broken.any(0), broken.int().argmax(0) + 1, 20)
    assert 0 < int(broken.any(0).sum()) < len(y)
    assert answer.forwards.tolist() == expected.tolist()
    assert answer.backwards.tolist() == expected.tolist()
    assert (answer.by == 0).tolist() == broken.any(0).tolist()


def test_zero_start_is_not_random(net, batch):
    chosen = PGD(steps=4, start="zero")
    assert torch.equal(attack(chosen, net, batch, seed=0), attack(chosen, net, batch, seed=1))


@pytest.mark.parametrize("loss", ["margin", "dlr"])
def test_margin_losses_break_images_too(net, batch, loss):
    assert accuracy(net, attack(PGD(loss=loss), net, batch, eps=0.2), batch[1]) < 0.3


def test_dlr_says_how_many_classes_it_needs():
    victim = small_network()
    two = nn.Sequential(copy.deepcopy(victim.model), nn.Linear(4, 2)).eval()
    with pytest.raises(BadModel, match="dlr loss needs at least 3 classes, the model has 2"):
        PGD(loss="dlr")(two, victim.x, victim.y % 2, eps=0.1, norm=LINF, streams=Streams(0, torch.arange(12)))
    adv = CW(two, victim.x, victim.y % 2, eps=0.1, norm=LINF, streams=Streams(0, torch.arange(12))).adv
    assert adv.shape == victim.x.shape


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "steps of a PGD is 0"),
        ({"restarts": 0}, "restarts of a PGD is 0"),
        ({"stride": 0.0}, "stride of a PGD is 0.0"),
        ({"stride": float("nan")}, "stride of a PGD is nan"),
        ({"loss": "hinge"}, "loss of a PGD is 'hinge'; choose one of cross_entropy, margin, dlr"),
        ({"start": "corner"}, "start of a PGD is 'corner'"),
        ({"start": "zero", "restarts": 2}, "2 restarts of a PGD from zero"),
    ],
)
def test_options_that_make_no_attack_are_refused(options, complaint):
    with pytest.raises(BadOption, match=complaint):
        PGD(**options)
