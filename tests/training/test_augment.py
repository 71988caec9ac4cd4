from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from bench.randomness import Streams
from bench.training.augment import augment, crop, flip


def images(n, height, width, seed=0):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def slow(x, samples, seed, how):
    """One image after the other, pixel by pixel, with the same random numbers."""
    out = torch.zeros_like(x)
    _, height, width = x.shape[1:]
    pad = max(1, height // 8)
    for i, sample in enumerate(samples.tolist()):
        own = Streams(seed, torch.tensor([sample]))
        down, right = (own.fork("crop").uniform((2,))[0] * (2 * pad + 1)).long().tolist()
        mirrored = how == "crop-flip" and bool(own.fork("flip").uniform(())[0] < 0.5)
        for r in range(height):
            for c in range(width):
                source = r + down - pad, c + right - pad
                if 0 <= source[0] < height and 0 <= source[1] < width:
                    out[i, :, r, width - 1 - c if mirrored else c] = x[i, :, source[0], source[1]]
    return out


@given(
    st.integers(0, 10**6), st.sampled_from([(8, 8), (16, 16), (5, 7), (3, 3)]), st.sampled_from(["crop", "crop-flip"])
)
@settings(deadline=None, max_examples=15)
def test_it_equals_a_slow_loop_over_images(seed, side, how):
    x, samples = images(4, *side, seed), torch.tensor([3, 99, 7, 3])
    assert torch.equal(augment(x, Streams(seed, samples), how), slow(x, samples, seed, how))


def test_none_is_the_image_itself():
    x = images(2, 8, 8)
    assert augment(x, Streams(0, torch.arange(2)), "none") is x


def test_it_does_not_depend_on_the_company_in_the_batch():
    x, samples = images(20, 8, 8), torch.arange(20)
    whole = augment(x, Streams(5, samples), "crop-flip")
    for rows in (torch.tensor([3]), torch.tensor([19, 0, 7]), torch.randperm(20)):
        assert torch.equal(augment(x[rows], Streams(5, samples[rows]), "crop-flip"), whole[rows])
    assert torch.equal(augment(x, Streams(5, samples), "crop-flip"), whole)
    assert not torch.equal(augment(x, Streams(6, samples), "crop-flip"), whole)


def test_shifts_are_up_to_four_at_32_and_all_of_them_occur_evenly():
    x = torch.zeros(4000, 1, 32, 32)
    x[:, :, 16, 16] = 1
    where = crop(x, Streams(0, torch.arange(4000))).flatten(1).argmax(1)
    for shift in (where // 32 - 16, where % 32 - 16):
        assert sorted(set(shift.tolist())) == list(range(-4, 5))
        counts = torch.bincount(shift + 4).float()
        assert float(((counts - 4000 / 9) ** 2 / (4000 / 9)).sum()) < 30  # chi-squared with 8 degrees: p about 2e-4


def test_half_of_the_images_are_mirrored():
    x = torch.arange(4.0).expand(4000, 1, 1, 4)
    turned = flip(x, Streams(0, torch.arange(4000)))[:, 0, 0, 0] == 3
    assert 0.46 < turned.float().mean().item() < 0.54
    assert torch.equal(flip(x, Streams(0, torch.arange(4000)))[turned][0], x[0].flip(2))


@pytest.mark.parametrize("how", ["crop", "crop-flip"])
def test_the_images_that_came_in_are_untouched_and_pixels_stay_in_the_box(how):
    x = images(6, 8, 8)
    before = x.clone()
    out = augment(x, Streams(1, torch.arange(6)), how)
    assert torch.equal(x, before)
    assert out.shape == x.shape
    assert out.is_contiguous()
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
