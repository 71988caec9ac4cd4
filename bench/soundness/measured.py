"""What is measured of a model under examination, as plain values, and how to say that something cannot be."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class NotRun(Exception):  # no error: the message says why there is nothing to measure
    """A check cannot be run on this model."""


class AttackResult(NamedTuple):
    """What an attack did to some images."""

    adv: Tensor
    """(B,C,H,W) the images it returned."""
    logits: Tensor
    """(B,K) what the model answers to them."""
    broken: Tensor
    """(B,) bool, whether that answer is wrong."""


class Course(NamedTuple):
    """A walk on which every image stays to the end, broken or not; a row for each iterate."""

    loss: Tensor
    """(steps + 1, B) cross-entropy."""
    broken: Tensor
    """(steps + 1, B) bool, whether the image is misclassified there."""


class Flaws(NamedTuple):
    """Images whose gradient is of no use to an attack, of one of two losses, at the image or at a random start."""

    zero: Tensor
    """(B,) bool, it is 0 at every pixel."""
    nan: Tensor
    """(B,) bool, it is NaN or infinite at some pixel."""
