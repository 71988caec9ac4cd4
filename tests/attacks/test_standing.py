from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from bench.attacks import standing as module
from bench.attacks.standing import Search, Standing
from bench.evaluation.meter import Meter
from bench.losses import margin
from bench.norms import LINF, Norm
from bench.randomness import Streams

X = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(4, 1, 1, 1)
Y = torch.zeros(4, dtype=torch.int64)


class Threshold(nn.Module):
    """Class 1 above a brightness, class 0 below; the margin is how far above."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(bright), bright - self.at], 1)


def look(standing: Standing, brightness: list[float], **options: Tensor) -> Tensor | None:
    adv = torch.tensor(brightness).reshape(-1, 1, 1, 1)
    return standing.see(adv, standing.logits(adv), **options)


def test_the_fallen_leave_at_once_and_the_others_keep_their_nearest_iterate():
    standing = Standing(Threshold(0.5), X, Y)
    assert look(standing, [0.4, 0.3, 0.45, 0.1]) is None
    rows = look(standing, [0.2, 0.6, 0.2, 0.7])
    assert rows is not None
    assert rows.tolist() == [0, 2]
    assert standing.rows.tolist() == [0, 2]
    assert standing.x.flatten().tolist() == pytest.approx([0.1, 0.3])
    assert look(standing, [0.41, 0.44]) is None
    adv, by, forwards, backwards = standing.answer()
    assert adv.flatten().tolist() == pytest.approx([0.41, 0.6, 0.45, 0.7])
    assert by.tolist() == [-1, 0, -1, 0]
    assert forwards is not None
    assert forwards.tolist() == [3, 2, 3, 2]
    assert backwards is not None
    assert backwards.tolist() == [0, 0, 0, 0]


def test_what_lies_outside_the_ball_does_not_count():
    standing = Standing(Threshold(0.5), X, Y)
    rows = look(standing, [0.9, 0.9, 0.2, 0.2], within=torch.tensor([False, True, True, True]))
    assert rows is not None
    assert rows.tolist() == [0, 2, 3]
    assert standing.answer().adv[0].item() == pytest.approx(0.1)


def test_a_tie_falls_only_if_the_answer_is_another_class():
    standing = Standing(Threshold(0.5), X, Y)
    assert look(standing, [0.5] * 4) is None
    standing = Standing(Threshold(0.5), X, torch.ones_like(Y))
    rows = look(standing, [0.5, 0.5, 0.6, 0.6])
    assert rows is not None
    assert rows.tolist() == [2, 3]


def test_the_slope_is_that_of_each_image_and_is_counted():
    standing = Standing(Threshold(0.5), X, Y)
    logits, value, grad = standing.slope(X, lambda logits, y: 3 * margin(logits, y))
    assert value.tolist() == pytest.approx([3 * (b - 0.5) for b in (0.1, 0.2, 0.3, 0.4)])
    assert grad.flatten().tolist() == pytest.approx([3.0] * 4)
    assert not logits.requires_grad
    answer = standing.answer(X)
    assert answer.forwards is not None
    assert answer.backwards is not None
    assert (answer.forwards.tolist(), answer.backwards.tolist()) == ([1] * 4, [1] * 4)


def test_another_precision_is_confirmed_and_a_false_break_stands():
    """Searched with a threshold that is too low; the exact one decides."""
    meter = Meter(Threshold(0.4), exact=Threshold(0.5))
    standing = Standing(meter, X, Y)
    rows = look(standing, [0.45, 0.55, 0.3, 0.3])
    assert rows is not None
    assert rows.tolist() == [0, 2, 3]
    assert standing.margin[0].item() == pytest.approx(-0.05)
    rows = look(standing, [0.6, 0.2, 0.2])
    assert rows is not None
    assert rows.tolist() == [1, 2]
    answer = standing.answer()
    assert answer.by.tolist() == [0, 0, -1, -1]
    assert answer.forwards is not None
    assert answer.forwards.tolist() == [4, 2, 2, 2]
    assert int(answer.forwards.sum()) == meter.forwards


def test_where_asking_is_dear_the_fallen_leave_later_with_the_same_result(monkeypatch):
    monkeypatch.setattr(module, "patience", lambda device: 3)
    standing = Standing(Threshold(0.5), X, Y)
    assert look(standing, [0.4, 0.6, 0.2, 0.2]) is None
    assert look(standing, [0.4, 0.9, 0.7, 0.2]) is None
    rows = look(standing, [0.45, 0.1, 0.1, 0.2])
    assert rows is not None
    assert rows.tolist() == [0, 3]
    assert look(standing, [0.6, 0.3]) is None
    answer = standing.answer(last=torch.tensor([0.6, 0.35]).reshape(2, 1, 1, 1))
    assert answer.adv.flatten().tolist() == pytest.approx([0.6, 0.6, 0.7, 0.35])
    assert answer.by.tolist() == [0, 0, 0, -1]


@dataclass(frozen=True)
class Brighten(Search):
    steps: int = 3

    def search(self, standing: Standing, *, eps: float, norm: Norm, streams: Streams) -> None:
        for step in range(1, self.steps + 1):
            if not len(standing):
                return
            adv = standing.x + eps * step / self.steps
            standing.see(adv, standing.logits(adv))


def test_a_search_works_by_itself():
    attack = Brighten()
    answer = attack(Threshold(0.5), X, Y, eps=0.25, norm=LINF, streams=Streams(0, torch.arange(4)))
    assert answer.by.tolist() == [-1, -1, 0, 0]
    assert answer.forwards is not None
    assert answer.forwards.tolist() == [3, 3, 3, 2]
    assert answer.adv.flatten().tolist() == pytest.approx([0.35, 0.45, 0.55, 0.4 + 0.5 / 3])
    assert X.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
