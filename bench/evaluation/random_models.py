"""Models that answer differently every time: attacked in expectation, judged by vote.

Randomness can be averaged out, and a single lucky answer is no robustness. So attacks see the mean of several answers
(expectation over transformation, EoT), and the majority of several answers decides.

Source: Athalye et al. 2018, "Obfuscated gradients give a false sense of security", section 4.2; AutoAttack's
version `rand` takes 20 answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.prepare import own_randomness
from bench.randomness import Streams

EOT = 20
"""Attacks see the mean of so many answers when a model turns out to be random."""
VOTES = 10
"""So many answers vote then."""
STEADY = 1e-4
"""Answers to the same images may differ by this, relative to the largest logit, before a model counts as random."""
REPEATS = 5
"""So often a model is asked about the same images to find that out."""
FEW = 32
"""And about so many images."""


def unsteadiness(answer: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Largest difference between several answers to the same images, relative to the largest logit."""
    answers = torch.stack([answer(x) for _ in range(REPEATS)])
    return float((answers - answers[0]).abs().max() / answers.abs().max().clamp(min=1e-12))


class Expectation(nn.Module):
    """The mean logits of several answers; its gradient is the mean of theirs."""

    def __init__(self, model: nn.Module, answers: int) -> None:
        """Average so many `answers` of `model`."""
        super().__init__()
        self.model = model
        self.answers = answers
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) mean logits."""
        total: Tensor = self.model(x.clone())
        for _ in range(self.answers - 1):
            total = total + self.model(x.clone())
        return total / self.answers


class Voting(nn.Module):
    """The vote of several answers, as logits whose softmax is each class's share of the votes.

    The mean softmax of the answers is added as one vote more, so that there are no ties and no class has a share of 0.
    """

    def __init__(self, model: nn.Module, votes: int) -> None:
        """Ask `model` so often."""
        super().__init__()
        self.model = model
        self.votes = votes
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) logarithm of each class's share."""
        answers = torch.stack([self.model(x.clone()).float() for _ in range(self.votes)])
        counts = nn.functional.one_hot(answers.argmax(2), answers.shape[2]).sum(0)
        return ((counts + answers.softmax(2).mean(0)) / (self.votes + 1)).log()


@contextmanager
def seeded(seed: int, name: str | int) -> Iterator[None]:
    """Within, the global randomness that such models draw from is set by seed and name; then it is what it was."""
    drawn = Streams(seed, torch.empty(0)).fork(name).seed % 2**32
    with own_randomness():
        torch.manual_seed(drawn)
        np.random.seed(drawn)
        random.seed(drawn)
        yield
