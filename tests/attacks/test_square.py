from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from bench.attacks import square as module, standing as standing_module
from bench.attacks.base import Attributed, Passes
from bench.attacks.square import SQUARE, Square
from bench.attacks.square_windows import CHANGES
from bench.attacks.standing import Standing
from bench.data.load import load
from bench.errors import BadBudget, BadOption
from bench.evaluation.meter import Meter
from bench.losses import margin
from bench.norms import L2, LINF, L2Norm, Norm
from bench.randomness import Streams

BALLS = [pytest.param(LINF, 0.12, id="Linf"), pytest.param(L2, 0.6, id="L2")]
FEW = Square(queries=300)


@pytest.fixture(scope="module")
def net(digits_network, exact) -> nn.Module:
    return exact(digits_network()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch(net) -> tuple[Tensor, Tensor]:
    """60 test images that it classifies correctly."""
    x, y = load("digits").batch(slice(0, 80))
    right = net(x).argmax(1) == y
    return x[right][:60], y[right][:60]


class Recorder(nn.Module):
    """Keeps all images that were put to a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        answer: Tensor = self.model(x)
        return answer


def attack(
    chosen: Square,
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    norm: Norm,
    eps: float,
    rows: Tensor | None = None,
    seed: int = 0,
) -> Attributed:
    x, y = batch
    rows = torch.arange(len(x)) if rows is None else rows
    return chosen(model, x[rows], y[rows], eps=eps, norm=norm, streams=Streams(seed, rows))


def passes(answer: Attributed) -> Tensor:
    assert answer.forwards is not None
    return answer.forwards


def assert_as_good(model: nn.Module, y: Tensor, answer: Attributed, adv: Tensor) -> None:
    """The same broken images; survivors of the same margin: they may differ where the model does not look."""
    torch.testing.assert_close(answer.adv[answer.by == 0], adv[answer.by == 0])
    torch.testing.assert_close(margin(model(answer.adv), y), margin(model(adv), y), rtol=0, atol=1e-4)


def test_the_standard_asks_5000_times_with_falling_sides():
    assert (SQUARE.queries, SQUARE.p_init, SQUARE.restarts) == (5000, 0.8, 1)
    phases = list(SQUARE.phases())
    assert [(first, last) for first, last, _ in phases] == [
        (0, 11),
        (11, 51),
        (51, 201),
        (201, 501),
        (501, 1001),
        (1001, 2001),
        (2001, 4001),
        (4001, 5000),
    ]
    assert [CHANGES["Linf"].side(share, 32, 32) for *_, share in phases] == [29, 20, 14, 10, 7, 5, 4, 3]


@pytest.mark.parametrize("queries", [1, 11, 12, 5000, 10_000])
def test_the_schedule_is_that_of_the_released_code(queries):
    released = pyautoattack.AutoAttack(nn.Identity(), norm="Linf", eps=0.1, seed=0).square
    assert not released.rescale_schedule
    drawn = [share for first, last, share in Square(queries=queries).phases() for _ in range(first, last)]
    assert drawn == [released.p_selection(query) for query in range(queries)]


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_it_breaks_images_and_says_which(net, batch, norm, eps):
    x, y = batch
    answer = attack(FEW, net, batch, norm, eps)
    broken = net(answer.adv).argmax(1) != y
    assert 10 < int(broken.sum()) < 55
    assert torch.equal(answer.by == 0, broken)
    assert float(norm.size(answer.adv.double() - x.double()).max()) <= eps * (1 + 1e-6)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_images_that_the_start_breaks_cost_one_pass(net, batch, norm, eps):
    x, y = batch
    answer = attack(FEW, net, (x, (y + 1) % 10), norm, eps / 10)
    assert (answer.by == 0).all()
    assert (passes(answer) == 1).all()


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_the_best_image_by_hand(net, batch, norm, eps):
    """A plain loop over the drawn queries, image by image, that puts every one of them to the model."""
    x, y = batch[0][:8], batch[1][:8]
    chosen, changes, eps = Square(queries=60), CHANGES[norm.name], 1.6 * eps
    answer = attack(chosen, net, (x, y), norm, eps)
    assert 0 < int((answer.by == 0).sum()) < 8
    for image in range(8):
        one = x[image : image + 1]
        streams = Streams(0, torch.tensor([image])).fork("square").fork(0)
        best = changes.start(one, eps, streams.fork("start"))
        height = float(margin(net(best), y[image : image + 1]))
        for first, last, share in chosen.phases():
            block = changes.block(one, eps, changes.side(share, 8, 8), module.AHEAD, streams.fork(first), 0)
            for turn in range(last - first):
                adv = block.candidate(turn, best)
                logits = net(adv)
                new = float(margin(logits, y[image : image + 1]))
                if height <= 0 and new > height + module.ROUNDING * float(logits.abs().max()):
                    best, height = adv, new
        assert (height > 0) == (int(answer.by[image]) == 0)
        assert_as_good(net, y[image : image + 1], Attributed(*(part[image : image + 1] for part in answer)), best)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_every_iterate_keeps_to_the_budget(net, batch, norm, eps):
    x, y = batch[0][:1], batch[1][:1]
    recorder = Recorder(net)
    attack(FEW, recorder, (x, y), norm, eps / 10)  # too little to break it
    seen = torch.cat(recorder.seen)
    assert len(seen) > 100
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1
    delta = seen.double() - x.double()
    if norm is LINF:
        ends = (x - eps / 10).clamp(min=0), (x + eps / 10).clamp(max=1)
        assert ((seen == ends[0]) | (seen == ends[1])).all()
    else:
        size = norm.size(delta)
        assert float(size.max()) <= eps / 10 * (1 + 1e-6)
        assert float(size.min()) < eps / 10 * 0.99  # black pixels lose what would make them darker


def test_in_l2_the_whole_budget_is_used_away_from_the_border_of_the_box(net, batch):
    x, y = 0.25 + 0.5 * batch[0], batch[1]
    right = net(x).argmax(1) == y
    recorder = Recorder(net)
    attack(FEW, recorder, (x[right][:1], y[right][:1]), L2, 0.05)
    size = L2.size(torch.cat(recorder.seen).double() - x[right][:1].double())
    torch.testing.assert_close(size, torch.full_like(size, 0.05), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_the_result_does_not_depend_on_the_batch(net, batch, norm, eps):
    whole = attack(FEW, net, batch, norm, eps)
    turned = torch.arange(60).flip(0)
    for rows in (*turned.split(7), torch.arange(3)[:, None][0]):
        part = attack(FEW, net, batch, norm, eps, rows)
        assert torch.equal(part.by, whole.by[rows])
        assert torch.equal(passes(part), passes(whole)[rows])
        assert_as_good(net, batch[1][rows], part, whole.adv[rows])
    assert not torch.equal(attack(FEW, net, batch, norm, eps, seed=1).adv, whole.adv)


@contextmanager
def everything_is_put_to_the_model() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REMEMBERED", 0)
        yield


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_what_is_not_put_to_the_model_would_have_changed_nothing(net, batch, norm, eps):
    chosen = Square(queries=1500)
    meter = Meter(net)
    thrifty = attack(chosen, meter, batch, norm, eps)
    assert int(passes(thrifty).sum()) == meter.forwards
    with everything_is_put_to_the_model():
        meter = Meter(net)
        full = attack(chosen, meter, batch, norm, eps)
    assert int(passes(full).sum()) == meter.forwards
    assert torch.equal(thrifty.by, full.by)
    assert_as_good(net, batch[1], thrifty, full.adv)
    assert (passes(thrifty) <= passes(full)).all()
    stood = full.by < 0
    assert (passes(full)[stood] == 1501).all()
    assert chosen.passes(10) == Passes(1501, 0)
    if norm is LINF:
        assert float(passes(thrifty)[stood].float().mean()) < 1501 / 2


def test_how_many_queries_small_images_do_without_is_forecast(net, batch):
    answer = attack(SQUARE, Meter(net), batch, LINF, 0.12)
    stood = answer.by < 0
    took = float(passes(answer)[stood].float().mean())
    assert took / 1.5 < SQUARE.forecast(10, batch[0].shape[1:]).forwards < 1.5 * took
    assert SQUARE.spared((3, 224, 224)) == 0
    assert Square(restarts=2).spared((1, 8, 8)) == 2 * SQUARE.spared((1, 8, 8))


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_where_asking_who_fell_is_dear_the_result_is_the_same(net, batch, norm, eps, monkeypatch):
    at_once = attack(FEW, net, batch, norm, eps)
    for place in (module, standing_module):
        monkeypatch.setattr(place, "patience", lambda device: 10)
    later = attack(FEW, net, batch, norm, eps)
    assert torch.equal(later.by, at_once.by)
    assert_as_good(net, batch[1], later, at_once.adv)


def test_it_walks_from_its_own_start_and_keeps_the_nearest_of_all(net, batch):
    x, y = batch
    before, alone = Standing(net, x, y), Standing(net, x, y)
    near = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    rows = before.see(near, net(near))
    assert rows is not None
    heights = margin(net(near), y)
    for standing in (before, alone):
        FEW.search(standing, eps=0.02, norm=LINF, streams=Streams(0, torch.arange(60)))
    both, square = before.answer(), alone.answer()
    stood = (both.by < 0) & (square.by < 0)
    nearer = margin(net(square.adv), y) > heights
    assert (stood & nearer).any()
    assert (stood & ~nearer).any()
    assert torch.equal(both.by[heights <= 0], square.by[heights <= 0])
    torch.testing.assert_close(margin(net(both.adv), y)[stood & nearer], margin(net(square.adv), y)[stood & nearer])
    assert torch.equal(both.adv[stood & ~nearer], near[stood & ~nearer])


def test_a_break_that_fp32_does_not_confirm_is_none(net, batch):
    _, y = batch

    class Blurred(nn.Module):
        """A lower precision: the likeliest class loses a little."""

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = net(x)
            return logits - 0.1 * nn.functional.one_hot(logits.argmax(1), 10)

    meter = Meter(Blurred(), exact=net)
    answer = attack(FEW, meter, batch, LINF, 0.12)
    broken = net(answer.adv).argmax(1) != y
    assert broken[answer.by == 0].all()
    assert int(passes(answer).sum()) == meter.forwards
    assert abs(int(broken.sum()) - int((attack(FEW, net, batch, LINF, 0.12).by == 0).sum())) <= 5


def test_another_restart_draws_anew_for_those_that_stand(net, batch):
    once, twice = (attack(Square(queries=50, restarts=count), net, batch, LINF, 0.1) for count in (1, 2))
    assert torch.equal(twice.adv[once.by == 0], once.adv[once.by == 0])
    assert int((twice.by == 0).sum()) > int((once.by == 0).sum())
    stood = twice.by < 0
    assert (margin(net(twice.adv), batch[1]) >= margin(net(once.adv), batch[1]) - 1e-6)[stood].all()
    assert (margin(net(twice.adv), batch[1]) > margin(net(once.adv), batch[1]) + 1e-6)[stood].any()


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_it_is_no_weaker_than_the_released_code(net, batch, norm, eps):
    """Which leaves out the last row and column of these small images, and breaks a few less."""
    x, y = batch
    ours, theirs = [], []
    for seed in range(2):
        ours.append(int((attack(Square(queries=400), net, batch, norm, eps, seed=seed).by == 0).sum()))
        released = pyautoattack.AutoAttack(net, norm=norm.name, eps=eps, seed=seed).square
        released.n_queries = 400
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            found = released.perturb(x, y)
            theirs.append(int((net(found).argmax(1) != y).sum()))
    assert -3 <= sum(ours) / 2 - sum(theirs) / 2 <= 15, (ours, theirs)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"queries": 0}, "queries of a Square is 0"),
        ({"restarts": 0}, "restarts of a Square is 0"),
        ({"p_init": 0.0}, "p_init of a Square is 0.0"),
        ({"p_init": 1.5}, "p_init of a Square is 1.5"),
        ({"p_init": float("nan")}, "p_init of a Square is nan"),
    ],
)
def test_options_that_make_no_attack_are_refused(options, complaint):
    with pytest.raises(BadOption, match=complaint):
        Square(**options)


def test_another_geometry_is_refused(net, batch):
    with pytest.raises(BadBudget, match="Square searches in Linf and L2, not in L0"):
        attack(FEW, net, batch, replace(L2Norm(), name="L0"), 0.1)
