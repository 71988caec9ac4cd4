"""What a model answers: logits, or what is wrong with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.errors import BadModel, BenchError, told

LARGEST = 1e30
"""Logits beyond it are refused: what attacks compute from them overflows."""


def asked(model: nn.Module, x: Tensor) -> Tensor:
    """What a model answers to some images (B,C,H,W), as it comes.

    Raises:
        BadModel: it fails.
    """
    try:
        answer: Tensor = model(x)
    except (torch.OutOfMemoryError, BenchError):
        raise
    except (Exception, SystemExit) as problem:
        raise BadModel(
            f"the model fails on images of shape {tuple(x.shape)} with {told(problem)}; "
            "it must take (B,C,H,W) pixels in [0,1]"
        ) from problem
    return answer


@torch.no_grad()
def logits_of(model: nn.Module, x: Tensor, classes: int) -> Tensor:
    """(B,K) float32 logits of the images. The model gets a copy, so that working in place does not change them.

    Raises:
        BadModel: the model fails, or returns something else.
    """
    logits = asked(model, x.clone())
    check_logits(logits, len(x), classes)
    logits = logits.float()
    if not logits.isfinite().all():
        bad = int((~logits.isfinite().all(1)).sum())
        raise BadModel(f"the model returns NaN or infinite logits for {bad} of {len(x)} images; mend it or its weights")
    if (largest := float(logits.abs().max())) > LARGEST:
        raise BadModel(f"the model returns logits up to {largest:.3g}; scale them below {LARGEST:.0e}")
    return logits


def check_logits(logits: object, images: int, classes: int | None = None) -> None:
    """What a model returned for so many images must be floating-point numbers (B,K).

    Raises:
        BadModel: it is something else.
    """
    if not isinstance(logits, Tensor):
        raise BadModel(
            f"the model returns {type(logits).__name__}; it must return logits, a tensor (B,{classes or 'K'})"
        )
    if logits.ndim != 2 or len(logits) != images or logits.shape[1] != (classes or logits.shape[1]):
        of = f"; the data set has {classes} classes, so" * (classes is not None)
        raise BadModel(
            f"the model returns shape {tuple(logits.shape)} for {images} images{of or ';'} logits of shape "
            f"({images}, {classes or 'K'}) are needed"
        )
    if not logits.is_floating_point():
        raise BadModel(f"the model returns {logits.dtype}; logits are floating-point numbers, such as torch.float32")
    if logits.is_meta:
        raise BadModel("the model returns logits without values, on the meta device; load its weights")


def looks_like_probabilities(logits: Tensor) -> bool:
    """Whether every row is a distribution."""
    return bool((logits >= -1e-5).all() and ((logits.sum(1) - 1).abs() < 1e-4).all())
