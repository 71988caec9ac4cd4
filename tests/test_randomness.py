from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from bench.randomness import Streams, permutation

SEEDS = st.integers(-(2**63), 2**63 - 1)
MASK = 2**64 - 1


def splitmix(z: int) -> int:
    """The finaliser of SplitMix64 in exact integers (Steele et al. 2014, figure 17)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def reference_uniform(seed: int, sample: int, size: int, draw: int) -> list[float]:
    golden = 0x9E3779B97F4A7C15
    start = splitmix((sample * golden + seed) & MASK)
    counters = range(draw * size + 1, (draw + 1) * size + 1)
    return [(splitmix((start + c * golden) & MASK) >> 40) * 2.0**-24 for c in counters]


def streams(seed: int = 0, n: int = 4) -> Streams:
    return Streams(seed, torch.arange(n))


@given(SEEDS, st.integers(0, 2**32), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_uniform_is_splitmix64_of_a_counter(seed, sample, draw):
    got = Streams(seed, torch.tensor([sample])).uniform((5,), draw)
    assert got[0].tolist() == reference_uniform(seed, sample, 5, draw)


def test_first_number_of_seed_0_is_the_published_one():
    # SplitMix64 seeded with 0 begins with 0xE220A8397B1DCDAF, which is splitmix(golden); a sample's stream starts
    # from splitmix(sample * golden + seed), so sample 1 of seed 0 starts there.
    assert splitmix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    first = (splitmix((0xE220A8397B1DCDAF + 0x9E3779B97F4A7C15) & MASK) >> 40) * 2.0**-24
    assert Streams(0, torch.tensor([1])).uniform(()).item() == first


def test_fork_is_a_hash_of_seed_and_name():
    digest = hashlib.sha256(b"7/start").digest()
    assert streams(7).fork("start").seed & MASK == int.from_bytes(digest[:8], "big")


def test_a_sample_gets_the_same_numbers_in_any_company():
    together = Streams(3, torch.tensor([5, 9, 2, 7])).uniform((2, 3))
    alone = Streams(3, torch.tensor([2])).uniform((2, 3))
    assert torch.equal(together[2:3], alone)
    picked = Streams(3, torch.tensor([5, 9, 2, 7])).select(torch.tensor([False, True, True, False]))
    assert torch.equal(picked.uniform((2, 3)), together[1:3])


@pytest.mark.parametrize(
    "other",
    [
        streams(1).uniform((64,)),
        streams(0).uniform((64,), draw=1),
        streams(0).fork("a").uniform((64,)),
        streams(0).fork(0).uniform((64,)),
        Streams(0, torch.arange(4) + 4).uniform((64,)),
    ],
    ids=["seed", "draw", "name", "number", "sample"],
)
def test_streams_are_unlike(other):
    here = streams().uniform((64,))
    assert not (here == other).any()
    assert abs(np.corrcoef(here.flatten(), other.flatten())[0, 1]) < 0.2


def test_forks_in_another_order_are_others():
    assert streams().fork("a").fork("b").seed != streams().fork("b").fork("a").seed


def test_uniform_is_uniform_over_samples_and_pixels():
    many = Streams(11, torch.arange(2000)).uniform((10,))
    assert many.dtype == torch.float32
    assert float(many.min()) >= 0
    assert float(many.max()) < 1
    assert stats.kstest(many.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(many[:, 3].numpy(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(many[:-1, 0], many[1:, 0])[0, 1]) < 0.07


def test_normal_is_normal():
    many = Streams(12, torch.arange(2000)).normal((10,))
    assert many.shape == (2000, 10)
    assert stats.kstest(many.flatten().numpy(), "norm").pvalue > 1e-3


def test_no_images_no_numbers():
    assert Streams(0, torch.arange(0)).uniform((1, 8, 8)).shape == (0, 1, 8, 8)
    assert Streams(0, torch.arange(0)).normal((3,)).shape == (0, 3)


def test_global_randomness_is_neither_used_nor_moved():
    before = torch.random.get_rng_state()
    first = streams().normal((3,))
    torch.manual_seed(99)
    assert torch.equal(first, streams().normal((3,)))
    torch.random.set_rng_state(before)
    streams().uniform((3,))
    assert torch.equal(before, torch.random.get_rng_state())


@given(st.integers(0, 10), st.integers(1, 200))
@settings(deadline=None, max_examples=30)
def test_permutation_holds_every_number_once(seed, n):
    order = permutation(seed, n)
    assert sorted(order.tolist()) == list(range(n))
    assert torch.equal(order, permutation(seed, n))
