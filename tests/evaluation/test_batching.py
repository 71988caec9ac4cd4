from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from bench.errors import BadOption
from bench.evaluation.batching import MOST, PROBED, SHARE, CudaGauge, Room, images_that_fit


class Scale:
    """A gauge for a device of so much memory, on which every image takes so much."""

    def __init__(self, free: int, each: int) -> None:
        self._free, self._each, self.weighed = free, each, 0

    def free(self) -> int:
        return self._free

    def peak(self, work: Callable[[], None]) -> int:
        work()
        self.weighed += 1
        return self._each * PROBED


class Net(nn.Module):
    """Keeps the sizes of the batches that pass."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.linear, self.most = nn.Linear(4, 3).requires_grad_(False), most
        self.passed: list[tuple[int, bool]] = []

    def forward(self, x):
        self.passed.append((len(x), x.requires_grad))
        if len(x) > self.most:
            raise torch.OutOfMemoryError
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("free", "each", "fits"),
    [
        (1000, 1, 512),  # 600 would
        (int(512 / SHARE) + 1, 1, 512),
        (int(512 / SHARE) - 2, 1, 256),
        (10**12, 10**6, MOST),
        (100, 7, 8),
        (5, 7, 1),
        (0, 1, 1),
        (1000, 0, 512),
    ],
)
def test_a_power_of_two_that_fills_a_share(free, each, fits):
    scale, network = Scale(free, each), Net()
    with torch.no_grad():
        assert images_that_fit(network, torch.rand(4, 1, 2, 2), scale) == fits
    assert scale.weighed == 1
    assert network.passed == [(PROBED, True)] * 2  # once to warm up
    assert MOST & (MOST - 1) == 0


def test_where_not_even_the_measuring_fits():
    assert images_that_fit(Net(most=PROBED - 1), torch.rand(1, 1, 2, 2), Scale(10**9, 1)) == 1


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("most", [1, 2, 7, 50, 100])
def test_parts_cover_all_in_order_and_failures_are_remembered(count, most):
    room, failed = Room(), []

    def work(rows: slice) -> list[int]:
        found = list(range(count))[rows]
        if len(found) > most:
            failed.append(len(found))
            raise torch.OutOfMemoryError
        return found

    parts = room.fill(count, work)
    assert [row for part in parts for row in part] == list(range(count))
    assert failed == sorted(set(failed), reverse=True)
    assert all(after == (before + 1) // 2 for before, after in pairwise(failed))
    failed.clear()
    assert [row for part in room.fill(count, work) for row in part] == list(range(count))
    assert failed == []


def test_what_cannot_be_divided_any_more():
    def work(rows: slice) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(BadOption, match="out of memory with a single image; take another device"):
        Room().fill(10, work)


def test_other_errors_pass():
    def work(rows: slice) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        Room().fill(10, work)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
def test_the_gauge_of_a_gpu():
    gauge = CudaGauge(torch.device("cuda"))
    before = gauge.free()
    assert before > 2**24
    assert gauge.peak(lambda: (torch.empty(2**24, dtype=torch.uint8, device="cuda"), None)[1]) == 2**24
    assert gauge.peak(lambda: None) == 0
    kept = torch.empty(2**24, dtype=torch.uint8, device="cuda")
    assert gauge.free() <= before - len(kept)
