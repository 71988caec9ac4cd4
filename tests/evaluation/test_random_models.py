from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks.trial import CLEAN, for_random_model, plan
from bench.data.images import images_from_arrays
from bench.errors import BadOption
from bench.evaluation.evaluate import evaluate
from bench.evaluation.random_models import Expectation, Voting, seeded
from bench.outcomes import COLUMNS, SURVIVED, WRONG_UNATTACKED


class Scripted(nn.Module):
    """Answers the next of some matrices each time it is asked, scaled by the pixels' mean plus 1."""

    def __init__(self, *answers: list[list[float]]) -> None:
        super().__init__()
        self.answers = torch.tensor(answers)
        self.asked = 0

    def forward(self, x):
        self.asked += 1
        return self.answers[self.asked - 1] * (1 + x.mean((1, 2, 3))[:, None])


X = torch.zeros(1, 1, 2, 2)


def test_an_expectation_is_the_mean_and_so_is_its_gradient():
    x = X.clone().requires_grad_()
    logits = Expectation(Scripted([[3.0, 0.0]], [[1.0, 2.0]], [[2.0, 4.0]]), 3)(x)
    assert torch.equal(logits.detach(), torch.tensor([[2.0, 2.0]]))
    (grad,) = torch.autograd.grad(logits[0, 1], x)
    assert torch.allclose(grad, torch.full_like(x, (0 + 2 + 4) / 3 / 4))


def test_votes_are_shares_and_the_mean_softmax_decides_a_tie():
    lead = np.log(4.0)
    shares = Voting(Scripted([[lead, 0.0]], [[0.0, lead]], [[lead, 0.0]]), 3)(X).exp()
    mean = (0.8 + 0.2 + 0.8) / 3
    torch.testing.assert_close(shares, torch.tensor([[(2 + mean) / 4, (1 + 1 - mean) / 4]]))
    tied = Voting(Scripted([[9.0, 0.0]], [[0.0, 1.0]]), 2)(X)
    assert tied.argmax() == 0


def test_randomness_is_a_function_of_seed_and_name_and_comes_back():
    def drawn():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = drawn()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    inside = []
    for name in ("a", "a", "b"):
        with seeded(7, name):
            inside.append(drawn())
    assert inside[0] == inside[1] != inside[2]
    assert drawn() == expected


class Coin(nn.Module):
    """Right about the shade of an image in two answers of three."""

    def forward(self, x):
        over = 10 * (x.mean((1, 2, 3)) - 0.5)
        over = over * torch.where(torch.rand(len(x)) < 1 / 3, -1.0, 1.0)
        return torch.stack([-over, over], 1)


@pytest.fixture
def images():
    labels = np.arange(40) % 2
    pixels = np.where(labels, 0.7, 0.3)[:, None, None, None] * np.ones((40, 1, 2, 2))
    return images_from_arrays("shades", "test", pixels, labels, ("dark", "bright"))


def columns(outcomes):
    return {name: getattr(outcomes, name).tolist() for name in COLUMNS}


def test_an_evaluation_in_expectation_is_reproducible_counted_and_by_vote(images):
    trials = for_random_model(plan(["fgsm"], eps=Fraction(1, 10), batch_size=20), eot=5, votes=31, batch_size=20)
    clean, attacked = (outcomes for _, outcomes in gathered(images, trials))
    assert clean.correct.mean() >= 0.9  # of 31 answers 2/3 are right; of one it would be 0.67
    assert set(clean.forwards.tolist()) == {31}
    assert attacked.correct.mean() >= 0.9  # a step of 0.1 leaves the shades 0.1 apart from the threshold
    for row in np.flatnonzero(attacked.broken_by != WRONG_UNATTACKED):
        assert (attacked.forwards[row], attacked.backwards[row]) == (31 + 5 + 31, 5)
    torch.manual_seed(123)  # whatever was drawn before
    again = [outcomes for _, outcomes in gathered(images, trials)]
    assert [columns(each) for each in again] == [columns(clean), columns(attacked)]
    other = for_random_model(plan(["fgsm"], eps=Fraction(1, 10), seed=1, batch_size=20), eot=5, votes=1, batch_size=20)
    ((_, one_vote), *_) = gathered(images, other)
    assert (one_vote.broken_by == SURVIVED).mean() < 0.9


def gathered(images, trials):
    """Outcomes of each trial, its chunks put together."""
    parts = {}
    for trial, outcomes in evaluate(Coin(), images, trials):
        parts.setdefault(trial, []).append(outcomes)
    for trial, chunks in parts.items():
        joined = {name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in COLUMNS}
        yield trial, replace(chunks[0], **joined)


def test_trials_for_a_random_model_say_so():
    plain = plan(["fgsm", "pgd-sat"], eps=Fraction(1, 10), precision="bf16", batch_size=20)
    asked = for_random_model(plain, eot=20, votes=10, batch_size=20)
    assert [trial.name for trial in asked] == ["clean", "fgsm-bf16-eot20-votes10", "pgd-sat-bf16-eot20-votes10"]
    assert {trial.batch_size for trial in asked} == {20}  # what is drawn depends on the batch
    assert asked[1].spec == plain[1].spec | {"eot": 20, "votes": 10, "batch_size": 20}
    assert asked[0].attack_id != CLEAN.attack_id
    assert for_random_model(plain, eot=1, votes=1, batch_size=20) == plain
    assert "eot" not in plain[1].spec
    with pytest.raises(BadOption, match="at least 1"):
        for_random_model(plain, eot=0, votes=1, batch_size=20)
