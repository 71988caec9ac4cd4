from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.attacks.lineup import LineUp
from bench.attacks.standing import Search, Standing
from bench.attacks.trial import described
from bench.evaluation.meter import Meter
from bench.norms import LINF, Norm
from bench.randomness import Streams

X = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.9]).reshape(5, 1, 1, 1)
Y = torch.tensor([0, 0, 0, 0, 1])


class Threshold(nn.Module):
    """Class 1 above half brightness, class 0 below."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(bright), bright - 0.5], 1)


@dataclass(frozen=True)
class Shift(Search):
    """Adds a share of eps."""

    share: float

    def search(self, standing: Standing, *, eps: float, norm: Norm, streams: Streams) -> None:
        adv = (standing.x + self.share * eps).clamp(0, 1)
        standing.see(adv, standing.logits(adv))

    def fitted(self, classes: int) -> Shift:
        return replace(self, share=self.share / classes)


@dataclass(frozen=True)
class Three(LineUp):
    lineup = ("weak", "strong", "weaker")

    weak: Shift = Shift(0.5)
    strong: Shift = Shift(1.0)
    weaker: Shift = Shift(0.2)


def run(attack: Search, model: nn.Module, rows: Tensor | None = None, eps: float = 0.25):
    rows = torch.arange(len(X)) if rows is None else rows
    return attack(model, X[rows], Y[rows], eps=eps, norm=LINF, streams=Streams(0, rows))


def test_each_attack_gets_what_the_ones_before_left():
    meter = Meter(Threshold())
    answer = run(Three(), meter)
    assert answer.by.tolist() == [-1, -1, 1, 0, -1]
    assert answer.forwards is not None
    assert answer.forwards.tolist() == [3, 3, 2, 1, 3]
    assert meter.forwards == 12
    expected = torch.tensor([0.35, 0.45, 0.55, 0.525, 0.95]).reshape(5, 1, 1, 1)  # of those that stand the nearest
    torch.testing.assert_close(answer.adv, expected)


def test_nothing_is_asked_of_the_model_once_all_have_fallen():
    meter = Meter(Threshold())
    answer = run(Three(), meter, torch.tensor([3]))
    assert answer.by.tolist() == [0]
    assert meter.forwards == 1


def test_a_lineup_is_a_part_like_any_other():
    @dataclass(frozen=True)
    class Outer(LineUp):
        lineup = ("first", "three")

        first: Shift = Shift(0.1)
        three: Three = Three()

    answer = run(Outer(), Threshold())
    assert answer.by.tolist() == [-1, -1, 1, 1, -1]


def test_costs_and_fingerprint_are_those_of_the_parts():
    assert described(Three())["fields"]["strong"] == described(Shift(1.0))
    assert described(Three(weak=Shift(0.4))) != described(Three())
    assert Three().fitted(2) == Three(Shift(0.25), Shift(0.5), Shift(0.1))
