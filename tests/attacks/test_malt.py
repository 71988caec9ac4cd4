from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.apgd import APGD
from bench.attacks.malt import MALT
from bench.attacks.prepare import prepared
from bench.attacks.standing import Standing
from bench.errors import BadOption
from bench.evaluation.meter import Meter
from bench.norms import L2, LINF, norm
from bench.randomness import Streams

X = torch.full((2, 1, 2, 2), 0.5)
Y = torch.tensor([0, 0])


def linear(weights: list[list[float]], biases: list[float]) -> nn.Module:
    """A linear network on 1x2x2 images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, len(biases)))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(weights))
        model[1].bias.copy_(torch.tensor(biases))
    return model.eval().requires_grad_(False)


# Gradients of the differences to class 0 have entries that sum to 4, 6, 2 and 6, and lengths 2, 6, 1.41 and 3.46.
WEIGHTS = [[0.0, 0, 0, 0], [1, 1, -1, -1], [6, 0, 0, 0], [1, -1, 0, 0], [3, -1, -1, -1]]
# At the image: differences of 1, 1.2, 1.3 and 1.4.
BIASES = [0.0, -1, -1.2 - 3, -1.3, -1.4]


@pytest.mark.parametrize(
    ("name", "distances"),
    [
        ("Linf", [1 / 4, 1.2 / 6, 1.3 / 2, 1.4 / 6]),
        ("L2", [1 / 2, 1.2 / 6, 1.3 / 2**0.5, 1.4 / 12**0.5]),
    ],
)
def test_targets_are_ranked_by_the_distance_of_their_border(name, distances):
    model = linear(WEIGHTS, BIASES)
    nearest = 1 + torch.tensor(distances).argsort()
    assert nearest.tolist() != [1, 2, 3, 4]  # which is the order of the logits
    for targets in (1, 2, 4):
        goals = MALT(targets=targets, candidates=4).goals(Standing(model, X, Y), norm(name))
        assert goals.tolist() == [nearest[:targets].tolist()] * 2
    # Of two candidates, those of largest logit, the nearer.
    assert MALT(targets=1, candidates=2).goals(Standing(model, X, Y), norm(name)).tolist() == [[2], [2]]


def test_who_has_left_has_no_target_and_keeps_the_others_in_place():
    standing = Standing(linear(WEIGHTS, BIASES), X, Y)
    standing.see(X, torch.tensor([[-1.0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]))
    assert standing.rows.tolist() == [1]
    assert MALT(targets=2).goals(standing, LINF)[1].tolist() == [2, 4]


@pytest.mark.parametrize("flat", [1e-30, 0.0])
def test_borders_without_a_slope_are_far_away(flat):
    weights = [[0.0] * 4, [flat] * 4, [1, 1, 1, 1]]
    goals = MALT(targets=2).goals(Standing(linear(weights, [3.0, 1, 0]), X, Y), L2)
    assert goals.tolist() == [[2, 1]] * 2


def test_it_walks_to_them_as_an_apgd_and_costs_what_is_forecast():
    model = linear(WEIGHTS, BIASES)
    chosen = MALT(steps=4, targets=2)
    meter = Meter(model)
    with prepared(model):
        answer = chosen(meter, X, Y, eps=0.01, norm=LINF, streams=Streams(0, torch.arange(2)))
        one, two = (attack(model, X, Y, eps=0.21, norm=LINF) for attack in (first_target, second_target))
    forwards, backwards = chosen.passes(5)
    assert (forwards, backwards) == (2 + 2 * 5, 4 + 2 * 4)
    assert answer.forwards.tolist() == [forwards] * 2
    assert answer.backwards.tolist() == [backwards] * 2
    assert (meter.forwards, meter.backwards) == (2 * forwards, 2 * backwards)
    assert one.tolist() == [0, 0]  # at distance 0.2
    assert two.tolist() == [-1, -1]  # at distance 0.25


def first_target(model: nn.Module, x: Tensor, y: Tensor, **options) -> Tensor:
    return MALT(targets=1)(model, x, y, streams=Streams(0, torch.arange(2)), **options).by


def second_target(model: nn.Module, x: Tensor, y: Tensor, **options) -> Tensor:
    """Towards the class of the second logit, which plain ranking takes."""
    return APGD(loss="dlr", targets=1)(model, x, y, streams=Streams(0, torch.arange(2)), **options).by


def test_few_classes():
    fitted = MALT().fitted(2)
    assert (fitted.loss, fitted.targets, fitted.candidates) == ("margin", 1, 9)
    model = linear([[0.0] * 4, [1, 1, 1, 1]], [2.5, 0.0])
    answer = fitted(model, X, Y, eps=0.2, norm=LINF, streams=Streams(0, torch.arange(2)))
    assert answer.by.tolist() == [0, 0]


@pytest.mark.parametrize("options", [{"targets": 0, "loss": "margin"}, {"targets": 5, "candidates": 4}])
def test_options_that_make_no_attack_are_refused(options):
    with pytest.raises(BadOption, match=r"targets of a MALT is|without targets"):
        MALT(**options)
