from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn

from bench.attacks import standing as module
from bench.attacks.base import Attributed
from bench.attacks.fab import FAB, FAB_T, FAB_UNTARGETED, nearest
from bench.attacks.prepare import prepared
from bench.conformance.attacks import EPS as LINEAR_EPS, black_and_white
from bench.errors import BadOption
from bench.evaluation.meter import Meter
from bench.norms import L2, LINF, Norm
from bench.randomness import Streams

EPS = {"Linf": 0.03, "L2": 0.2}
NORMS = pytest.mark.parametrize("norm", [LINF, L2], ids=lambda norm: norm.name)
FIRST = FAB(targets=1)
"""Towards the likeliest wrong class only."""


class Recorder(nn.Module):
    """A model that remembers what it was asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.model(x)


def victim(classes: int = 6, n: int = 16) -> tuple[nn.Module, Tensor, Tensor]:
    """A random network on 2x6x6 images, without kinks, and its own answers as labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(288, 16),
            nn.Tanh(),
            nn.Linear(16, classes),
        )
        x = torch.rand(n, 2, 6, 6)
    model = model.eval().requires_grad_(False)
    return model, x, model(x).argmax(1)


def attack(chosen, model, x, y, rows=None, *, norm=LINF, seed=0, eps=None) -> Attributed:
    rows = torch.arange(len(x)) if rows is None else rows
    with prepared(model):
        return chosen(model, x[rows], y[rows], eps=eps or EPS[norm.name], norm=norm, streams=Streams(seed, rows))


def reference(model: nn.Module, norm: Norm, **options) -> FABAttack_PT:
    return FABAttack_PT(model, norm=norm.name, device="cpu", **{"n_iter": 100, "eps": EPS[norm.name], **options})


def without_repeats(asked: list[Tensor], row: int) -> list[Tensor]:
    """What was asked about one image of a batch in turn; a point asked several times in a row once."""
    points = [point[row] for point in asked]
    return [points[0], *(b for a, b in pairwise(points) if not torch.equal(a, b))]


@NORMS
@pytest.mark.parametrize("targets", [1, 0], ids=["targeted", "untargeted"])
def test_every_iterate_is_that_of_the_reference_until_one_step_back_is_not_enough(norm, targets):
    model, x, y = victim()
    ours, theirs = Recorder(model), Recorder(model)
    attack(FAB(targets=targets, steps=12), ours, x, y, norm=norm, eps=1e-6)
    walker = reference(theirs, norm, n_iter=12)
    walker.target_class = 2
    walker.attack_single_run(x, y, is_targeted=targets > 0)
    compared, backs = 0, 0
    for row in range(len(x)):
        points = [point[row] for point in ours.seen[1:]]  # the first is to rank the targets
        misled = [bool(model(point[None]).argmax(1) != y[row]) for point in points]
        twice = [step for step in range(1, len(points)) if misled[step - 1] and misled[step]]
        length = min([len(points), *(step + 1 for step in twice)])
        for a, b in zip(points[:length], without_repeats(theirs.seen, row), strict=False):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
        compared += length
        backs += sum(misled[: length - 1])
    assert compared > 6 * len(x)
    assert backs > len(x)


@NORMS
def test_it_gets_as_near_to_the_images_as_the_reference(norm):
    model, x, y = victim(n=32)
    recorder = Recorder(model)
    attack(FIRST, recorder, x, y, norm=norm, eps=1e-6)
    ours = torch.full((32,), torch.inf)
    for point in recorder.seen:
        ours = ours.minimum(norm.size(point - x).where(model(point).argmax(1) != y, torch.inf))
    walker = reference(model, norm)
    walker.target_class = 2
    theirs = norm.size(walker.attack_single_run(x, y, is_targeted=True) - x)
    assert theirs.min() > 0
    assert (ours / theirs).mean() < 1.005
    assert (ours / theirs).max() < 1.1


@NORMS
@pytest.mark.parametrize(("chosen", "targeted"), [(FAB_T, True), (FAB_UNTARGETED, False)], ids=["t", "untargeted"])
def test_it_breaks_what_the_reference_breaks_within_eps(norm, chosen, targeted):
    model, x, y = victim(n=64)
    answer = attack(chosen.fitted(6), model, x, y, norm=norm)
    broken = model(answer.adv).argmax(1) != y
    assert torch.equal(broken, answer.by == 0)
    assert (norm.size(answer.adv.double() - x.double()) <= EPS[norm.name] * (1 + 1e-6)).all()
    assert float(answer.adv.min()) >= 0
    assert float(answer.adv.max()) <= 1
    expected = model(reference(model, norm, targeted=targeted, n_target_classes=5).perturb(x, y)).argmax(1) != y
    assert 15 < int(expected.sum()) < 50
    assert int((broken != expected).sum()) <= 1


@NORMS
@pytest.mark.parametrize("chosen", [FAB(targets=1, steps=20), FAB(steps=20)], ids=["targeted", "untargeted"])
def test_the_distance_to_a_plane_is_found_exactly(norm, chosen):
    """Two classes with a plane between them: each image is broken just beyond its own distance and not before."""
    model, x, y = black_and_white()
    weight = model.weight[None].sign() * torch.where(y == 0, -1, 1)[:, None] * model.weight.abs()
    free = torch.where(weight > 0, x.flatten(1) == 0, x.flatten(1) == 1)  # black and white pixels have one way to go
    gap, pull = (x.flatten(1) * model.weight).sum(1).abs().detach(), (weight.abs() * free).detach()
    distance = gap / (pull.sum(1) if norm is LINF else pull.norm(dim=1))
    if norm is LINF:
        assert (distance < LINEAR_EPS).all()
    for row in range(3):
        only, eps = torch.tensor([row]), float(distance[row])
        assert attack(chosen, model, x, y, only, norm=norm, eps=1.01 * eps).by.item() == 0
        assert attack(chosen, model, x, y, only, norm=norm, eps=0.99 * eps).by.item() < 0


@NORMS
@pytest.mark.parametrize(
    "chosen", [FAB(targets=3, steps=30), FAB(steps=30), FAB(targets=2, restarts=2, steps=20)], ids=repr
)
def test_results_do_not_depend_on_the_batch_nor_on_who_leaves_it(norm, chosen, monkeypatch):
    model, x, y = victim(n=32)
    model, x = model.double(), x.double()
    whole = attack(chosen, model, x, y, norm=norm)
    assert 5 < int((whole.by == 0).sum()) < 27
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    for rows in (shuffled, *torch.arange(len(y)).split(11), torch.tensor([5])):
        part = attack(chosen, model, x, y, rows, norm=norm)
        torch.testing.assert_close(part.adv, whole.adv[rows], rtol=0, atol=1e-5)
        assert torch.equal(part.by, whole.by[rows])
        assert torch.equal(part.forwards, whole.forwards[rows])
    monkeypatch.setattr(module, "patience", lambda device: 10**9)  # as if nobody left before the end of a walk
    kept = attack(chosen, model, x, y, norm=norm)
    torch.testing.assert_close(kept.adv, whole.adv, rtol=0, atol=1e-5)
    assert torch.equal(kept.by, whole.by)


@pytest.mark.parametrize("chosen", [FAB_T, FAB_UNTARGETED, FAB(steps=3, restarts=2), FAB(targets=2, restarts=2)])
def test_a_survivor_costs_what_is_forecast_and_less_than_the_references(chosen):
    model, x, y = victim(classes=12, n=3)
    meter = Meter(model)
    answer = attack(chosen, meter, x, y, eps=1e-6)
    assert answer.by.tolist() == [-1] * 3
    forwards, backwards = chosen.fitted(12).passes(12)
    assert answer.forwards.tolist() == [forwards] * 3
    assert answer.backwards.tolist() == [backwards] * 3
    assert (meter.forwards, meter.backwards) == (3 * forwards, 3 * backwards)
    assert FAB_T.passes(12) == (1 + 9 * 101, 9 * 100)  # the reference takes 1,828 and 900
    assert FAB_UNTARGETED.passes(12) == (1 + 101, 11 * 100)


@NORMS
def test_the_fallen_leave_with_the_iterate_that_broke_them_and_survivors_with_their_nearest_one(norm):
    model, x, y = victim()
    fallen = 0
    for row in range(6):
        recorder = Recorder(model)
        answer = attack(FAB(targets=2, steps=30), recorder, x, y, torch.tensor([row]), norm=norm)
        if answer.by.item() == 0:
            fallen += 1
            assert torch.equal(answer.adv, recorder.seen[-1])
            assert answer.forwards.item() == len(recorder.seen)
        points = torch.cat(recorder.seen)
        inside = norm.size(points - x[row]) <= EPS[norm.name]
        logits = model(points)
        rivals = logits.index_fill(1, y[row], -torch.inf).amax(1)
        height = (rivals - logits[:, y[row]]).where(inside, -torch.inf)
        assert torch.equal(answer.adv[0], points[int(height.argmax())])
        assert not (height[:-1] > 0).any()
    assert 0 < fallen < 6


@NORMS
def test_restarts_begin_half_of_eps_away_each_somewhere_else(norm):
    model, _, _ = victim()
    x = torch.full((8, 2, 6, 6), 0.5)
    y = model(x).argmax(1)
    recorder = Recorder(model)
    attack(FAB(steps=1, restarts=3), recorder, x, y, norm=norm, eps=1e-3)
    attack(FAB(steps=1, restarts=2), recorder, x, y, norm=norm, eps=1e-3, seed=1)
    assert torch.equal(recorder.seen[1], x)
    starts = [recorder.seen[i] - x for i in (3, 5, 10)]
    for start in starts:
        torch.testing.assert_close(norm.size(start), torch.full((8,), 5e-4), rtol=2e-3, atol=0)
    flat = torch.cat(starts).flatten(1)
    likeness = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], dim=2) - torch.eye(24)
    assert likeness.abs().max() < 0.6  # no two of 24 alike; independent ones have a deviation of 0.12


@NORMS
def test_a_move_goes_beyond_the_border_with_a_pull_towards_the_image(norm):
    # One pixel at 0.2, now at 0.3, border at 0.5: from there 0.3 + 1.05 * 0.2, from the image 0.2 + 1.05 * 0.3; the
    # shares are 0.6 and 0.4, or 0.9 and 0.1 with the pull limited. At 0.49 the share is 0.01 / 0.31, below the limit.
    x, adv = (torch.tensor([[[[at, at]]]]).reshape(2, 1, 1, 1) for at in (0.2, 0.3))
    adv[1] = 0.49
    value, grad = torch.tensor([-0.2 * 7, -0.01 * 7]), torch.full((2, 1, 1, 1), 7.0)
    free = 0.01 / 0.31
    near = (1 - free) * (0.49 + 1.05 * 0.01) + free * 0.515
    for alpha_max, pull in ((1.0, 0.4), (0.1, 0.1)):
        beyond = FAB(alpha_max=alpha_max).beyond(adv, x, value, grad, norm).flatten()
        assert beyond.tolist() == pytest.approx([(1 - pull) * 0.51 + pull * 0.515, near], abs=1e-6)


@NORMS
def test_the_nearest_border_is_the_one_of_the_shortest_way(norm):
    values = torch.tensor([[-1.0, 2.0, 0.5], [-1.0, -3.0, 9.0], [torch.nan, -1.0, -2.0]])
    grads = torch.tensor([[[3.0, 4.0], [8.0, 9.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 0.0], [2.0, 2.0]]])
    grads = torch.cat((grads, torch.tensor([[[1.0, 1.0], [0.0, 0.1], [0.0, 1.0]]]))).reshape(3, 3, 1, 1, 2)
    # Linf: 1/7, 2/17, 0.5; none, 3, 9/4. L2: 1/5, 2/12.04, 0.5; none, 3, 9/2.83. Then no number, 10, 2.
    expected = [1, 2 if norm is LINF else 1, 2]
    value, grad = nearest(values, grads, norm)
    assert value.tolist() == [values[row, t] for row, t in enumerate(expected)]
    assert torch.equal(grad, torch.stack([grads[row, t] for row, t in enumerate(expected)]))


@NORMS
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("chosen", [FAB_T, FAB_UNTARGETED], ids=["t", "untargeted"])
def test_few_classes(norm, classes, chosen):
    model, x, y = victim(classes)
    fitted = chosen.fitted(classes)
    assert fitted.targets == (classes - 1 if chosen is FAB_T else 0)
    answer = attack(fitted, model, x, y, norm=norm, eps=5 * EPS[norm.name])
    assert 0 < int((answer.by == 0).sum()) < len(x)
    assert torch.equal(model(answer.adv).argmax(1) != y, answer.by == 0)
    assert attack(fitted, model, x, y, torch.tensor([2]), norm=norm).adv.shape == (1, 2, 6, 6)


class Blind(nn.Module):
    """The same answer to every image, or one whose gradient is no number."""

    def __init__(self, nan: bool) -> None:
        super().__init__()
        self.nan = nan

    def forward(self, x: Tensor) -> Tensor:
        flat = 0 * x.flatten(1).sum(1, keepdim=True)
        if self.nan:
            flat = flat + (0 * flat).sqrt()
        return flat * torch.arange(5) + torch.tensor([3.0, 2, 1, 0, -1])


@NORMS
@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("chosen", [FIRST, FAB_UNTARGETED], ids=["targeted", "untargeted"])
def test_gradients_that_show_no_way_break_nothing(norm, nan, chosen):
    x, y = torch.full((3, 1, 4, 4), 0.4), torch.zeros(3, dtype=torch.int64)
    answer = attack(chosen, Blind(nan), x, y, norm=norm, eps=0.01)
    assert answer.by.tolist() == [-1] * 3
    assert torch.equal(answer.adv, x)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "steps of a FAB is 0"),
        ({"restarts": 0}, "restarts of a FAB is 0"),
        ({"targets": -1}, "targets of a FAB is -1"),
        ({"alpha_max": 1.5}, "alpha_max of a FAB is 1.5"),
        ({"eta": 0.0}, "eta of a FAB is 0.0"),
        ({"beta": 1.0}, "beta of a FAB is 1.0"),
    ],
)
def test_options_that_make_no_attack_are_refused(options, complaint):
    with pytest.raises(BadOption, match=complaint):
        FAB(**options)
