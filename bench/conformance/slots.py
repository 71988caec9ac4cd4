"""What each slot hands to the trainer: shapes, ranges, graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.conformance.rig import CLASSES, EPS, Rig, separable
from bench.conformance.watching import require
from bench.training.recipe import Objective, Recipe
from bench.training.values import Batch, Reach


def images_in(found: Any) -> list[Tensor]:
    """All batches of images in what `perturb` found, the adversarial ones first."""
    parts = [found] if isinstance(found, Tensor) else list(found)
    return [part for part in parts if isinstance(part, Tensor) and part.ndim == 4]


def check_foretells_its_attack(recipe: Recipe) -> None:
    """The objective says how many steps its attack takes, by inheriting from `Adversarial` or `Objective`."""
    kind = type(recipe.objective)
    require(Objective in kind.__mro__, f"{kind.__name__} does not inherit from bench.api.Objective or Adversarial")
    require(recipe.objective.attack_steps() >= 0, f"{kind.__name__} foretells less than no step")


def check_targets_are_distributions(recipe: Recipe) -> None:
    """(B,K) at the clean and at adversarial images, at least 0, summing to 1, without a graph to the model."""
    rig, batch = Rig.build(recipe), separable()
    for _ in range(2):
        targets, _ = rig.call(batch)
        for where, wanted in (("clean", targets.clean), ("adversarial", targets.at(batch.x))):
            kind = type(recipe.targets).__name__
            require(wanted.shape == (16, CLASSES), f"{kind}: {where} targets have shape {tuple(wanted.shape)}")
            require(bool((wanted >= 0).all()), f"{kind}: {where} targets are below 0 or no numbers")
            require(
                bool(((wanted.sum(1) - 1).abs() < 1e-5).all()), f"{kind}: {where} targets do not sum to 1 over classes"
            )
        require(not targets.clean.requires_grad, f"{type(recipe.targets).__name__}: clean targets carry a graph")
        rig.step(batch)


def check_budget_is_a_vector(recipe: Recipe) -> None:
    """Radius, step and weights are (B,), finite and at least 0."""
    rig, batch = Rig.build(recipe), separable()
    made = rig.step(batch)
    weights = recipe.budget.weigh(rig.ctx, batch, made.losses, rig.budget)
    for what, vector in (*made.reach._asdict().items(), *weights._asdict().items()):
        kind = type(recipe.budget).__name__
        require(vector.shape == (16,), f"{kind}: {what} has shape {tuple(vector.shape)}, wanted one per image")
        require(bool((vector.isfinite() & (vector >= 0)).all()), f"{kind}: {what} is below 0 or no number")


def check_perturbs_within_reach(recipe: Recipe) -> None:
    """Finite images of the same shape in ball and box, detached; whatever each image's radius."""
    rig, batch = Rig.build(recipe), separable()
    batch = Batch(torch.where(batch.x > 0.5, 1.0, batch.x - 0.2).clamp(0, 1), batch.y)  # pixels on both walls
    targets, _ = rig.call(batch)
    eps = EPS * torch.arange(len(batch.y)) / len(batch.y)  # the first image may not move at all
    found = recipe.objective.perturb(rig.ctx, batch, targets, Reach(eps, eps / 2))
    kind = type(recipe.objective).__name__
    require(bool(images_in(found)), f"{kind} returned no images")
    for adv in images_in(found):
        require(adv.shape == batch.x.shape, f"{kind} returned images of shape {tuple(adv.shape)}")
        require(not adv.requires_grad, f"{kind} returned images that carry a graph; detach them")
        require(bool(adv.isfinite().all()), f"{kind} returned pixels that are no numbers")
        require(bool((adv >= 0).all() and (adv <= 1).all()), f"{kind} left the box [0, 1]")
        far = (adv - batch.x).abs().flatten(1).amax(1)
        over = float((far - eps).max())
        require(over <= 1e-6, f"{kind} left the reach of an image, by {over:.3g}")


def check_losses_are_vectors(recipe: Recipe) -> None:
    """`fit` and `smooth` are (B,), finite and differentiable in the weights; logits are (B,K) or None."""
    rig, batch = Rig.build(recipe), separable()
    targets, reach = rig.call(batch)
    adv = recipe.objective.perturb(rig.ctx, batch, targets, reach)
    losses = recipe.objective.losses(rig.ctx, batch, adv, targets)
    kind = type(recipe.objective).__name__
    for what in ("fit", "smooth"):
        vector = getattr(losses, what)
        require(
            vector.shape == (16,), f"{kind}: {what} has shape {tuple(vector.shape)}; a loss is one number per image"
        )
        require(bool(vector.isfinite().all()), f"{kind}: {what} is no number")
    require((losses.fit + losses.smooth).requires_grad, f"{kind}: the losses do not depend on the weights")
    for what in ("logits_clean", "logits_adv"):
        logits = getattr(losses, what)
        require(
            logits is None or logits.shape == (16, CLASSES), f"{kind}: {what} must be None or of shape (B, classes)"
        )
    require(losses.logits_clean is not None or losses.logits_adv is not None, f"{kind}: there are no logits at all")
