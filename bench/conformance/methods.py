"""What every training method must do, as checks that anyone can run on their own.

    for check in RECIPE_CHECKS.values():
        check(Recipe(objective=MyObjective()))
    for check in METHOD_CHECKS.values():
        check(MY_METHOD)

Each raises `AssertionError` with a line about what is wrong, and needs a second or so and no data. The recipe is put
through the trainer's own steps on a toy of 16 images in 4 classes that any network can tell apart.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from inspect import getmembers, getsource, isfunction
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import BadRecipe, BenchError
from bench.fingerprint import canonical, fingerprint
from bench.models.architecture import Architecture, build
from bench.randomness import Streams
from bench.training.inner import switched
from bench.training.method import Method
from bench.training.recipe import SLOTS, Recipe, as_json
from bench.training.state import pack, unpack
from bench.training.values import Batch, Context, Losses, Reach, Tally, Targets, detached

EPS = 0.1
CLASSES = 4
HEAD = ("Paper:", "Code:", "Claim:", "Departs:")
LONGEST = 110
"""Lines of a method's file; what is longer is more than one method, or belongs to `bench`."""


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise AssertionError(complaint)


def _who(recipe: Recipe) -> str:
    return " ".join(type(getattr(recipe, slot)).__name__ for slot in SLOTS)


def separable(n: int = 16) -> Batch:
    """Images (n,2,8,8), the quadrant that is bright being the class, and their labels."""
    y = torch.arange(n) % CLASSES
    x = 0.2 + 0.1 * Streams(0, torch.arange(n)).uniform((2, 8, 8))
    for row, label in enumerate(y.tolist()):
        top, left = 4 * (label // 2), 4 * (label % 2)
        x[row, :, top : top + 4, left : left + 4] += 0.5
    return Batch(x, y)


class _Teacher(nn.Module):
    """A fixed random network, sharp enough to have an opinion."""

    def __init__(self, seed: int, classes: int) -> None:
        super().__init__()
        self.network = build(Architecture("convnet-2", classes, 2), seed)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 5 * self.network(x)
        return logits


class _EveryRole(dict[str, nn.Module]):
    """A teacher for whatever role is asked for."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def __missing__(self, role: str) -> nn.Module:
        self[role] = _Teacher(len(self) + 1, self.classes).eval().requires_grad_(False)
        return self[role]

    def __contains__(self, role: object) -> bool:
        return True


class Made(NamedTuple):
    """What one step made on its way."""

    targets: Targets
    reach: Reach
    adv: Any
    losses: Losses
    loss: Tensor


@dataclass
class Rig:
    """A small network in training with a recipe, step by step, as `bench.training.loop` does it."""

    recipe: Recipe
    ctx: Context
    optimizer: torch.optim.SGD
    targets: Any
    budget: Any
    average: Any
    done: int = 0

    @classmethod
    def build(cls, recipe: Recipe, classes: int = CLASSES) -> Rig:
        """At the start of a run of 2 epochs of 4 steps."""
        architecture = Architecture("convnet-2", classes, 2)
        model, averaged = build(architecture).train(), build(architecture).eval().requires_grad_(False)
        ctx = Context(model, averaged, _EveryRole(classes), classes, EPS, 2, Streams(0, torch.arange(0)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        states = (rule.init(ctx) for rule in (recipe.targets, recipe.budget, recipe.average))
        return cls(recipe, ctx, optimizer, *states)

    def call(self, batch: Batch) -> tuple[Targets, Reach]:
        """Targets and reach of a batch."""
        self.ctx.epoch, self.ctx.progress = self.done // 4, self.done / 8
        self.ctx.streams = Streams(0, torch.arange(len(batch.y))).fork(self.done)
        targets = self.recipe.targets(self.ctx, batch, self.targets)
        return targets, self.recipe.budget.reach(self.ctx, batch, self.budget)

    def step(self, batch: Batch) -> Made:
        """One step."""
        recipe, ctx = self.recipe, self.ctx
        targets, reach = self.call(batch)
        adv = recipe.objective.perturb(ctx, batch, targets, reach)

        def objective() -> tuple[Tensor, Losses]:
            losses = recipe.objective.losses(ctx, batch, adv, targets)
            weights = recipe.budget.weigh(ctx, batch, losses, self.budget)
            return (weights.fit * losses.fit + weights.smooth * losses.smooth).mean(), losses

        loss, losses = recipe.step(ctx, self.optimizer, objective)
        losses = detached(losses)
        self.targets = recipe.targets.end_step(ctx, self.targets, losses)
        self.budget = recipe.budget.end_step(ctx, self.budget, losses)
        self.average = recipe.average.end_step(ctx, self.average, losses)
        self.done += 1
        return Made(targets, reach, adv, losses, loss.detach())

    def end_epoch(self, batch: Batch, made: Made) -> None:
        """Let the slots look at what a step showed."""
        tally = Tally.zeros(self.ctx.classes)
        tally.add(batch.y, made.losses.logits_clean, made.losses.logits_adv, made.losses.stood)
        self.ctx.validate = partial(glanced, batch=batch, classes=self.ctx.classes)
        self.targets = self.recipe.targets.end_epoch(self.ctx, self.targets, tally)
        self.budget = self.recipe.budget.end_epoch(self.ctx, self.budget, tally)
        self.average = self.recipe.average.end_epoch(self.ctx, self.average, tally)

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, copied."""
        parts = {
            "model": self.ctx.model.state_dict(),
            "averaged": self.ctx.averaged.state_dict(),
            "momentum": {
                name: self.optimizer.state[weight]["momentum_buffer"]
                for name, weight in self.ctx.model.named_parameters()
                if self.optimizer.state.get(weight)
            },
            "targets": pack(self.targets),
            "budget": pack(self.budget),
            "average": pack(self.average),
        }
        return {f"{part}/{k}": v.detach().clone() for part, state in parts.items() for k, v in state.items()}

    def restore(self, state: Mapping[str, Tensor], done: int) -> Rig:
        """Go on from there."""

        def part(name: str) -> dict[str, Tensor]:
            return {k.partition("/")[2]: v.clone() for k, v in state.items() if k.startswith(f"{name}/")}

        self.ctx.model.load_state_dict(part("model"))
        self.ctx.averaged.load_state_dict(part("averaged"))
        momentum = part("momentum")
        for name, weight in self.ctx.model.named_parameters():
            if name in momentum:
                self.optimizer.state[weight]["momentum_buffer"] = momentum[name]
        self.targets, self.budget = unpack(self.targets, part("targets")), unpack(self.budget, part("budget"))
        self.average, self.done = unpack(self.average, part("average")), done
        return self


def glanced(model: nn.Module, batch: Batch, classes: int) -> Tally:
    """Class vectors of a network on images and on brighter ones."""
    tally = Tally.zeros(classes)
    with torch.no_grad(), switched(model, False):
        tally.add(batch.y, model(batch.x), model((batch.x + EPS).clamp(0, 1)))
    return tally


def images_in(found: Any) -> list[Tensor]:
    """All batches of images in what `perturb` found, the adversarial ones first."""
    parts = [found] if isinstance(found, Tensor) else list(found)
    return [part for part in parts if isinstance(part, Tensor) and part.ndim == 4]


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names of what differs, a bit being enough."""
    return [name for name in sorted({*a, *b}) if name not in a or name not in b or not torch.equal(a[name], b[name])]


def _slots(value: object, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every dataclass in a recipe, with its address."""
    for f in fields(value):  # type: ignore[arg-type]  # a dataclass instance
        inner = getattr(value, f.name)
        if is_dataclass(inner) and not isinstance(inner, type):
            yield f"{at}{f.name}", inner
            yield from _slots(inner, f"{at}{f.name}.")


def _another(value: Any, kind: Any) -> Any:
    """A different value of the same type; the same one where there is none."""
    if typing.get_origin(kind) is Literal:
        return next((choice for choice in typing.get_args(kind) if choice != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, Fraction)):
        return value + 1
    if isinstance(value, str):
        return f"{value}_"
    if isinstance(value, tuple) and value:
        changed = (_another(value[0], type(value[0])), *value[1:])
        return type(value)(*changed) if hasattr(value, "_fields") else changed
    return value


def check_is_a_value(recipe: Recipe) -> None:
    """Frozen dataclasses with typed fields all the way down; JSON that tells any two settings apart."""
    identity = fingerprint(as_json(recipe))
    _require(identity == fingerprint(as_json(replace(recipe))), f"{_who(recipe)}: a copy has another hash")
    canonical(as_json(recipe))
    for address, slot in _slots(recipe):
        kind = type(slot)
        _require(kind.__dataclass_params__.frozen, f"{address} is a {kind.__name__}, which is not frozen")
        _require(slot == replace(slot), f"{address}: a {kind.__name__} is not equal to its copy")
        hash(slot)
        hints = typing.get_type_hints(kind)
        for f in fields(slot):
            value = getattr(slot, f.name)
            _require(f.name in hints and hints[f.name] is not Any, f"{kind.__name__}.{f.name} has no type")
            if is_dataclass(value) or (other := _another(value, hints[f.name])) == value:
                continue
            try:
                changed = replace(slot, **{f.name: other})
            except BenchError:
                continue
            _require(
                fingerprint(as_json(changed)) != fingerprint(as_json(slot)),
                f"{kind.__name__}.{f.name} can change without the recipe's hash changing",
            )


def check_is_documented(recipe: Recipe) -> None:
    """Every class that fills a slot, and every public method of it, says what it is for."""
    for address, slot in _slots(recipe):
        kind = type(slot)
        own = kind.__dict__.get("__doc__") or ""
        _require(bool(own) and not own.startswith(f"{kind.__name__}("), f"{address}: {kind.__name__} has no docstring")
        for name, function in getmembers(kind, isfunction):
            public = not name.startswith("_") or (name == "__call__" and "." not in address)
            _require(not public or bool(function.__doc__), f"{kind.__name__}.{name} has no docstring")


def check_targets_are_distributions(recipe: Recipe) -> None:
    """(B,K) at the clean and at adversarial images, at least 0, summing to 1, without a graph to the model."""
    rig, batch = Rig.build(recipe), separable()
    for _ in range(2):
        targets, _ = rig.call(batch)
        for where, wanted in (("clean", targets.clean), ("adversarial", targets.at(batch.x))):
            kind = type(recipe.targets).__name__
            _require(wanted.shape == (16, CLASSES), f"{kind}: {where} targets have shape {tuple(wanted.shape)}")
            _require(bool((wanted >= 0).all()), f"{kind}: {where} targets are below 0 or no numbers")
            _require(
                bool(((wanted.sum(1) - 1).abs() < 1e-5).all()), f"{kind}: {where} targets do not sum to 1 over classes"
            )
        _require(not targets.clean.requires_grad, f"{type(recipe.targets).__name__}: clean targets carry a graph")
        rig.step(batch)


def check_budget_is_a_vector(recipe: Recipe) -> None:
    """Radius, step and weights are (B,), finite and at least 0."""
    rig, batch = Rig.build(recipe), separable()
    made = rig.step(batch)
    weights = recipe.budget.weigh(rig.ctx, batch, made.losses, rig.budget)
    for what, vector in (*made.reach._asdict().items(), *weights._asdict().items()):
        kind = type(recipe.budget).__name__
        _require(vector.shape == (16,), f"{kind}: {what} has shape {tuple(vector.shape)}, wanted one per image")
        _require(bool((vector.isfinite() & (vector >= 0)).all()), f"{kind}: {what} is below 0 or no number")


def check_perturbs_within_reach(recipe: Recipe) -> None:
    """Finite images of the same shape in ball and box, detached; whatever each image's radius."""
    rig, batch = Rig.build(recipe), separable()
    batch = Batch(torch.where(batch.x > 0.5, 1.0, batch.x - 0.2).clamp(0, 1), batch.y)  # pixels on both walls
    targets, _ = rig.call(batch)
    eps = EPS * torch.arange(len(batch.y)) / len(batch.y)  # the first image may not move at all
    found = recipe.objective.perturb(rig.ctx, batch, targets, Reach(eps, eps / 2))
    kind = type(recipe.objective).__name__
    _require(bool(images_in(found)), f"{kind} returned no images")
    for adv in images_in(found):
        _require(adv.shape == batch.x.shape, f"{kind} returned images of shape {tuple(adv.shape)}")
        _require(not adv.requires_grad, f"{kind} returned images that carry a graph; detach them")
        _require(bool(adv.isfinite().all()), f"{kind} returned pixels that are no numbers")
        _require(bool((adv >= 0).all() and (adv <= 1).all()), f"{kind} left the box [0, 1]")
        far = (adv - batch.x).abs().flatten(1).amax(1)
        over = float((far - eps).max())
        _require(over <= 1e-6, f"{kind} left the reach of an image, by {over:.3g}")


def check_perturbing_changes_nothing_else(recipe: Recipe) -> None:
    """Parameters, their gradients, their flags and the model's mode are as before."""
    rig, batch = Rig.build(recipe), separable()
    rig.step(batch)
    rig.optimizer.zero_grad()
    weights = _copied(dict(rig.ctx.model.named_parameters()))
    targets, reach = rig.call(batch)
    kind = type(recipe.objective).__name__
    for training in (True, False):
        with switched(rig.ctx.model, training):
            recipe.objective.perturb(rig.ctx, batch, targets, reach)
            modes = {module.training for module in rig.ctx.model.modules()}
            _require(modes == {training}, f"{kind} left the model in another mode")
    for name, weight in rig.ctx.model.named_parameters():
        _require(torch.equal(weight, weights[name]), f"{kind} changed {name} while perturbing")
        _require(weight.requires_grad, f"{kind} left {name} frozen")
        _require(
            weight.grad is None, f"{kind} left a gradient in {name} while perturbing; use bench.training.inner.Inner"
        )


def check_losses_are_vectors(recipe: Recipe) -> None:
    """`fit` and `smooth` are (B,), finite and differentiable in the weights; logits are (B,K) or None."""
    rig, batch = Rig.build(recipe), separable()
    targets, reach = rig.call(batch)
    adv = recipe.objective.perturb(rig.ctx, batch, targets, reach)
    losses = recipe.objective.losses(rig.ctx, batch, adv, targets)
    kind = type(recipe.objective).__name__
    for what in ("fit", "smooth"):
        vector = getattr(losses, what)
        _require(
            vector.shape == (16,), f"{kind}: {what} has shape {tuple(vector.shape)}; a loss is one number per image"
        )
        _require(bool(vector.isfinite().all()), f"{kind}: {what} is no number")
    _require((losses.fit + losses.smooth).requires_grad, f"{kind}: the losses do not depend on the weights")
    for what in ("logits_clean", "logits_adv"):
        logits = getattr(losses, what)
        _require(
            logits is None or logits.shape == (16, CLASSES), f"{kind}: {what} must be None or of shape (B, classes)"
        )
    _require(losses.logits_clean is not None or losses.logits_adv is not None, f"{kind}: there are no logits at all")


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
    _require(torch.equal(targets.clean, clean), f"{_who(recipe)}: asking for adversarial targets changed clean ones")
    adv = recipe.objective.perturb(rig.ctx, batch, targets, reach)
    kept = [images.clone() for images in images_in(adv)]
    losses = recipe.objective.losses(rig.ctx, batch, adv, targets)
    recipe.budget.weigh(rig.ctx, batch, losses, rig.budget)
    _require(torch.equal(targets.clean, clean), f"{_who(recipe)}: the clean targets were changed in place")
    _require(torch.equal(targets.at(batch.x), first), f"{_who(recipe)}: the adversarial targets were changed in place")
    same = all(map(torch.equal, images_in(adv), kept))
    _require(same, f"{_who(recipe)}: the adversarial images were changed in place")
    _require(not _same(before, {"x": batch.x, "y": batch.y}), f"{_who(recipe)}: the batch was changed in place")
    now = {**pack(rig.targets), **{f"budget {k}": v for k, v in pack(rig.budget).items()}}
    _require(not _same(state, now), f"{_who(recipe)}: a slot's state was changed in place; return a new one")
    again = recipe.targets(rig.ctx, batch, rig.targets)
    _require(torch.equal(again.clean, clean), f"{_who(recipe)}: the same image is called differently when asked again")


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
    _require(
        not _same(averaged, rig.ctx.averaged.state_dict()) and not rig.ctx.averaged.training,
        f"{_who(recipe)}: something other than the average slot moved the averaged weights",
    )
    made = rig.step(batch)
    rig.end_epoch(batch, made)
    for role, teacher in teachers.items():
        changed = _same(before[role], teacher.state_dict())
        _require(not changed, f"{_who(recipe)}: the {role} changed, in {', '.join(changed[:3])}")
        _require(not any(m.training for m in teacher.modules()), f"{_who(recipe)}: the {role} was put into train mode")
        touched = any(p.requires_grad or p.grad is not None for p in teacher.parameters())
        _require(not touched, f"{_who(recipe)}: the {role} has gradients")


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
    _require(not changed, f"{_who(recipe)}: keeps something outside its state; going on differs in {changed[:3]}")
    for slot, state in (("targets", first.targets), ("budget", first.budget), ("average", first.average)):
        kind = type(getattr(recipe, slot)).__name__
        tensors = pack(state)
        _require(all(isinstance(v, Tensor) for v in tensors.values()), f"{kind}: its state must be tensors")
        initial = getattr(recipe, slot).init(first.ctx)
        _require(type(initial) is type(state), f"{kind}: its state is a {type(state)}, it began as a {type(initial)}")


def check_leaves_global_randomness_alone(recipe: Recipe) -> None:
    """Neither draws from it nor seeds it."""
    rig, batch = Rig.build(recipe), separable()
    rig.call(batch)
    before = _global_randomness()
    rig.end_epoch(batch, rig.step(batch))
    _require(
        before == _global_randomness(),
        f"{_who(recipe)}: draws from or seeds global randomness; draw from ctx.streams",
    )


def _global_randomness() -> tuple[Any, ...]:
    generator: Any = np.random.get_state()
    return torch.random.get_rng_state().tolist(), random.getstate(), generator[1].tolist(), generator[2]


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
            _require(bool(made.loss.isfinite()), f"{_who(recipe)}: the loss is no number where {what}")
        broken = [name for name, value in rig.state().items() if not value.isfinite().all()]
        _require(not broken, f"{_who(recipe)}: {', '.join(broken[:3])} is no number after an epoch where {what}")


def check_lowers_the_loss(recipe: Recipe) -> None:
    """Three steps on images that are easy to tell apart."""
    rig, batch = Rig.build(recipe), separable()
    values = [float(rig.step(batch).loss) for _ in range(4)]
    shown = ", ".join(f"{value:.4g}" for value in values)
    _require(values[-1] < values[0], f"{_who(recipe)}: three steps did not lower the loss: {shown}")


def check_page(method: Method) -> None:
    """The head of its file says what it is, and names paper, code, claim and departures; the file is short."""
    page = method.page()
    _require(bool(page.splitlines()[:1]), f"{method.module} has no docstring")
    for word in HEAD:
        lines = [line for line in page.splitlines() if line.startswith(word)]
        _require(len(lines) == 1 and len(lines[0]) > len(word) + 1, f"the head of {method.module} lacks {word!r}")
    length = len(getsource(import_module(method.module)).splitlines())
    _require(length <= LONGEST, f"{method.module} has {length} lines; {LONGEST} is the most")


def check_slots(method: Method) -> None:
    """It fills slots that there are, by itself or on a method below, and its presets fill slots too."""
    filled = {*method.slots, *method.brings, *(slot for preset in method.presets.values() for slot in preset.slots)}
    _require(bool(method.slots), f"{method.module}: fills no slot")
    _require(filled <= set(SLOTS), f"{method.module}: {sorted(filled - set(SLOTS))} are no slots")
    _require("objective" in method.slots or bool(method.on), f"{method.module}: needs an objective or a method below")
    for key in method.presets:
        _require(key.count("/") == 1, f"{method.module}: preset {key!r} should be called 'dataset/preset'")
    for slot, filling in (*method.slots.items(), *method.brings.items()):
        try:
            Recipe(**{"objective": filling, slot: filling})  # type: ignore[arg-type]  # only whether it is refused
        except BadRecipe as problem:
            raise AssertionError(f"{method.module}: {problem}") from None


RECIPE_CHECKS: Mapping[str, Callable[[Recipe], None]] = MappingProxyType(
    {
        check.__name__.removeprefix("check_"): check
        for check in (
            check_is_a_value,
            check_is_documented,
            check_targets_are_distributions,
            check_budget_is_a_vector,
            check_perturbs_within_reach,
            check_perturbing_changes_nothing_else,
            check_losses_are_vectors,
            check_changes_nothing_in_place,
            check_leaves_teachers_alone,
            check_goes_on_from_its_state,
            check_leaves_global_randomness_alone,
            check_copes_with_odd_batches,
            check_lowers_the_loss,
        )
    }
)
"""Every check of what trains, by what it asks of a recipe."""

METHOD_CHECKS: Mapping[str, Callable[[Method], None]] = MappingProxyType(
    {check.__name__.removeprefix("check_"): check for check in (check_page, check_slots)}
)
"""Every check of how a method is registered."""
