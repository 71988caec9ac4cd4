from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, strategies as st

from bench.errors import BadRecipe
from bench.fingerprint import fingerprint
from bench.randomness import Streams
from bench.training.method import compose
from bench.training.recipe import SLOTS, Descend, Last, OneHot, Recipe, Span, Uniform, as_json, blend, passes_per_image
from bench.training.schedule import Schedule
from bench.training.values import Batch, Context, Losses
from methods.absld import BalancedTeacher
from methods.pgd_at import PGDAT
from methods.trades import TRADES


@pytest.mark.parametrize(
    ("progress", "value"),
    [(0, 2.5), (1, 2.0), (0.5, 2.25), (1 / 3, 2.375), (2 / 3, 2.125), (0.25, 2.25 + math.sqrt(2) / 8)],
)
def test_a_span_follows_a_half_cosine(progress, value):
    assert Span(2.5, 2.0).at(progress) == pytest.approx(value, abs=1e-12)
    assert Span(2.0, 2.5).at(progress) == pytest.approx(4.5 - value, abs=1e-12)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 1))
def test_a_span_stays_between_its_ends_and_is_symmetric(begin, end, progress):
    span = Span(begin, end)
    assert min(begin, end) - 1e-9 <= span.at(progress) <= max(begin, end) + 1e-9
    assert span.at(progress) + span.at(1 - progress) == pytest.approx(begin + end, abs=1e-9)


def test_the_slots_and_their_defaults():
    assert SLOTS == ("objective", "targets", "budget", "step", "average")
    recipe = Recipe(PGDAT())
    assert (recipe.targets, recipe.budget, recipe.step, recipe.average) == (OneHot(), Uniform(), Descend(), Last())
    with pytest.raises(FrozenInstanceError):
        recipe.targets = OneHot()


@dataclass
class Loose:
    """Not frozen."""

    beta: float = 1.0


@pytest.mark.parametrize("filling", [None, "trades", TRADES, Loose(), object(), 3])
def test_a_slot_is_filled_by_a_frozen_dataclass(filling):
    with pytest.raises(BadRecipe, match=r"slot 'objective' holds .* filled by an instance of a frozen dataclass"):
        Recipe(filling)


def test_recipes_are_json_with_the_names_of_classes():
    body = as_json(Recipe(TRADES(beta=3.0), targets=BalancedTeacher()))
    assert json.loads(json.dumps(body)) == body
    assert body["objective"]["is"] == "methods:TRADES"
    assert body["objective"]["beta"] == 3.0
    assert body["objective"]["inner"] == {"is": "bench:Inner", "steps": 10, "start": "gaussian", "mode": "eval"}
    assert body["targets"]["as_released"] is False
    assert as_json(Schedule())["eps"] == "8/255"
    assert as_json(Schedule())["drops"] == [0.5, 0.75]
    assert as_json(Span(1.0, 2.0)) == {"begin": 1.0, "end": 2.0}


OTHER = {
    "epochs": 31,
    "batch_size": 64,
    "lr": 0.11,
    "shape": "cosine",
    "drops": (0.5, 0.8),
    "factor": 0.2,
    "rise": 0.4,
    "momentum": 0.8,
    "nesterov": True,
    "weight_decay": 1e-4,
    "eps": Fraction(7, 255),
    "augment": "crop",
    "normalize": True,
    "holdout": 0.1,
    "selection": "last",
    "validate_every": 2,
    "precision": "bf16",
    "layout": "channels_last",
    "compiled": True,
}


def test_every_field_of_a_schedule_is_part_of_its_identity():
    assert sorted(OTHER) == sorted(f.name for f in fields(Schedule))
    hashes = {fingerprint(as_json(replace(Schedule(), **{name: value}))) for name, value in OTHER.items()}
    assert len(hashes | {fingerprint(as_json(Schedule()))}) == len(OTHER) + 1


@pytest.mark.parametrize(
    ("name", "passes"), [("natural", 4), ("pgd-at", 24), ("fgsm-rs", 6), ("trades", 24), ("fair-rslad", 24)]
)
def test_an_image_passes_with_every_step_of_the_attack_and_twice_more_forth_and_back(name, passes):
    assert passes_per_image(compose(name, dataset="digits").recipe) == passes


def test_every_slot_is_part_of_the_identity():
    recipes = [
        Recipe(PGDAT()),
        Recipe(TRADES()),
        Recipe(PGDAT(), targets=BalancedTeacher()),
        Recipe(PGDAT(), budget=Uniform(step=0.2)),
        Recipe(PGDAT(), average=Last(judged=True)),
    ]
    assert len({fingerprint(as_json(recipe)) for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("epochs", 0, r"schedule.epochs is 0; at least 1"),
        ("batch_size", -1, r"schedule.batch_size is -1; at least 1"),
        ("validate_every", 0, r"schedule.validate_every is 0"),
        ("lr", 0.0, r"schedule.lr is 0.0; it must be larger than 0"),
        ("eps", Fraction(0), r"schedule.eps is 0; it must be larger"),
        ("eps", Fraction(-8, 255), r"schedule.eps is -8/255"),
        ("factor", -1.0, r"schedule.factor is -1.0"),
        ("momentum", 1.5, r"schedule.momentum is 1.5; it must lie in \[0, 1\]"),
        ("weight_decay", -1e-4, r"schedule.weight_decay is -0.0001"),
        ("rise", 1.1, r"schedule.rise is 1.1"),
        ("holdout", 0.95, r"schedule.holdout is 0.95; it must lie in \[0, 0.9\]"),
        ("holdout", 0.0, "schedule.selection 'best-robust' needs a held-out split; set schedule.holdout above 0"),
    ],
)
def test_schedules_that_cannot_be_run_are_refused(field, value, complaint):
    with pytest.raises(BadRecipe, match=complaint):
        Schedule(**{field: value})


def test_nesterov_needs_momentum():
    with pytest.raises(BadRecipe, match="nesterov needs momentum"):
        Schedule(nesterov=True, momentum=0.0)


def test_drops_count_for_piecewise_schedules_only():
    assert Schedule(epochs=200, shape="piecewise").first_epochs_of_drops() == [100, 150]
    assert Schedule(epochs=200, shape="cosine").first_epochs_of_drops() == []


def batch_and_context():
    model = torch.nn.Linear(4, 3)
    ctx = Context(model, model, {}, 3, 8 / 255, 1, Streams(0, torch.arange(2)))
    return ctx, Batch(torch.zeros(2, 4), torch.tensor([2, 0]))


def test_the_default_slots():
    ctx, batch = batch_and_context()
    targets = OneHot()(ctx, batch, None)
    assert targets.clean.tolist() == targets.at(batch.x).tolist() == [[0, 0, 1], [1, 0, 0]]
    reach = Uniform().reach(ctx, batch, None)
    assert reach.eps.tolist() == pytest.approx([8 / 255] * 2)
    assert reach.step.tolist() == pytest.approx([2 / 255] * 2)
    losses = Losses(torch.tensor([2.0, 3.0]), torch.zeros(2), None, None)
    assert [w.tolist() for w in Uniform().weigh(ctx, batch, losses, None)] == [[1, 1], [1, 1]]
    assert OneHot().init(ctx) is None
    assert OneHot().end_step(ctx, "kept", losses) == "kept"
    assert Uniform().end_epoch(ctx, "kept", None) == "kept"


def test_descend_is_one_step_of_the_optimizer():
    ctx, _ = batch_and_context()
    weight = ctx.model.weight.detach().clone()
    optimizer = torch.optim.SGD(ctx.model.parameters(), lr=0.5)
    ctx.model.weight.grad = torch.full_like(weight, 9)  # what was there before does not count

    def objective():
        fit = (ctx.model.weight**2).sum(1)[:2]
        return fit.sum(), Losses(fit, fit * 0, None, None)

    loss, _ = Descend()(ctx, optimizer, objective)
    assert loss.item() == pytest.approx(float((weight[:2] ** 2).sum()))
    torch.testing.assert_close(ctx.model.weight.detach(), torch.cat([weight[:2] * 0, weight[2:]]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_blend_is_decay_of_the_one_and_the_rest_of_the_other(decay):
    draw = torch.Generator().manual_seed(0)
    averaged, model = torch.nn.BatchNorm1d(5), torch.nn.BatchNorm1d(5)
    for network in (averaged, model):
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randn(5, generator=draw))
    model.num_batches_tracked.fill_(7)
    before = {name: value.double().clone() for name, value in averaged.state_dict().items()}
    blend(averaged, model, decay)
    for name, value in averaged.state_dict().items():
        now = model.state_dict()[name]
        if not value.is_floating_point():
            assert int(value) == 7
        elif decay == 0:
            assert torch.equal(value, now)
        else:
            torch.testing.assert_close(
                value.double(), decay * before[name] + (1 - decay) * now.double(), rtol=1e-6, atol=1e-7
            )
