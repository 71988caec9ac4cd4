"""What an evaluation costs, as its user is told: predicted before it starts, and mended as it goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from bench.attacks.prepare import search_model
from bench.attacks.trial import Trial
from bench.data.images import Images
from bench.evaluation.evaluate import PROBE
from bench.outcomes import Outcomes
from bench.study.forecast import Forecast, known_of, measured
from bench.verdict import Verdict


class Progress(Protocol):
    """Where a long run says how far it is."""

    def plan(self, total: float) -> None:
        """How much there is to do, in forward passes of one image."""

    def advance(self, done: float, doing: str) -> None:
        """How much is done, and what is being done."""

    def say(self, line: str) -> None:
        """A line to keep."""


@dataclass
class Account:
    """What an evaluation has cost and will cost, as progress is told.

    Attributes:
        forecast: what trials cost, and how much of each is done.
        trials: all of them.
        n: samples of each.
        progress: who is told.
        method: how the network is called.
        spent: cost of what was done in this run.
        left: cost of what is still to be done.
    """

    forecast: Forecast
    trials: Sequence[Trial]
    n: int
    progress: Progress
    method: str
    spent: float = 0.0
    left: float = field(init=False)
    _most: dict[Trial, float] = field(init=False)

    def __post_init__(self) -> None:
        """Look ahead."""
        self._look_ahead()

    def _look_ahead(self) -> None:
        forecast = self.forecast
        self._most = {trial: forecast.most(trial) for trial in self.trials}
        self.left = sum((self.n - forecast.judged(trial)) * forecast.per_image(trial) for trial in self.trials)

    def foretell(self, network: nn.Module, images: Images, batch_size: int, device: str) -> None:
        """Say what it will cost, at the speed that a few passes have through the network as attacks see it."""
        few, _ = images.batch(slice(0, PROBE), device)
        pace = measured(search_model(network.to(device), few), images, batch_size, device)
        if pace is None:
            return
        self.forecast.backward, self.forecast.right = pace.backward / pace.forward, pace.correct
        self._look_ahead()
        time = spoken(self.left * pace.forward)
        self.progress.say(
            f"{self.method}: about {self.left:,.0f} forward passes ahead, about {time} at the network's own speed of "
            f"{1 / pace.forward:,.0f} a second; a backward pass is {self.forecast.backward:.1f}"
        )

    def report(self, trial: Trial, samples: float, total: int) -> None:
        """Tell how far it is; of the chunk in flight, by estimate."""
        # The attack counts its passes against those of images that all stand, and mostly ends before.
        flying = max(0.0, samples - self.forecast.judged(trial)) * self._most[trial]
        self.progress.plan(self.spent + max(self.left, flying))
        self.progress.advance(self.spent + flying, f"{self.method}: {trial.name}")

    def enter(self, trial: Trial, outcomes: Outcomes) -> None:
        """Take note of a chunk that is stored."""
        news = known_of(outcomes)
        self.spent += self.forecast.cost(news)
        self.forecast.learn(trial, news)
        self._look_ahead()

    def checked(self, verdict: Verdict) -> None:
        """Tell that a soundness check is done."""
        self.progress.advance(self.spent, f"{self.method}: checked {verdict.name}")


def spoken(seconds: float) -> str:
    """A duration to two digits or so.

    >>> spoken(7.3), spoken(400), spoken(40000)
    ('8 s', '7 min', '11.1 h')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
