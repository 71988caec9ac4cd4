"""How many images are worked on at once: as many as should fit into memory, and fewer if they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from bench.attacks.ascent import gradient
from bench.errors import BadOption

USUAL = 250
"""Images in a chunk if the memory is not measured."""
MOST = 2048
"""At most so many images in a chunk: more make no GPU faster, and a chunk is lost if the process is killed."""
SHARE = 0.6
"""Passes may fill this share of the free memory; attacks hold copies of the images besides."""
PROBED = 32
"""Memory is measured with so many images."""

Answer = TypeVar("Answer")


class Gauge(Protocol):
    """Measures the memory of a device, in bytes."""

    def free(self) -> int:
        """How much is free."""

    def peak(self, work: Callable[[], None]) -> int:
        """How much more than before was in use when `work` used most."""


class CudaGauge:
    """The memory of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        """Measure this device."""
        self._device = device

    def free(self) -> int:
        """What the driver has left, and what torch has reserved but not handed out."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device))

    def peak(self, work: Callable[[], None]) -> int:
        """What torch allocated."""
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        return int(torch.cuda.max_memory_allocated(self._device) - before)


def images_that_fit(network: nn.Module, probe: Tensor, gauge: Gauge) -> int:
    """How many images one pass forward and backward may take: a power of two, so that it is the same next time.

    Args:
        network: pixels to logits, frozen and in eval mode.
        probe: (B,C,H,W) some images, on the network's device.
        gauge: measures that device's memory.

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
    """Finds out how many images fit into memory, by running out of it, and remembers."""

    def __init__(self) -> None:
        """So far everything fits."""
        self._most: int | None = None

    def fill(self, count: int, work: Callable[[slice], Answer]) -> list[Answer]:
        """Do some work on all images at once; where memory runs out, on half as many at a time, and so on.

        Args:
            count: number of images.
            work: is called with a range of images; after a failure the range is begun again.

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
