from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pyautoattack.autopgd_base as reference
import pytest
import torch
from torch import Tensor, nn

from bench.attacks import standing as module
from bench.attacks.apgd import APGD, APGD_CE, APGD_DLR, APGD_T, windows
from bench.attacks.base import Attributed
from bench.attacks.prepare import prepared
from bench.errors import BadModel, BadOption
from bench.evaluation.meter import Meter
from bench.losses import dlr, targeted_dlr
from bench.norms import L2, LINF
from bench.randomness import Streams

EPS = {"Linf": 0.015, "L2": 0.12}
NORMS = pytest.mark.parametrize("norm", [LINF, L2], ids=lambda norm: norm.name)

quiet = logging.Logger("quiet")
quiet.addHandler(logging.NullHandler())


class Recorder(nn.Module):
    """A model that remembers what it was asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.model(x)


def victim(classes: int = 6, n: int = 10, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    """A random network on 2x6x6 images, curved but without kinks, and its own answers as labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(216, 12),
            nn.Tanh(),
            nn.Linear(12, classes),
        )
        x = torch.rand(n, 2, 6, 6).to(dtype)
    model = model.to(dtype).eval().requires_grad_(False)
    for layer in (0, 3, 5):
        model[layer].weight *= 5
    model[5].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


def attack(chosen, model, x, y, rows=None, *, norm=LINF, seed=0, eps=None) -> Attributed:
    rows = torch.arange(len(x)) if rows is None else rows
    with prepared(model):
        return chosen(model, x[rows], y[rows], eps=eps or EPS[norm.name], norm=norm, streams=Streams(seed, rows))


@contextmanager
def doubles() -> Iterator[None]:
    """The reference keeps losses in the default type."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def reference_iterates(model: nn.Module, x, y, start, *, norm, steps, loss, goal=None) -> list[Tensor]:
    """What the reference implementation asks the model for on its walk from `start`."""
    recorder = Recorder(model)
    kind = reference.APGDAttack if goal is None else reference.APGDAttack_targeted
    options = {"loss": loss} if goal is None else {}
    walker = kind(recorder, n_iter=steps, norm=norm.name, eps=EPS[norm.name], device="cpu", logger=quiet, **options)
    walker.init_hyperparam(x)
    walker.y_target = goal
    with doubles():
        walker.attack_single_run(x, y, x_init=start)
    return recorder.seen


@NORMS
@pytest.mark.parametrize("steps", [100, 5])
@pytest.mark.parametrize(
    ("chosen", "loss"), [(APGD_CE, "ce"), (APGD_DLR, "dlr"), (APGD(loss="dlr", targets=2), "dlr-targeted")]
)
def test_every_step_is_that_of_the_reference(norm, steps, chosen, loss):
    """From the same start, in float64. Our walks end where the image falls, and each image walks alone here."""
    model, x, y = victim()
    chosen = replace(chosen, steps=steps)
    alone = []
    for row in range(len(x)):
        recorder = Recorder(model)
        attack(chosen, recorder, x, y, torch.tensor([row]), norm=norm)
        if chosen.targets:
            assert torch.equal(recorder.seen.pop(0), x[row : row + 1])
        alone.append(recorder.seen)
    ranks, length = model(x).argsort(dim=1, descending=True), steps + 1
    lengths = set()
    for rank in range(max(1, chosen.targets)):
        walks = {row: seen[length * rank : length * (rank + 1)] for row, seen in enumerate(alone)}
        rows = torch.tensor([row for row, walk in walks.items() if walk])
        start = torch.cat([walks[int(row)][0] for row in rows])
        goal = ranks[rows, 1 + rank] if chosen.targets else None
        expected = reference_iterates(model, x[rows], y[rows], start, norm=norm, steps=steps, loss=loss, goal=goal)
        assert len(expected) == length
        for position, row in enumerate(rows.tolist()):
            for step, iterate in enumerate(walks[row]):
                torch.testing.assert_close(iterate[0], expected[step][position], rtol=0, atol=1e-7)
            lengths.add(len(walks[row]))
            if len(walks[row]) == 101:  # the last step is a fraction of the first: the walk was slowed at checkpoints
                moves = [norm.size(b - a) for a, b in pairwise(walks[row])]
                assert moves[-1] < moves[0] / 4
    assert length in lengths  # some survived,
    assert len(lengths) > 1  # and some fell on the way


def test_the_checkpoints_are_those_of_the_standard():
    assert list(windows(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(windows(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert windows(1) == {}
    assert windows(3) == {1: 1, 2: 1}


@NORMS
def test_walks_start_on_the_sphere_each_from_its_own_place(norm):
    model, _, _ = victim(dtype=torch.float32)
    x = torch.full((8, 2, 6, 6), 0.5)
    y = model(x).argmax(1)
    recorder = Recorder(model)
    attack(APGD(steps=1, restarts=2), recorder, x, y, norm=norm, eps=1e-4)
    attack(APGD(steps=1), recorder, x, y, norm=norm, eps=1e-4, seed=1)
    attack(APGD(steps=1, loss="dlr", targets=2), recorder, x, y, norm=norm, eps=1e-4)
    starts = [recorder.seen[i] - x for i in (0, 2, 4, 7, 9)]
    for start in starts:
        torch.testing.assert_close(norm.size(start), torch.full((8,), 1e-4), rtol=2e-3, atol=0)
    flat = torch.cat(starts).flatten(1)
    likeness = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], dim=2) - torch.eye(40)
    assert likeness.abs().max() < 0.6  # no two of 40 alike; independent ones have a deviation of 0.12


@NORMS
@pytest.mark.parametrize("chosen", [APGD_CE, APGD_DLR, APGD(loss="dlr", targets=3, steps=30)], ids=repr)
def test_results_do_not_depend_on_the_batch_nor_on_who_leaves_it(norm, chosen, monkeypatch):
    model, x, y = victim(n=24)
    whole = attack(chosen, model, x, y, norm=norm)
    assert 5 < int((whole.by == 0).sum()) < 19
    assert torch.equal(model(whole.adv).argmax(1) != y, whole.by == 0)
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    for rows in (shuffled, *torch.arange(len(y)).split(7), *torch.arange(3).split(1)):
        part = attack(chosen, model, x, y, rows, norm=norm)
        torch.testing.assert_close(part.adv, whole.adv[rows], rtol=0, atol=1e-7)
        assert torch.equal(part.by, whole.by[rows])
        assert torch.equal(part.forwards, whole.forwards[rows])
    monkeypatch.setattr(module, "patience", lambda device: 10**9)  # as if nobody left before the end of a walk
    kept = attack(chosen, model, x, y, norm=norm)
    torch.testing.assert_close(kept.adv, whole.adv, rtol=0, atol=1e-7)
    assert torch.equal(kept.by, whole.by)


@pytest.mark.parametrize("chosen", [APGD_CE, APGD_DLR, APGD_T, APGD(steps=1, restarts=3)], ids=repr)
def test_a_survivor_costs_what_is_forecast_and_less_than_the_references(chosen):
    model, x, y = victim(classes=12, n=3, dtype=torch.float32)
    meter = Meter(model)
    answer = attack(chosen, meter, x, y, eps=1e-6)
    assert answer.by.tolist() == [-1] * 3
    forwards, backwards = chosen.fitted(12).passes(12)
    assert answer.forwards.tolist() == [forwards] * 3
    assert answer.backwards.tolist() == [backwards] * 3
    assert (meter.forwards, meter.backwards) == (3 * forwards, 3 * backwards)
    assert APGD_CE.passes(12) == (101, 100)  # the reference takes 102 and 101
    assert APGD_T.passes(12) == (1 + 9 * 101, 9 * 100)  # the reference takes 919 and 909


def test_survivors_come_back_as_their_nearest_iterate_and_the_fallen_with_what_broke_them():
    model, x, y = victim()
    recorder = Recorder(model)
    rows = [row for row in range(len(x)) if attack(APGD_CE, model, x, y, torch.tensor([row])).by.item() < 0]
    row = torch.tensor(rows[:1])
    answer = attack(APGD_CE, recorder, x, y, row)
    logits = torch.cat([model(seen) for seen in recorder.seen])
    right = logits.gather(1, y[row].expand(101, 1))[:, 0]
    others = logits.scatter(1, y[row].expand(101, 1), -torch.inf).amax(1)
    assert torch.equal(answer.adv, recorder.seen[int((others - right).argmax())])
    assert len(recorder.seen) == 101


@NORMS
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("chosen", [APGD_CE, APGD_DLR, APGD_T], ids=["ce", "dlr", "t"])
def test_few_classes(norm, classes, chosen):
    model, x, y = victim(classes, dtype=torch.float32)
    fitted = chosen.fitted(classes)
    assert fitted.loss == ("cross_entropy" if chosen is APGD_CE else "margin")
    assert fitted.targets == (classes - 1 if chosen is APGD_T else 0)
    answer = attack(fitted, model, x, y, norm=norm)
    assert int((answer.by == 0).sum()) > 0
    assert torch.equal(model(answer.adv).argmax(1) != y, answer.by == 0)


def test_many_classes_are_left_as_they_are():
    for chosen in (APGD_CE, APGD_DLR, APGD_T):
        assert chosen.fitted(10) == chosen
    assert APGD_T.fitted(6).targets == 5


def test_a_loss_says_how_many_classes_it_needs():
    z, y = torch.zeros(2, 2), torch.tensor([0, 1])
    with pytest.raises(BadModel, match="the dlr loss needs at least 3 classes, the model has 2; use the margin"):
        dlr(z, y)
    with pytest.raises(BadModel, match="the targeted dlr loss needs at least 4 classes, the model has 2"):
        targeted_dlr(z, y, 1 - y)


class Blind(nn.Module):
    """The same answer to every image, or none that is a number where a pixel is dark."""

    def __init__(self, nan: bool) -> None:
        super().__init__()
        self.nan = nan

    def forward(self, x: Tensor) -> Tensor:
        flat = 0 * x.flatten(1).sum(1, keepdim=True)
        if self.nan:
            flat = flat + (x.flatten(1).amin(1, keepdim=True) - 0.4).sqrt()
        return flat + torch.tensor([3.0, 2, 1, 0, -1])


@NORMS
@pytest.mark.parametrize("nan", [False, True])
def test_gradients_that_show_no_way_break_nothing(norm, nan):
    x, y = torch.full((3, 1, 4, 4), 0.405), torch.zeros(3, dtype=torch.int64)
    for chosen in (APGD_CE, APGD(loss="dlr", targets=2)):
        answer = attack(chosen, Blind(nan), x, y, norm=norm, eps=0.01)
        if not nan:
            assert answer.by.tolist() == [-1] * 3
            assert answer.adv.isfinite().all()
            assert (norm.size(answer.adv - x) <= 0.01 + 1e-7).all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "steps of an APGD is 0"),
        ({"restarts": 0}, "restarts of an APGD is 0"),
        ({"targets": -1}, "targets of an APGD is -1"),
        ({"loss": "hinge"}, "loss of an APGD without targets is 'hinge'; choose one of cross_entropy, dlr, margin"),
        ({"targets": 3}, "loss of an APGD with 3 targets is 'cross_entropy'; choose one of dlr, margin"),
    ],
)
def test_options_that_make_no_attack_are_refused(options, complaint):
    with pytest.raises(BadOption, match=complaint):
        APGD(**options)
