"""The odd evaluations that reference codes fail on: few classes, few images, nothing left to attack, other sizes."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.attacks.trial import CLEAN, fitted, plan
from bench.data.images import Images, images_from_arrays
from bench.evaluation.evaluate import evaluate
from bench.outcomes import FIRST_OF_LINEUP, SURVIVED, WRONG_UNATTACKED, Outcomes

ATTACKS = ["fgsm", "pgd-sat", "cw", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square", "autoattack"]
FEW = {"steps": 4, "queries": 40}
"""Iterations here, of attacks and of those that they are made of."""
BUDGETS = {"Linf": Fraction(1, 10), "L2": Fraction(1, 2)}


@dataclass(frozen=True)
class Case:
    """Images (N,C,H,W), random, and a network that is asked about them."""

    shape: tuple[int, int, int, int]
    classes: int = 4
    shift: int = 0
    """Added to the network's own predictions to get the labels: 0 for all correct."""


CASES = {
    "two classes": Case((7, 3, 8, 8), classes=2),
    "three classes": Case((7, 3, 8, 8), classes=3),
    "one image": Case((1, 3, 8, 8)),
    "one image of two classes": Case((1, 1, 8, 8), classes=2),
    "none correct": Case((5, 3, 8, 8), shift=1),
    "grey": Case((4, 1, 28, 28), classes=10),
    "64x64": Case((3, 3, 64, 64), classes=10),
    "not square": Case((3, 3, 9, 14)),
    "tiny": Case((3, 1, 3, 3)),
}


def short(attack: Any) -> Any:
    """The attack, or line-up, with fewer iterations."""
    values = {field.name: getattr(attack, field.name) for field in fields(attack)}
    parts = {name: short(value) for name, value in values.items() if is_dataclass(value)}
    return replace(attack, **parts, **{name: few for name, few in FEW.items() if name in values})


def judged(name: str, norm: str, model: nn.Module, images: Images) -> tuple[Outcomes, int]:
    """Outcomes of the clean trial and of an attack, in chunks of 4, and how many the line-up has."""
    clean, trial = plan([name], norm=norm, eps=BUDGETS[norm], batch_size=4)
    assert clean == CLEAN
    trials = fitted([clean, replace(trial, attack=short(trial.attack))], images.classes)
    outcomes = [outcomes for trial, outcomes in evaluate(model, images, trials, batch_size=4) if trial.attack]
    columns = [np.concatenate([getattr(part, field.name) for part in outcomes]) for field in fields(Outcomes)[:-1]]
    return Outcomes(*columns), len(trial.lineup)


def network(case: Case) -> tuple[nn.Module, Images]:
    """A random convolutional network, and images that it classifies as labelled unless the case shifts them."""
    channels, height = case.shape[1:3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(min(height, 8)),
            nn.Flatten(),
            nn.Linear(4 * min(height, 8) ** 2, case.classes),
        ).eval()
        x = torch.rand(case.shape)
    labels = (model(x).argmax(1) + case.shift) % case.classes
    names = [f"class {k}" for k in range(case.classes)]
    return model, images_from_arrays("odd", "test", x.numpy(), labels.numpy(), names)


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_odd_inputs_are_evaluated_without_error(case, name, norm):
    model, images = network(case)
    outcomes, lineup = judged(name, norm, model, images)
    assert outcomes.sample.tolist() == list(range(len(images)))
    assert ((outcomes.predicted == outcomes.label) == (outcomes.broken_by == SURVIVED)).all()
    if case.shift:
        assert (outcomes.broken_by == WRONG_UNATTACKED).all()
        assert (outcomes.forwards == 1).all()  # the clean pass, none for the attack
        assert (outcomes.backwards == 0).all()
    else:
        assert (outcomes.broken_by != WRONG_UNATTACKED).all()
        assert (outcomes.broken_by < FIRST_OF_LINEUP + lineup).all()
        assert (outcomes.forwards > 1).all()


class Brink(nn.Module):
    """Linear, with all images of brightness 1/2 just on the right side of the border."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes))
        self.weight.data[1] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        brighter = x.flatten(1).sum(1, keepdim=True) - 0.5 * x[0].numel() - 1e-3
        return brighter * self.weight - torch.arange(len(self.weight)) // 2 * 10.0  # only classes 0 and 1 contend


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("classes", [2, 4])
def test_all_images_are_broken_at_once(classes, name, norm):
    pixels = np.full((6, 1, 8, 8), 0.5, np.float32)
    images = images_from_arrays("brink", "test", pixels, np.zeros(6, int), [f"class {k}" for k in range(classes)])
    outcomes, _ = judged(name, norm, Brink(classes), images)
    assert (outcomes.predicted == 1).all()
    assert (outcomes.broken_by >= FIRST_OF_LINEUP).all()
    if name == "autoattack":
        assert (outcomes.broken_by == FIRST_OF_LINEUP).all()
