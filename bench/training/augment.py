"""Random crops and mirror images of a batch at once, on whatever device it is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.randomness import Streams


def crop(x: Tensor, streams: Streams) -> Tensor:
    """(B,C,H,W) each image shifted by up to an eighth of its side in each direction, zeros coming in.

    At 32x32 this is the usual padding by 4 and random 32x32 crop.
    """
    height, width = x.shape[2:]
    pad = max(1, height // 8)
    shift = (streams.fork("crop").uniform((2,)) * (2 * pad + 1)).long()
    rows = shift[:, :1] + torch.arange(height, device=x.device)
    columns = shift[:, 1:] + torch.arange(width, device=x.device)
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def flip(x: Tensor, streams: Streams) -> Tensor:
    """(B,C,H,W) each image mirrored left to right with probability a half."""
    mirrored = streams.fork("flip").uniform(()) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def augment(x: Tensor, streams: Streams, how: str) -> Tensor:
    """Images augmented as a schedule says: `none`, `crop` or `crop-flip`."""
    if how in ("crop", "crop-flip"):
        x = crop(x, streams)
    return flip(x, streams) if how == "crop-flip" else x
