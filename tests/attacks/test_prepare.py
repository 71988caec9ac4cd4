from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks.prepare import own_randomness, prepared


def network() -> nn.Sequential:
    """In train mode but for one part, one parameter frozen: a state worth coming back to."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()
    model[0].bias.requires_grad_(False)
    return model


def state(model: nn.Module) -> tuple[list[bool], list[bool], bool]:
    modes = [module.training for module in model.modules()]
    return modes, [parameter.requires_grad for parameter in model.parameters()], torch.backends.cudnn.allow_tf32


def test_everything_is_still_inside_and_as_it_was_outside():
    model = network()
    before = state(model)
    with prepared(model):
        assert state(model) == ([False] * 4, [False] * 4, False)
    assert state(model) == before == ([True, True, False, True], [True, False, True, True], True)


def test_it_comes_back_after_an_error_and_after_the_inside_changed_it():
    model = network()
    before = state(model)

    def fail() -> None:
        with prepared(model):
            model.train()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert state(model) == before


def test_it_nests():
    model = network()
    before = state(model)
    with prepared(model):
        with prepared(model):
            pass
        assert state(model)[0] == [False] * 4
    assert state(model) == before


def test_global_randomness_comes_back():
    def numbers() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.random()), random.random()

    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = numbers()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)

    def fail() -> None:
        with own_randomness():
            torch.manual_seed(1)
            numbers()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert numbers() == expected
