"""Which images the checks look at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.data.images import Images
from bench.evaluation.chunk import Chunk
from bench.randomness import Streams


def part(chunk: Chunk, rows: Tensor) -> Chunk:
    """Those images of a chunk that stand at the given positions."""
    return Chunk(chunk.x[rows], chunk.y[rows], chunk.sample[rows.cpu().numpy()], chunk.classes)


def in_turns(images: Images, seed: int) -> npt.NDArray[np.intp]:
    """(N,) the rows of all images in a random order that takes one image of each class in turn.

    So any number of images from the front holds about equally many of each class.
    """
    samples = torch.from_numpy(images.sample.astype(np.int64))
    order = Streams(seed, samples).fork("soundness").uniform(()).argsort(stable=True).numpy()
    labels = images.labels[order]
    turn = np.zeros(len(order), np.intp)
    for k in np.unique(labels):
        mine = labels == k
        turn[mine] = np.arange(mine.sum())
    return order[np.argsort(turn, kind="stable")]
