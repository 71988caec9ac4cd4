from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.errors import BadRecipe
from bench.randomness import Streams
from bench.training.values import Context, Tally, constant


def test_constant_targets_do_not_look_at_the_image():
    target = torch.rand(2, 3)
    at = constant(target)
    assert at(torch.zeros(1)) is target
    assert at(torch.ones(1)) is target


def test_a_tally_sums_over_batches_by_class():
    draw = torch.Generator().manual_seed(0)
    tally = Tally.zeros(4)
    seen = []
    for size in (7, 1, 5):
        y = torch.randint(0, 3, (size,), generator=draw)  # class 3 never comes
        clean, adv = torch.randn(2, size, 4, generator=draw)
        tally.add(y, clean, adv)
        seen.append((y, clean, adv))
    y, clean, adv = (torch.cat(part) for part in zip(*seen, strict=True))
    for k in range(4):
        mine = y == k
        assert tally.count[k] == tally.count_clean[k] == tally.count_adv[k] == mine.sum()
        for logits, hits, ce in ((clean, tally.hits_clean, tally.ce_clean), (adv, tally.hits_adv, tally.ce_adv)):
            assert hits[k] == (logits.argmax(1)[mine] == k).sum()
            torch.testing.assert_close(ce[k], F.cross_entropy(logits[mine], y[mine], reduction="sum"))
        torch.testing.assert_close(tally.prob_adv[k], adv[mine].softmax(1).sum(0))
    torch.testing.assert_close(tally.risk_adv()[:3], tally.ce_adv[:3] / tally.count[:3])
    torch.testing.assert_close(tally.risk_clean()[:3], tally.ce_clean[:3] / tally.count[:3])
    assert tally.risk_adv()[3] == tally.risk_clean()[3] == 0


def test_what_was_not_looked_at_is_not_counted():
    tally = Tally.zeros(3)
    y = torch.tensor([0, 1])
    tally.add(y, None, torch.eye(3)[:2])
    tally.add(y, torch.eye(3)[:2], None)
    tally.add(y, None, None)
    assert tally.count.tolist() == [3, 3, 0]
    assert tally.count_clean.tolist() == tally.count_adv.tolist() == tally.hits_clean.tolist() == [1, 1, 0]
    tally.add(y, None, torch.zeros(2, 3))
    own = F.cross_entropy(torch.eye(3)[:2], y, reduction="none")
    torch.testing.assert_close(tally.risk_clean()[:2], own)
    torch.testing.assert_close(tally.risk_adv()[:2], (own + torch.tensor(3.0).log()) / 2)


def test_a_tally_takes_half_precision_and_keeps_no_graph():
    tally = Tally.zeros(2)
    logits = torch.randn(3, 2, dtype=torch.bfloat16, requires_grad=True)
    tally.add(torch.tensor([0, 1, 1]), logits, logits)
    assert all(not getattr(tally, f.name).requires_grad for f in fields(Tally))
    assert tally.ce_adv.dtype == torch.float32


def test_an_empty_tally():
    tally = Tally.zeros(3)
    assert all(not getattr(tally, f.name).any() for f in fields(Tally))
    assert tally.prob_adv.shape == (3, 3)


def test_a_missing_teacher_is_said_in_words():
    model = nn.Linear(2, 2)
    ctx = Context(model, model, {"robust": model}, 2, 0.1, 1, Streams(0, torch.arange(1)))
    assert ctx.teacher("robust") is model
    with pytest.raises(BadRecipe, match="needs a 'teacher', none was given; pass --teacher CHECKPOINT"):
        ctx.teacher()
