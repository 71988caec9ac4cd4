"""Models that answer differently every time: attacked in expectation, judged by vote.

A defence by randomness is weak against who averages it out, and a single lucky answer is no robustness. So attacks
see the mean of several answers (expectation over transformation, EoT), and the majority of several decides.

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
"""Answers whose mean is attacked when a model turns out to be random."""
VOTES = 10
"""Answers whose majority decides then."""
STEADY = 1e-4
"""Largest difference between two answers to one question, relative to the largest logit."""
REPEATS = 5
"""How often the question is put."""
FEW = 32
"""About how many images."""


def unsteadiness(answer: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Largest difference between answers to the same images, relative to the largest logit."""
    answers = torch.stack([answer(x) for _ in range(REPEATS)])
    return float((answers - answers[0]).abs().max() / answers.abs().max().clamp(min=1e-12))


class Expectation(nn.Module):
    """The mean logits of several answers; its gradient is the mean of theirs."""

    def __init__(self, model: nn.Module, answers: int) -> None:
        """Average so many answers of `model`."""
        super().__init__()
        self.model = model
        self.answers = answers
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) mean logits."""
        total: Tensor = self.model(x)
        for _ in range(self.answers - 1):
            total = total + self.model(x)
        return total / self.answers


class Voting(nn.Module):
    """The majority of several answers, as logits whose softmax is the share of the votes.

    The mean softmax of the answers counts as one vote more: it decides a tie, and no class's share is 0.
    """

    def __init__(self, model: nn.Module, votes: int) -> None:
        """Ask `model` so often."""
        super().__init__()
        self.model = model
        self.votes = votes
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) logarithm of each class's share."""
        answers = torch.stack([self.model(x).float() for _ in range(self.votes)])
        counts = nn.functional.one_hot(answers.argmax(2), answers.shape[2]).sum(0)
        return ((counts + answers.softmax(2).mean(0)) / (self.votes + 1)).log()


@contextmanager
def seeded(seed: int, name: str | int) -> Iterator[None]:
    """The global randomness, from which such models draw, is a function of seed and name, and then as it was before."""
    drawn = Streams(seed, torch.empty(0)).fork(name).seed % 2**32
    with own_randomness():
        torch.manual_seed(drawn)
        np.random.seed(drawn)
        random.seed(drawn)
        yield
