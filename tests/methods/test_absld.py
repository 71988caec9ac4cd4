from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.randomness import Streams
from bench.training.values import Batch, Context, Tally
from methods.absld import BalancedTeacher, Temperatures

LOGITS = [[1.0, 0.5, -1.0], [0.2, 2.0, 0.1], [0.0, -0.3, 0.9], [1.0, 0.5, -1.0]]
Y = [0, 1, 2, 2]


class Fixed(nn.Module):
    """Answers LOGITS, whatever it is asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(LOGITS))

    def forward(self, x):
        return self.weight


def context(drops=0):
    model = Fixed()
    ctx = Context(model, model, {"teacher": Fixed().eval()}, 3, 0.1, 1, Streams(0, torch.arange(4)))
    return replace(ctx, drops=drops)


def tempered(row, temperature):
    e = np.exp(np.array(row) / temperature)
    return e / e.sum()


BATCH = Batch(torch.zeros(4, 1, 2, 2), torch.tensor(Y))
STATE = Temperatures(torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.8, 4.0, 1.5]))


def test_it_begins_as_rslad():
    state = BalancedTeacher().init(context())
    assert state.clean.tolist() == state.adv.tolist() == [1, 1, 1]
    assert state.clean.data_ptr() != state.adv.data_ptr()
    targets = BalancedTeacher()(context(), BATCH, state)
    assert torch.equal(targets.clean, torch.tensor(LOGITS).softmax(1))
    assert torch.equal(targets.at(BATCH.x), targets.clean)


def test_the_paper_s_temperatures_are_separate():
    targets = BalancedTeacher()(context(), BATCH, STATE)
    clean = np.stack([tempered(row, STATE.clean[y].item()) for row, y in zip(LOGITS, Y, strict=True)])
    adv = np.stack([tempered(row, STATE.adv[y].item()) for row, y in zip(LOGITS, Y, strict=True)])
    np.testing.assert_allclose(targets.clean, clean, rtol=1e-6)
    np.testing.assert_allclose(targets.at(BATCH.x), adv, rtol=1e-6)


def test_the_release_divides_both_by_the_product():
    targets = BalancedTeacher(as_released=True)(context(), BATCH, STATE)
    product = np.stack([tempered(row, (STATE.clean * STATE.adv)[y].item()) for row, y in zip(LOGITS, Y, strict=True)])
    np.testing.assert_allclose(targets.clean, product, rtol=1e-6)
    np.testing.assert_allclose(targets.at(BATCH.x), product, rtol=1e-6)


def tally(risk_clean, risk_adv, count=(10, 20, 30)):
    made = Tally.zeros(3)
    made.count = made.count_clean = made.count_adv = torch.tensor(count, dtype=torch.float32)
    made.ce_clean, made.ce_adv = torch.tensor(risk_clean) * made.count, torch.tensor(risk_adv) * made.count
    return made


def test_the_extreme_class_moves_by_the_rate_and_the_others_in_proportion():
    # clean risks 1, 2, 6: mean 3, gaps -2, -1, 3; adversarial 4, 1, 1: mean 2, gaps 2, -1, -1
    after = BalancedTeacher(rate=0.3).end_epoch(context(), STATE, tally([1.0, 2.0, 6.0], [4.0, 1.0, 1.0]))
    np.testing.assert_allclose(after.clean, [1 + 0.2, 0.5 + 0.1, 2 - 0.3], rtol=1e-6)
    np.testing.assert_allclose(after.adv, [0.8 - 0.3, 4 + 0.15, 1.5 + 0.15], rtol=1e-6)


@pytest.mark.parametrize("drops", [0, 1, 2, 3])
def test_the_rate_is_cut_tenfold_at_each_drop_of_the_learning_rate(drops):
    start = Temperatures(torch.ones(3), torch.ones(3))
    after = BalancedTeacher(rate=0.1).end_epoch(context(drops), start, tally([0.0, 1.0, 2.0], [2.0, 1.0, 0.0]))
    step = 0.1 * 0.1**drops
    np.testing.assert_allclose(after.clean - 1, [step, 0, -step], atol=2e-7)
    np.testing.assert_allclose(after.adv - 1, [-step, 0, step], atol=2e-7)


def test_temperatures_are_clipped():
    start = Temperatures(torch.tensor([0.55, 1, 4.95]), torch.tensor([4.95, 1, 0.55]))
    after = BalancedTeacher().end_epoch(context(), start, tally([2.0, 1.0, 0.0], [0.0, 1.0, 2.0]))
    np.testing.assert_allclose(after.clean, [0.5, 1, 5], rtol=1e-6)
    np.testing.assert_allclose(after.adv, [5, 1, 0.5], rtol=1e-6)


def test_equal_risks_move_nothing():
    start = Temperatures(torch.ones(3), torch.ones(3))
    after = BalancedTeacher().end_epoch(context(), start, tally([1.5] * 3, [2.0] * 3))
    assert torch.equal(after.clean, start.clean)
    assert torch.equal(after.adv, start.adv)
