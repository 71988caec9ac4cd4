"""An attack that changes the network that it is shown is told, and leaves no trace."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks.base import Attack
from bench.attacks.trial import CLEAN, Trial, plan
from bench.data.load import load
from bench.errors import BadAttack
from bench.evaluation.evaluate import evaluate
from bench.evaluation.unchanged import State, same

EPS = Fraction("0.1")


def shrink(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters()).mul_(0.1)


def replace(model: nn.Module) -> None:
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    last.weight = nn.Parameter(torch.zeros_like(last.weight))


def through_data(model: nn.Module) -> None:
    next(model.parameters()).data.zero_()


def hook(model: nn.Module) -> None:
    model.register_forward_hook(lambda module, args, answer: answer * 0)


def swap(model: nn.Module) -> None:
    innermost = [module for module in model.modules() if isinstance(module, nn.Sequential)][-1]
    innermost[len(innermost) - 1] = nn.Sequential(nn.Linear(54, 10))


def train(model: nn.Module) -> None:
    model.train()


VANDALS = {f.__name__: f for f in (shrink, replace, through_data, hook, swap, train)}


@dataclass(frozen=True)
class Vandal(Attack):
    """Changes the network and returns the images as they are."""

    way: str

    def __call__(self, model, x, y, *, eps, norm, streams):
        VANDALS[self.way](model.model)
        return x


@pytest.fixture(scope="module")
def images():
    return load("digits", "test").take(40, 0)


def judged(model, images, *trials):
    return {trial.name: outcomes for trial, outcomes in evaluate(model, images, trials)}


@pytest.mark.parametrize("watched", [False, True], ids=["searched in a copy", "searched itself"])
@pytest.mark.parametrize("way", sorted(VANDALS))
def test_an_attack_that_changes_the_network_is_refused_and_the_next_one_finds_it_as_it_was(
    digits_network, images, way, watched
):
    def network():
        model = nn.Sequential(digits_network())
        if watched:  # a network with hooks is not copied
            model.register_forward_hook(lambda module, args, answer: None)
        return model

    _, pgd = plan(["pgd-sat"], eps=EPS, batch_size=250)
    vandal = Trial("vandal", Vandal(way), "Linf", EPS)
    wanted = judged(network(), images, CLEAN, pgd)
    model, found = network(), {}
    found |= judged(model, images, CLEAN)
    with pytest.raises(BadAttack, match="attack 'vandal' changed"):
        judged(model, images, vandal)
    found |= judged(model, images, pgd)
    for name, outcomes in wanted.items():
        assert np.array_equal(found[name].predicted, outcomes.predicted)
        assert np.array_equal(found[name].confidence, outcomes.confidence)


class Counting(nn.Module):
    """Counts its calls, in a buffer and in a number."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.calls = model, 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.seen += len(x)
        return self.model(x)


def test_what_a_network_changes_itself_is_not_held_against_the_attack(digits_network, images):
    trials = plan(["fgsm"], eps=EPS, batch_size=9)
    assert set(judged(Counting(digits_network()), images, *trials)) == {"clean", "fgsm"}


def test_nothing_is_told_where_nothing_changed(digits_network):
    model = digits_network()
    state = State.of(model)
    assert state.put_back() == set()
    shrink(model)
    assert state.put_back() == {"weight"}
    assert state.put_back() == set()


def test_tensors_are_the_same_bit_by_bit():
    one = torch.tensor([1.0, float("nan"), -0.0])
    assert same(one, one.clone())
    assert not same(one, torch.tensor([1.0, float("nan"), 0.0]))
    assert not same(one, one.double())
    assert not same(one, one[:2])
    assert same(torch.tensor(3), torch.tensor(3))
