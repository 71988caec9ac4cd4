"""How many images are worked on at once: as many as memory is measured to hold, and fewer when it does run out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from bench.attacks.ascent import gradient
from bench.errors import BadOption

USUAL = 250
"""Images in a chunk where nothing is measured."""
MOST = 2048
"""Images in a chunk at most: more make no GPU faster, and a kill loses a chunk."""
SHARE = 0.6
"""Part of the free memory that the passes may fill; attacks hold copies of the images besides."""
PROBED = 32
"""Images that memory is measured with."""

Answer = TypeVar("Answer")


class Gauge(Protocol):
    """What tells of a device's memory, in bytes."""

    def free(self) -> int:
        """How much is to be had."""

    def peak(self, work: Callable[[], None]) -> int:
        """How much some work held at its worst, beyond what was held before."""


class CudaGauge:
    """The memory of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        """Tell of this device."""
        self._device = device

    def free(self) -> int:
        """What the driver has, and what torch has taken from it but not given out."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device))

    def peak(self, work: Callable[[], None]) -> int:
        """As torch counts it."""
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        return int(torch.cuda.max_memory_allocated(self._device) - before)


def images_that_fit(network: nn.Module, probe: Tensor, gauge: Gauge) -> int:
    """How many images one pass forward and backward may take: a power of two, so that it is the same next time.

    Args:
        network: pixels to logits, frozen and in eval mode.
        probe: (B,C,H,W) some images, on the network's device.
        gauge: tells of that device's memory.

    Returns:
        1 to MOST.
    """
    x = probe[:1].expand(PROBED, *probe.shape[1:])

    def passes() -> None:
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            gradient(network(leaf.clone()).sum(1), leaf)

    try:
        passes()  # the first also allocates what stays
        each = max(1, gauge.peak(passes) // PROBED)
    except torch.OutOfMemoryError:
        return 1
    fits = max(1, int(SHARE * gauge.free()) // each)
    return min(MOST, 1 << (fits.bit_length() - 1))


class Room:
    """How many images have been seen to fit into memory. It is learned by failing, and remembered."""

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self._most: int | None = None

    def fill(self, count: int, work: Callable[[slice], Answer]) -> list[Answer]:
        """Do some work on all images at once; or on half of them where memory runs out, and so on.

        Args:
            count: number of images.
            work: on the images of a range. What it has done with a range that failed is done again.

        Returns:
            Its answers, in the order of the images.

        Raises:
            BadOption: not even one fits.
        """
        answers, start = [], 0
        while start < count:
            size = min(self._most or count, count - start)
            try:
                answers.append(work(slice(start, start + size)))
            except torch.OutOfMemoryError:
                fits = False  # and halved below, where the error no longer holds the tensors of what failed
            else:
                fits = True
            if fits:
                start += size
            elif size > 1:
                self._most = (size + 1) // 2
                torch.cuda.empty_cache()
            else:
                raise BadOption(
                    "the device runs out of memory with a single image; take another device, or free some of its memory"
                )
        return answers
