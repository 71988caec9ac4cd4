"""Attacks that fail, each told by name."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch

from bench.attacks.base import Attack, Attributed
from bench.attacks.trial import Trial
from bench.data.load import load
from bench.errors import BadAttack, OutOfBudget
from bench.evaluation.evaluate import evaluate


@dataclass(frozen=True)
class Odd(Attack):
    """Does what its name says."""

    way: str

    def __call__(self, model, x, y, *, eps, norm, streams):
        none = torch.zeros_like(y)
        return {
            "raises": lambda: [][1],
            "leaves": lambda: sys.exit(0),
            "nothing": lambda: None,
            "labels": lambda: y.zero_().numpy() * "x",
            "integers": lambda: (x * 0).long(),
            "complex": lambda: x.to(torch.complex64),
            "claims": lambda: Attributed(x, none + 5),
            "counts": lambda: Attributed(x, none, none - 1, none),
            "halves": lambda: Attributed(x, none, none + 0.5, none),
            "few": lambda: Attributed(x, none[:1]),
            "relabels": lambda: x + 0 * y.fill_(3).sum(),
        }[self.way]()


def judged(network, way):
    images = load("digits", "test").take(20, 0)
    ((_, outcomes),) = evaluate(network, images, [Trial("odd", Odd(way), "Linf", Fraction("0.1"))])
    return images, outcomes


@pytest.mark.parametrize(
    ("way", "kind", "complaint"),
    [
        ("raises", BadAttack, "attack 'odd' fails with IndexError: list index out of range; mend"),
        ("leaves", BadAttack, "attack 'odd' fails with SystemExit: 0; mend"),
        ("labels", BadAttack, "attack 'odd' fails with"),
        ("nothing", OutOfBudget, "attack 'odd' returned NoneType for images of shape"),
        ("integers", OutOfBudget, "attack 'odd' returned torch.int64; images are floating-point"),
        ("complex", OutOfBudget, "attack 'odd' returned torch.complex64; images are floating-point"),
        ("claims", BadAttack, r"attack 'odd' returned tensor\(\[5.* as 'by'; wanted torch.int64 numbers from -1 to 0"),
        ("counts", BadAttack, "as 'forwards'; wanted torch.int64 numbers from 0"),
        ("halves", BadAttack, "as 'forwards'; wanted torch.int64"),
        ("few", BadAttack, "as 'by'; wanted torch.int64"),
    ],
)
def test_an_attack_that_fails_is_told_by_name(digits_network, way, kind, complaint):
    with pytest.raises(kind, match=complaint):
        judged(digits_network(), way)


def test_an_attack_that_writes_into_the_labels_changes_no_label(digits_network):
    images, outcomes = judged(digits_network(), "relabels")
    assert outcomes.label.tolist() == images.labels.tolist()
    assert outcomes.correct.mean() > 0.5
