"""How far a run is, and how long the rest will take: what is left, at the speed that was measured in this run.

Work is counted in passes of one image through a network, forward or backward. How many there will be is what attacks
say of themselves, mended by what was counted; how long one takes is measured by kind of work, for a pass in training
takes another time than one in an attack.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from bench.attacks.trial import Trial
from bench.outcomes import Outcomes

DOUBT = 1.0
"""A guess counts as much as measurements of so large a share of what is guessed."""
MANY = 1000
"""Images that a guess of the passes of one is a guess of."""
SURVIVAL = 0.6
"""Share of the images that are right without attack and that an attack is assumed to work on to its end, before any
attack has said how many there are."""


class Progress(Protocol):
    """Where a long run says how far it is."""

    def show(self, share: float, left: float | None, doing: str) -> None:
        """Which share is done, in [0, 1]; how many seconds the rest will take, where that can be said; what is done."""

    def say(self, line: str) -> None:
        """A line to keep."""


class Known(NamedTuple):
    """What a trial did so far."""

    judged: int = 0
    correct: int = 0
    passes: int = 0


@dataclass
class Forecast:
    """How many passes it takes to judge a network.

    Attributes:
        classes: K.
        shape: (C,H,W) of the images.
        truth: how many passes attacks took on any network of this run, and how many they were expected to, by trial.
        known: what is known of each trial.
    """

    classes: int
    shape: tuple[int, int, int]
    truth: dict[Trial, tuple[float, float]] = field(default_factory=dict)
    known: dict[Trial, Known] = field(default_factory=dict)

    def learn(self, trial: Trial, news: Known) -> None:
        """Take note of samples that were judged."""
        before = self.known.get(trial, Known())
        self.known[trial] = Known(*(a + b for a, b in zip(before, news, strict=True)))
        if news.judged:
            took, expected = self.truth.get(trial, (0.0, 0.0))
            told = self.told(trial, news.correct / news.judged) * news.judged
            self.truth[trial] = took + news.passes, expected + told

    def per_image(self, trial: Trial) -> float:
        """What the next images of a trial will cost each.

        As much as its last ones; or what the attack says, if as many images stand as after the strongest attack of the
        same budget, mended by what came of such words on other networks.
        """
        known = self.known.get(trial, Known())
        if known.passes:
            return known.passes / known.judged
        told = self.told(trial, self.standing(trial))
        took, expected = self.truth.get(trial, (0.0, 0.0))
        doubt = DOUBT * told * MANY
        return told * (took + doubt) / (expected + doubt)

    def most(self, trial: Trial) -> float:
        """What an image costs on average if none falls that is right unattacked."""
        return self.told(trial, self.unattacked())

    def told(self, trial: Trial, share: float) -> float:
        """What an image costs by what the attack says of itself, if it works on such a share to its end."""
        if trial.attack is None:
            return trial.votes
        return 2 * trial.votes + share * trial.eot * sum(trial.attack.forecast(self.classes, self.shape))

    def standing(self, trial: Trial) -> float:
        """Share of the images that an attack will have to work on to its end.

        They are at most those that stand after another attack of the same budget.
        """
        rivals = [
            known.correct / known.judged
            for other, known in self.known.items()
            if known.judged and (other.norm, other.eps) == (trial.norm, trial.eps)
        ]
        return min(rivals) if rivals else SURVIVAL * self.unattacked()

    def unattacked(self) -> float:
        """Share of the images that are right unattacked."""
        clean = [known for other, known in self.known.items() if other.attack is None and known.judged]
        return min((known.correct / known.judged for known in clean), default=1.0)


def known_of(outcomes: Outcomes) -> Known:
    """What outcomes tell a forecast."""
    passes = sum(int(column.sum(dtype=np.int64)) for column in (outcomes.forwards, outcomes.backwards))
    return Known(len(outcomes), int(outcomes.correct.sum()), passes)


class Task(NamedTuple):
    """A piece of work.

    Attributes:
        kinds: what it is, from the narrowest kind to the broadest: ("training rslad", "training").
        passes: how many it takes.
    """

    kinds: tuple[str, ...]
    passes: float


ANY = ""
"""The kind that all work is of."""


class Spent(NamedTuple):
    """Passes, and the seconds that they took."""

    passes: float = 0.0
    seconds: float = 0.0


@dataclass
class Pace:
    """How long a pass takes, by kind of work, as measured in this run."""

    spent: dict[str, Spent] = field(default_factory=dict)

    def learn(self, done: Task, seconds: float) -> None:
        """Take note of work that was done."""
        for kind in (*done.kinds, ANY):
            before = self.spent.get(kind, Spent())
            self.spent[kind] = Spent(before.passes + done.passes, before.seconds + seconds)

    def with_begun(self, news: Iterable[tuple[Task, float]]) -> Pace:
        """What is known if what has been done of work that has not ended counts too."""
        more = Pace(dict(self.spent))
        for done, seconds in news:
            more.learn(done, seconds)
        return more

    @property
    def measured(self) -> bool:
        """Whether anything is known."""
        return all(self.spent.get(ANY, Spent()))

    def seconds(self, task: Task) -> float:
        """How long a task takes, by the kinds it is of, if anything was measured.

        A narrower kind counts the more, the more of it was measured: an attack that breaks all images at once has
        passes of few images each, which say little of those to come.
        """
        passes, seconds = self.spent[ANY]
        rate, doubt = seconds / passes, DOUBT * task.passes
        for kind in reversed(task.kinds):
            passes, seconds = self.spent.get(kind, Spent())
            if passes and seconds:
                rate = (seconds + doubt * rate) / (passes + doubt)
        return rate * task.passes
