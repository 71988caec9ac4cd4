"""Measuring a network on held-out images while it trains."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.images import Images
from bench.losses import cross_entropy, one_hot
from bench.randomness import Streams
from bench.training.inner import Inner, switched
from bench.training.values import Context, Reach, Tally

VALIDATION = Inner(steps=10, start="uniform", mode="eval")
"""PGD-10 with steps of a quarter of eps, as most releases select."""


def validate(model: nn.Module, images: Images, eps: float, seed: int, device: str) -> Tally:
    """Class vectors of a network on held-out images, clean and under PGD-10, in eval mode."""
    tally = Tally.zeros(images.classes, device)
    with switched(model, "eval"):
        for first in range(0, len(images), 512):
            rows = np.arange(first, min(first + 512, len(images)))
            x, y = images.batch(rows, device)
            streams = Streams(seed, torch.from_numpy(images.sample[rows].astype(np.int64)).to(device)).fork("validate")
            ctx = Context(model, model, {}, images.classes, eps, 0, streams)
            reach = Reach(
                eps=torch.full((len(x),), eps, device=device), step=torch.full((len(x),), eps / 4, device=device)
            )
            label = one_hot(y, images.classes)
            adv = VALIDATION(ctx, partial(_gain, model, label), x, reach)
            with torch.no_grad():
                tally.add(y, model(x), model(adv))
    return tally


def _gain(model: nn.Module, label: Tensor, x: Tensor) -> Tensor:
    return cross_entropy(model(x), label)


def record(epoch: int, split: str, tally: Tally) -> dict[str, Any]:
    """Class vectors of an epoch as JSON; what was never looked at is null."""

    def counts(hits: Tensor, seen: Tensor) -> list[int] | None:
        return [int(v) for v in hits.tolist()] if seen.any() else None

    return {
        "epoch": epoch,
        "split": split,
        "n": [int(v) for v in tally.count.tolist()],
        "hits_clean": counts(tally.hits_clean, tally.count_clean),
        "hits_adv": counts(tally.hits_adv, tally.count_adv),
    }
