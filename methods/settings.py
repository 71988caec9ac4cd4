"""Schedules that many methods share: settings that this project can run itself."""

from __future__ import annotations

from fractions import Fraction

from bench.training.schedule import Schedule

SHORT = Schedule(epochs=30, shape="one-cycle", lr=0.2)
"""Thirty epochs with one cycle of the learning rate, for 32x32 images."""

DIGITS = Schedule(
    epochs=40,
    batch_size=128,
    lr=0.2,
    shape="one-cycle",
    nesterov=True,
    eps=Fraction("0.15"),
    augment="none",
    holdout=0.1,
    selection="last",
)
"""The 8x8 digits, Linf at eps 0.15; the held-out tenth, 11 images a class, is logged but too small to select on."""
