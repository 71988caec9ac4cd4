"""Normalisation inside the model, so that attacks and budgets live in pixel space."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Pixels in [0, 1] to standardised values, per channel; nothing where no statistics are given.

    The statistics belong to the architecture, not to the weights: state dicts need not know of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.active = bool(mean)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) standardised."""
        return (x - self.mean) / self.std if self.active else x
