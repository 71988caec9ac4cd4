"""What steps of training must leave as it was, what going on must find again, and whether they learn."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.conformance.description import named
from bench.conformance.rig import CLASSES, Rig, separable
from bench.conformance.slots import images_in
from bench.conformance.watching import global_randomness, require
from bench.models.architecture import Architecture, build
from bench.training.inner import Mode, switched
from bench.training.recipe import Recipe
from bench.training.step import pack
from bench.training.values import Batch


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names of what differs, a bit being enough."""
    return [name for name in sorted({*a, *b}) if name not in a or name not in b or not torch.equal(a[name], b[name])]


def check_perturbing_changes_nothing_else(recipe: Recipe) -> None:
    """Parameters, their gradients, their flags and the model's mode are as before."""
    rig, batch = Rig.build(recipe), separable()
    rig.step(batch)
    rig.optimizer.zero_grad()
    weights = _copied(dict(rig.ctx.model.named_parameters()))
    targets, reach = rig.call(batch)
    kind = type(recipe.objective).__name__
    modes: tuple[Mode, ...] = ("train", "eval")
    for mode in modes:
        with switched(rig.ctx.model, mode):
            recipe.objective.perturb(rig.ctx, batch, targets, reach)
            found = {module.training for module in rig.ctx.model.modules()}
            require(found == {mode == "train"}, f"{kind} left the model in another mode")
    for name, weight in rig.ctx.model.named_parameters():
        require(torch.equal(weight, weights[name]), f"{kind} changed {name} while perturbing")
        require(weight.requires_grad, f"{kind} left {name} frozen")
        require(
            weight.grad is None, f"{kind} left a gradient in {name} while perturbing; use bench.training.inner.Inner"
        )


def check_changes_nothing_in_place(recipe: Recipe) -> None:
    """Images, labels, targets and the slots' states that came in are as they were; asking twice is asking once."""
    rig, batch = Rig.build(recipe), separable()
    made = rig.step(batch)
    rig.end_epoch(batch, made)
    before = _copied({"x": batch.x, "y": batch.y})
    state = _copied({**pack(rig.targets), **{f"budget {k}": v for k, v in pack(rig.budget).items()}})
    targets, reach = rig.call(batch)
    clean = targets.clean.clone()
    first = targets.at(batch.x).clone()
    require(torch.equal(targets.clean, clean), f"{named(recipe)}: asking for adversarial targets changed clean ones")
    adv = recipe.objective.perturb(rig.ctx, batch, targets, reach)
    kept = [images.clone() for images in images_in(adv)]
    losses = recipe.objective.losses(rig.ctx, batch, adv, targets)
    recipe.budget.weigh(rig.ctx, batch, losses, rig.budget)
    require(torch.equal(targets.clean, clean), f"{named(recipe)}: the clean targets were changed in place")
    require(torch.equal(targets.at(batch.x), first), f"{named(recipe)}: the adversarial targets were changed in place")
    same = all(map(torch.equal, images_in(adv), kept))
    require(same, f"{named(recipe)}: the adversarial images were changed in place")
    require(not _same(before, {"x": batch.x, "y": batch.y}), f"{named(recipe)}: the batch was changed in place")
    now = {**pack(rig.targets), **{f"budget {k}": v for k, v in pack(rig.budget).items()}}
    require(not _same(state, now), f"{named(recipe)}: a slot's state was changed in place; return a new one")
    again = recipe.targets(rig.ctx, batch, rig.targets)
    require(torch.equal(again.clean, clean), f"{named(recipe)}: the same image is called differently when asked again")


def check_leaves_teachers_alone(recipe: Recipe) -> None:
    """Weights, statistics, modes and gradients of every teacher are as before.

    So are the averaged weights', until the end of a step.
    """
    rig, batch = Rig.build(recipe), separable()
    rig.step(batch)
    teachers = dict(rig.ctx.teachers)
    before = {role: _copied(teacher.state_dict()) for role, teacher in teachers.items()}
    rig.ctx.averaged.load_state_dict(build(Architecture("convnet-2", CLASSES, 2), 1).state_dict())
    averaged = _copied(rig.ctx.averaged.state_dict())
    targets, reach = rig.call(batch)
    adv = recipe.objective.perturb(rig.ctx, batch, targets, reach)
    recipe.objective.losses(rig.ctx, batch, adv, targets)
    require(
        not _same(averaged, rig.ctx.averaged.state_dict()) and not rig.ctx.averaged.training,
        f"{named(recipe)}: something other than the average slot moved the averaged weights",
    )
    made = rig.step(batch)
    rig.end_epoch(batch, made)
    for role, teacher in teachers.items():
        changed = _same(before[role], teacher.state_dict())
        require(not changed, f"{named(recipe)}: the {role} changed, in {', '.join(changed[:3])}")
        require(not any(m.training for m in teacher.modules()), f"{named(recipe)}: the {role} was put into train mode")
        touched = any(p.requires_grad or p.grad is not None for p in teacher.parameters())
        require(not touched, f"{named(recipe)}: the {role} has gradients")


def check_goes_on_from_its_state(recipe: Recipe) -> None:
    """Restored from what a checkpoint holds, the next step and the end of the epoch are the same, bit for bit."""
    batch = separable()
    first = Rig.build(recipe)
    first.step(batch)
    saved = first.state()
    first.end_epoch(batch, first.step(batch))
    second = Rig.build(recipe).restore(saved, 1)
    second.end_epoch(batch, second.step(batch))
    changed = _same(first.state(), second.state())
    require(not changed, f"{named(recipe)}: keeps something outside its state; going on differs in {changed[:3]}")
    for slot, state in (("targets", first.targets), ("budget", first.budget), ("average", first.average)):
        kind = type(getattr(recipe, slot)).__name__
        tensors = pack(state)
        require(all(isinstance(v, Tensor) for v in tensors.values()), f"{kind}: its state must be tensors")
        initial = getattr(recipe, slot).init(first.ctx)
        require(type(initial) is type(state), f"{kind}: its state is a {type(state)}, it began as a {type(initial)}")


def check_leaves_global_randomness_alone(recipe: Recipe) -> None:
    """Neither draws from it nor seeds it."""
    rig, batch = Rig.build(recipe), separable()
    rig.call(batch)
    before = global_randomness()
    rig.end_epoch(batch, rig.step(batch))
    require(
        before == global_randomness(),
        f"{named(recipe)}: draws from or seeds global randomness; draw from ctx.streams",
    )


def check_copes_with_odd_batches(recipe: Recipe) -> None:
    """Two classes in all; then, of four, a batch that lacks one, and a batch of one image; and an epoch of either."""
    two = separable(8)
    whole = separable()
    present = whole.y != 0
    lacking, single = Batch(whole.x[present], whole.y[present]), Batch(whole.x[:1], whole.y[:1])
    odd = {"two classes": (2, Batch(two.x, two.y % 2)), "a class is missing": (4, lacking), "one image": (4, single)}
    for what, (classes, batch) in odd.items():
        rig = Rig.build(recipe, classes)
        for _ in range(2):
            made = rig.step(batch)
            rig.end_epoch(batch, made)
            require(bool(made.loss.isfinite()), f"{named(recipe)}: the loss is no number where {what}")
        broken = [name for name, value in rig.state().items() if not value.isfinite().all()]
        require(not broken, f"{named(recipe)}: {', '.join(broken[:3])} is no number after an epoch where {what}")


def check_lowers_the_loss(recipe: Recipe) -> None:
    """Three steps on images that are easy to tell apart."""
    rig, batch = Rig.build(recipe), separable()
    values = [float(rig.step(batch).loss) for _ in range(4)]
    shown = ", ".join(f"{value:.4g}" for value in values)
    require(values[-1] < values[0], f"{named(recipe)}: three steps did not lower the loss: {shown}")
