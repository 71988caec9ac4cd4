"""Whether a recipe learns, on odd batches too."""

from __future__ import annotations

from bench.conformance.rig import Rig, separable
from bench.conformance.values import named
from bench.conformance.watching import require
from bench.training.recipe import Recipe
from bench.training.values import Batch


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
