"""Schedules that many methods share."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from bench.api import Preset, Schedule, Uniform

LONG = Schedule(epochs=200, shape="piecewise", drops=(0.5, 0.75))
"""Two hundred epochs, as most papers have it; the learning rate is cut at half and at three quarters of them."""

FAIR = replace(LONG, normalize=True, selection="best-robust-plus-worst")
"""Of CFA, and of what is compared with it."""

OF_TRADES = Schedule(shape="piecewise", weight_decay=2e-4, eps=Fraction("0.031"))
"""Of the release of TRADES and of several since; each has its own epochs, drops and selection."""

BUDGET_OF_TRADES = {"budget": Uniform(step=0.007 / 0.031)}
"""Its step, 0.007 at eps 0.031."""

CIFAR = ("cifar10/paper", "cifar100/paper")
"""Presets of a paper that has the same settings for both."""

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

OURS = {"*/short": Preset(SHORT), "digits/digits": Preset(DIGITS)}
"""The presets of a method that has no other wish for settings that this project can run."""
