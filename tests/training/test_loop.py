from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data.images import images_from_arrays
from bench.errors import BadData, BadRecipe, Diverged
from bench.models.architecture import Architecture, build
from bench.training.checkpoint import weights_id, write
from bench.training.loop import train
from bench.training.method import Plan, compose
from bench.training.recipe import Recipe, Uniform
from bench.training.run import Parent, Run
from bench.training.schedule import Schedule, cuts, learning_rate
from bench.training.step import pack, unpack
from bench.training.validation import record, validate
from bench.training.values import Tally, Weights
from methods.natural import Natural
from methods.pgd_at import PGDAT

QUICK = Schedule(epochs=2, batch_size=16, lr=0.1, augment="crop-flip", holdout=0.1, selection="last", validate_every=2)
SMALL = Architecture("convnet-2", 4, 2)


def toy(n=44, classes=4, seed=0):
    """Images (n,2,8,8), a bright quadrant per class."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    pixels = draw.integers(0, 100, (n, 2, 8, 8), dtype=np.uint8)
    for row, k in enumerate(labels):
        pixels[row, :, 4 * (k // 2) :, 4 * (k % 2) :][:, :4, :4] += 100
    return images_from_arrays("toy", "train", pixels, labels, [f"c{k}" for k in range(classes)])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A trained checkpoint that teaches."""
    path = tmp_path_factory.mktemp("teacher") / "t.safetensors"
    run = Run(Plan("natural", "toy", "", Recipe(Natural()), QUICK, ()), SMALL, toy(), 7, {})
    *_, last = train(run)
    write(last.judged_only(), path)
    return Parent(last.checkpoint_id, "recipe", path)


def a_run(name, teacher=None, settings=None, schedule=QUICK, seed=0, images=None, architecture=SMALL):
    """A short run of a method on the toy data, with 2 steps of attack."""
    plan = compose(name, dataset="digits", settings=settings)
    objective = plan.recipe.objective
    if hasattr(objective, "inner"):
        plan = replace(
            plan, recipe=replace(plan.recipe, objective=replace(objective, inner=replace(objective.inner, steps=2)))
        )
    plan = replace(plan, schedule=schedule)
    return Run(plan, architecture, images or toy(), seed, dict.fromkeys(plan.teachers, teacher))


def recipe_run(recipe, schedule=QUICK, images=None, architecture=SMALL, seed=0):
    """A run of a recipe that is in no registry."""
    return Run(Plan("own", "toy", "", recipe, schedule, ()), architecture, images or toy(), seed, {})


def final(run, **options):
    *_, last = train(run, **options)
    return last


def differing(a, b, *, parts=("model", "averaged", "momentum", "targets", "budget", "tally")):
    """Tensors in which two checkpoints differ in any bit."""
    names = [(part, name) for part in parts for name in sorted({*a.tensors[part], *b.tensors[part]})]
    return [
        f"{part}/{name}"
        for part, name in names
        if name not in a.tensors[part]
        or name not in b.tensors[part]
        or a.tensors[part][name].numpy().tobytes() != b.tensors[part][name].numpy().tobytes()
    ]


# learning rates


def test_piecewise_drops_after_215_260_and_285_of_300_epochs():
    paper = compose("rslad", dataset="cifar10", preset="paper").schedule
    rates = [learning_rate(paper, epoch, epoch / 300) for epoch in range(300)]
    for epoch, rate in enumerate(rates):
        assert rate == pytest.approx(0.1 * 0.1 ** sum(epoch >= drop for drop in (215, 260, 285)))
    assert rates[214] == 0.1
    assert rates[215] == pytest.approx(0.01)
    assert [cuts(paper, epoch) for epoch in (214, 215, 259, 260, 284, 285, 299)] == [0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("name", "first_epochs"), [("pgd-at", [100, 150]), ("natural", [100, 150]), ("adr", [100, 150]), ("trades", [74])]
)
def test_drops_of_the_paper_presets(name, first_epochs):
    schedule = compose(name, dataset="cifar10", preset="paper").schedule
    assert schedule.first_epochs_of_drops() == first_epochs
    assert learning_rate(schedule, first_epochs[0] - 1, 0.5) == pytest.approx(0.1)
    assert learning_rate(schedule, first_epochs[0], 0.5) == pytest.approx(0.01)


def test_cosine_falls_from_the_peak_to_nothing():
    cosine = Schedule(shape="cosine", lr=0.4)
    wanted = [(0, 0.4), (0.25, 0.2 * (1 + math.sqrt(0.5))), (0.5, 0.2), (0.75, 0.2 * (1 - math.sqrt(0.5))), (1, 0)]
    for progress, rate in wanted:
        assert learning_rate(cosine, 0, progress) == pytest.approx(rate, abs=1e-12)
    assert cuts(cosine, 29) == 0


@pytest.mark.parametrize("rise", [0.0, 0.3, 1.0])
def test_one_cycle_rises_linearly_and_falls_along_a_cosine(rise):
    cycle = Schedule(shape="one-cycle", lr=0.2, rise=rise)
    for progress in np.linspace(0, 0.999, 50):
        if progress < rise:
            wanted = 0.2 * progress / rise
        else:
            wanted = 0.1 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
        assert learning_rate(cycle, 0, progress) == pytest.approx(wanted)
    if 0 < rise < 1:
        assert learning_rate(cycle, 0, rise) == pytest.approx(0.2)


# identity laws


@pytest.mark.parametrize(
    ("name", "settings", "same_as", "parts"),
    [
        ("pgd-at+awp", {"step.gamma": 0}, "pgd-at", ("model", "averaged", "momentum")),
        ("trades+awp", {"step.gamma": 0, "step.tensors": "all"}, "trades", ("model", "averaged", "momentum")),
        ("absld", {"targets.rate": 0}, "rslad", ("model", "averaged", "momentum")),
        ("absld", {"targets.rate": 0, "targets.as_released": True}, "rslad", ("model", "averaged", "momentum")),
        ("absld", {"targets.low": 1, "targets.high": 1}, "rslad", ("model", "averaged", "momentum")),
        ("adr", {"targets.trust": "0:0"}, "pgd-at", ("model", "momentum")),
        ("trades+adr", {"targets.trust": "0:0"}, "trades", ("model", "momentum")),
        ("pgd-at+wa", {}, "pgd-at", ("model", "momentum")),
        ("adr+wa", {"targets.temperature": "2:1"}, "adr", ("model", "averaged")),
        ("trades+awp", {"step.begin": 2}, "trades", ("model", "averaged", "momentum")),
    ],
)
def test_identity_laws_hold_bit_for_bit(name, settings, same_as, parts, teacher):
    other = {k: v for k, v in settings.items() if name == "adr+wa"}
    one, two = final(a_run(name, teacher, settings)), final(a_run(same_as, teacher, other))
    assert differing(one, two, parts=parts) == []


def test_laws_are_not_empty(teacher):
    for name, settings, other in (
        ("pgd-at+awp", {"step.gamma": 0.01}, "pgd-at"),
        ("absld", {"targets.rate": 0.1}, "rslad"),
        ("adr", {}, "pgd-at"),
    ):
        assert differing(final(a_run(name, teacher, settings)), final(a_run(other, teacher)), parts=("model",))
    averaged = final(a_run("pgd-at+wa"))
    assert differing(averaged, replace(averaged, tensors={**averaged.tensors, "averaged": averaged.tensors["model"]}))


# going on


@pytest.mark.parametrize("name", ["absld+awp", "adr", "trades", "natural+wa"])
def test_going_on_from_any_point_is_the_same_run(name, teacher, tmp_path):
    run = a_run(name, teacher)
    first, whole = train(run)
    assert (first.epoch, first.step, whole.epoch) == (1, 0, 2)
    for after in (1, 3, 4):  # 3 steps an epoch: in mid-epoch, at the boundary (where there is nothing to do), beyond it
        count = iter(range(100))
        *_, stopped = train(run, stop=lambda count=count, after=after: next(count) + 1 >= after)
        assert (stopped.epoch, stopped.step) == {1: (0, 1), 3: (1, 0), 4: (1, 1)}[after]
        on = final(a_run(name, teacher), resume=stopped)
        assert differing(on, whole) == []
        assert on.history == whole.history
        assert on.checkpoint_id == whole.checkpoint_id
    on = final(run, resume=first)
    assert differing(on, whole) == []
    assert on.history == whole.history


def test_a_finished_run_has_nothing_left_to_do():
    run = a_run("natural")
    assert list(train(run, resume=final(run))) == []


class Count(NamedTuple):
    """Images and steps seen."""

    images: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Counting(Uniform):
    """A budget with a state that every step and every epoch changes."""

    def init(self, ctx):
        return Count(torch.zeros(ctx.classes), torch.zeros(()))

    def weigh(self, ctx, batch, losses, state):
        one = 1 + state.steps * torch.ones_like(losses.fit)
        return Weights(one, one)

    def end_step(self, ctx, state, losses):
        return state._replace(steps=state.steps + 0.1)

    def end_epoch(self, ctx, state, tally):
        return state._replace(images=state.images + tally.count)


def test_states_of_slots_are_kept_by_step_and_by_epoch():
    run = recipe_run(Recipe(Natural(), budget=Counting()))
    whole = final(run)
    assert whole.tensors["budget"]["images"].sum() == 2 * 40
    assert whole.tensors["budget"]["steps"].item() == pytest.approx(0.6)
    count = iter(range(9))
    *_, stopped = train(run, stop=lambda: next(count) == 1)
    assert stopped.step == 2
    assert differing(final(run, resume=stopped), whole) == []


def test_pack_and_unpack():
    tensor, pair = torch.arange(3), Count(torch.ones(2), torch.zeros(()))
    assert pack(None) == {}
    assert unpack(None, {}) is None
    assert torch.equal(unpack(torch.zeros(3), pack(tensor)), tensor)
    assert unpack(pair, pack(pair)) == pair


def test_seeds_matter_and_nothing_else_does():
    one, again, other = (final(a_run("pgd-at", seed=seed)) for seed in (0, 0, 1))
    torch.manual_seed(99)
    assert differing(one, again) == []
    assert one.checkpoint_id == again.checkpoint_id
    assert len(differing(one, other, parts=("model",))) == len(
        [v for v in one.tensors["model"].values() if v.is_floating_point()]
    )
    assert one.checkpoint_id != other.checkpoint_id


def test_every_epoch_has_its_own_order_and_noise():
    seen = []

    @dataclass(frozen=True)
    class Watching(Natural):
        """Writes down labels and random numbers."""

        def perturb(self, ctx, batch, targets, reach):
            noise = dict(zip(ctx.streams.samples.tolist(), ctx.streams.uniform(()).tolist(), strict=True))
            seen.append((ctx.epoch, noise))
            return batch.x

    final(recipe_run(Recipe(Watching())))
    orders = [[row for epoch, noise in seen if epoch == e for row in noise] for e in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    first, second = ({k: v for e, noise in seen if e == epoch for k, v in noise.items()} for epoch in (0, 1))
    assert not any(first[row] == second[row] for row in first)


# teachers


@pytest.mark.parametrize("name", ["rslad", "absld+awp"])
def test_a_teacher_never_changes(name, teacher, monkeypatch):
    networks = []
    load = Parent.network
    monkeypatch.setattr(Parent, "network", lambda self: networks.append(load(self)) or networks[-1])
    final(a_run(name, teacher))
    (network,) = networks
    before = load(teacher).state_dict()
    assert any("running_mean" in key for key in before)
    assert weights_id(network.state_dict(), "") == weights_id(before, "")
    assert not network.training
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_a_teacher_is_needed_by_those_who_learn_from_one_and_by_nobody_else(teacher):
    with pytest.raises(BadRecipe, match="'rslad' needs a teacher; name its checkpoint with --teacher teacher=FILE"):
        Run(compose("rslad", dataset="digits"), SMALL, toy(), 0, {})
    with pytest.raises(BadRecipe, match="'trades' has no use for a teacher; leave it out"):
        Run(compose("trades", dataset="digits"), SMALL, toy(), 0, {"teacher": teacher})


# what goes wrong


@dataclass(frozen=True)
class Exploding(Natural):
    """A loss that is no number from a given epoch and step on."""

    at: tuple[int, int] = (1, 1)

    def losses(self, ctx, batch, adv, targets):
        losses = super().losses(ctx, batch, adv, targets)
        steps = int(ctx.model.bn1.num_batches_tracked) - 1
        bad = steps >= 3 * self.at[0] + self.at[1]
        return losses._replace(fit=losses.fit * (math.nan if bad else 1.0))


def test_a_loss_that_is_no_number_stops_with_epoch_and_step():
    seen = []
    with pytest.raises(Diverged, match=r"epoch 2 of 2, step 2; lower schedule\.lr"):
        seen.extend(train(recipe_run(Recipe(Exploding()))))
    for state in train(recipe_run(Recipe(Exploding()), replace(QUICK, epochs=1))):
        seen.append(state)
    assert all(v.isfinite().all() for state in seen for v in state.tensors["model"].values())


def test_a_state_that_is_no_number_is_not_handed_out_when_stopped():
    count = iter(range(9))
    with pytest.raises(Diverged, match="epoch 1 of 2, step 1"):
        list(train(recipe_run(Recipe(Exploding(at=(0, 0)))), stop=lambda: next(count) == 1))


def test_too_few_images():
    with pytest.raises(BadData, match="class 'c3' of toy/train has 1 images; 2 are needed to hold out 1"):
        final(a_run("natural", images=toy(7)))
    one = toy(8).select(np.array([0]))
    with pytest.raises(BadRecipe, match="1 images are left to train on; at least 2 are needed"):
        final(a_run("natural", images=one, schedule=replace(QUICK, holdout=0.0)))


@pytest.mark.parametrize("name", ["absld", "trades+adr", "pgd-at+awp"])
def test_a_class_missing_from_batches_batches_of_one_and_two_classes_work(name, teacher):
    small = replace(QUICK, epochs=1, batch_size=1, lr=0.01)
    one = final(a_run(name, teacher, schedule=small, images=toy(12)))
    assert one.history[0]["n"] == [2, 2, 2, 2] or sum(one.history[0]["n"]) == 7
    assert all(v.isfinite().all() for v in one.weights.values())
    if "absld" not in name:
        two = final(a_run(name, images=toy(20, 2), architecture=Architecture("convnet-2", 2, 2)))
        assert [len(row["n"]) for row in two.history] == [2, 2, 2]


def test_a_last_batch_of_a_single_image_is_left_out():
    steps = []
    schedule = replace(QUICK, epochs=1, batch_size=13)  # 40 = 13 + 13 + 13 + 1
    last = final(a_run("natural", schedule=schedule), report=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert sum(last.history[0]["n"]) == 39


@pytest.mark.parametrize("name", ["pgd-at", "trades+awp", "absld", "adr"])
def test_bf16_trains_and_keeps_weights_in_full_precision(name, teacher):
    low = final(a_run(name, teacher, schedule=replace(QUICK, precision="bf16")))
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in low.weights.values() if v.is_floating_point())
    assert differing(low, final(a_run(name, teacher)), parts=("model",))


# what is recorded


def test_history_counts_every_image_of_train_and_validation():
    last = final(a_run("trades", schedule=replace(QUICK, validate_every=1)))
    assert [(row["epoch"], row["split"]) for row in last.history] == [
        (1, "train"),
        (1, "valid"),
        (2, "train"),
        (2, "valid"),
    ]
    assert [row["n"] for row in last.history] == [[10] * 4, [1] * 4] * 2
    for row in last.history:
        assert all(0 <= hit <= n for k in ("hits_clean", "hits_adv") for hit, n in zip(row[k], row["n"], strict=True))


def test_what_was_not_looked_at_is_null():
    row = final(a_run("natural")).history[0]
    assert row["hits_adv"] is None
    assert len(row["hits_clean"]) == 4
    row = final(a_run("pgd-at")).history[0]
    assert row["hits_clean"] is None
    assert record(1, "valid", Tally.zeros(2))["hits_clean"] is None


def test_validation_is_pgd_in_eval_mode_and_repeats_itself():
    model = build(SMALL, 3).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = toy(40)
    one, two = (validate(model, images, 0.2, 5, "cpu") for _ in range(2))
    assert torch.equal(one.hits_adv, two.hits_adv)
    assert (one.hits_adv <= one.hits_clean).all()
    assert one.count.tolist() == [10] * 4
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    x, y = images.batch(slice(None))
    wanted = torch.bincount(y[model.eval()(x).argmax(1) == y], minlength=4)
    assert torch.equal(one.hits_clean.long(), wanted)


def test_the_judged_weights_are_the_ones_validated(monkeypatch):
    judged = []
    monkeypatch.setattr(
        "bench.training.loop.validate",
        lambda model, **rest: judged.append(weights_id(model.state_dict(), "")) or Tally.zeros(4),
    )
    for name, part in (("pgd-at+wa", "averaged"), ("adr", "model")):
        last = final(a_run(name))
        assert last.judged == part
        assert judged[-1] == weights_id(last.tensors[part], "")


def test_slots_see_the_drops_and_the_progress():
    seen = []

    @dataclass(frozen=True)
    class Watching(Uniform):
        """Writes down what it is told."""

        def reach(self, ctx, batch, state):
            seen.append(("step", ctx.epoch, ctx.drops, round(ctx.progress, 4)))
            return super().reach(ctx, batch, state)

        def end_epoch(self, ctx, state, tally):
            seen.append(("end", ctx.epoch, ctx.drops, ctx.progress))
            return state

    schedule = replace(QUICK, epochs=3, batch_size=32, shape="piecewise", drops=(1 / 3, 2 / 3))
    final(recipe_run(Recipe(Natural(), budget=Watching()), schedule))
    # ABSLD's release cuts its rate before the update at the end of the epoch after which the learning rate drops
    assert seen == [
        ("step", 0, 0, 0.0),
        ("step", 0, 0, 0.1667),
        ("end", 0, 1, 1 / 3),
        ("step", 1, 1, 0.3333),
        ("step", 1, 1, 0.5),
        ("end", 1, 2, 2 / 3),
        ("step", 2, 2, 0.6667),
        ("step", 2, 2, 0.8333),
        ("end", 2, 2, 1.0),
    ]


def test_held_out_images_are_never_trained_on(monkeypatch):
    images = toy()
    rest, held = images.hold_out(0.1, 0)
    seen = set()
    batch = type(images).batch

    def noting(self, rows, device="cpu"):
        if len(self) == len(rest):
            seen.update(self.sample[rows].tolist())
        return batch(self, rows, device)

    monkeypatch.setattr(type(images), "batch", noting)
    final(a_run("natural", images=images))
    assert seen == set(rest.sample.tolist())
    assert not seen & set(held.sample.tolist())


def test_the_inner_attack_trains_at_the_radius_of_the_schedule():
    seen = []

    @dataclass(frozen=True)
    class Watching(PGDAT):
        """Writes down how far it went."""

        def perturb(self, ctx, batch, targets, reach):
            adv = super().perturb(ctx, batch, targets, reach)
            seen.append(float((adv - batch.x).abs().max()))
            return adv

    schedule = replace(QUICK, epochs=1, eps=QUICK.eps)
    final(recipe_run(Recipe(Watching()), schedule))
    assert seen == pytest.approx([8 / 255] * len(seen), abs=1e-6)


@pytest.mark.parametrize("rate", [1e20, 1e38])
def test_weights_that_are_beyond_numbers_are_no_trained_network(rate):
    with pytest.raises(Diverged, match=r"NaN or infinite"):
        list(train(a_run("natural", schedule=replace(QUICK, lr=rate, epochs=1))))
