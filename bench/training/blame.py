"""Who is at fault where a slot of a recipe fails, or gives something else than a slot gives: one line that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.errors import BadRecipe, BenchError, told
from bench.training.values import Losses, Reach, Targets, Weights


@contextmanager
def of(slot: str, filling: object) -> Iterator[None]:
    """Whatever the code of a slot raises is told as the slot's.

    Raises:
        BadRecipe: it raised something that is no word to the user.
    """
    try:
        yield
    except (BenchError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as problem:
        raise BadRecipe(f"{called(slot, filling)} fails with {told(problem)}; mend it or name another") from problem


def called(slot: str, filling: object) -> str:
    """How a message calls a slot's filling: with the module that it comes from."""
    kind = type(filling)
    return f"the {slot} {kind.__module__}:{kind.__qualname__}"


def check(slot: str, filling: object, given: object, kind: type, **shapes: tuple[int, ...] | None) -> None:
    """Refuse what is not of the kind that a slot gives, or has parts of other shapes.

    Args:
        slot: which.
        filling: what is in it.
        given: what it gave: a NamedTuple of tensors.
        kind: what it should be.
        shapes: of the parts that have one, by name; a part that is None is passed over where it may be.

    Raises:
        BadRecipe: it is something else.
    """
    if not isinstance(given, kind):
        raise BadRecipe(f"{called(slot, filling)} gives {type(given).__name__}; it must give {kind.__name__}, mend it")
    for name, shape in shapes.items():
        part = getattr(given, name)
        came = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
        if came != shape:
            raise BadRecipe(
                f"{called(slot, filling)} gives {kind.__name__} with {name} of {came}; it must be of {shape}, mend it"
            )


def check_targets(filling: object, targets: object, size: int, classes: int) -> None:
    """Targets are distributions (B,K).

    Raises:
        BadRecipe: they are not.
    """
    check("targets", filling, targets, Targets, clean=(size, classes))


def check_reach(filling: object, reach: object, size: int) -> None:
    """A reach is two vectors (B,).

    Raises:
        BadRecipe: it is not.
    """
    check("budget", filling, reach, Reach, eps=(size,), step=(size,))


def check_losses(filling: object, losses: object, size: int) -> None:
    """The two parts of a loss are vectors (B,), never reduced.

    Raises:
        BadRecipe: they are not.
    """
    check("objective", filling, losses, Losses, fit=(size,), smooth=(size,))


def check_weights(filling: object, weights: object, size: int) -> None:
    """Weights are two vectors (B,).

    Raises:
        BadRecipe: they are not.
    """
    check("budget", filling, weights, Weights, fit=(size,), smooth=(size,))


def check_adv(filling: object, adv: object, x: Tensor) -> None:
    """Adversarial images have the shape of the images; a tuple begins with them.

    Raises:
        BadRecipe: they have not.
    """
    images = adv[0] if isinstance(adv, tuple) and adv else adv
    if not isinstance(images, Tensor) or images.shape != x.shape:
        came = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise BadRecipe(
            f"{called('objective', filling)} perturbs images of {tuple(x.shape)} to {came}; their shape must stay, "
            "mend it"
        )


def check_state(slot: str, filling: object, state: object) -> None:
    """A state is None, a tensor or a NamedTuple of tensors, so that a checkpoint can hold it.

    Raises:
        BadRecipe: it is something else.
    """
    named = isinstance(state, tuple) and hasattr(state, "_fields") and all(isinstance(part, Tensor) for part in state)
    if not (state is None or isinstance(state, Tensor) or named):
        raise BadRecipe(
            f"{called(slot, filling)} keeps {type(state).__name__} as its state; it must be None, a tensor or a "
            "NamedTuple of tensors, mend it"
        )
