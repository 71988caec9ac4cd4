from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.attacks.square_windows import CHANGES, Flips, Transfers, patterns
from bench.randomness import Streams

CPU = torch.device("cpu")


def streams(images: int, seed: int = 0) -> Streams:
    return Streams(seed, torch.arange(images))


def images(count: int, *shape: int) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


# Schedule.


def test_sides_halve_their_area_and_stop_at_the_border():
    shares = [0.8 / 2**halvings for halvings in range(8)]
    assert [Flips().side(share, 32, 32) for share in shares] == [29, 20, 14, 10, 7, 5, 4, 3]
    assert [Transfers().side(share, 32, 32) for share in shares] == [29, 21, 15, 11, 7, 5, 5, 3]
    assert [Flips().side(share, 8, 8) for share in shares] == [7, 5, 4, 3, 2, 1, 1, 1]
    assert [Transfers().side(share, 8, 8) for share in shares] == [7, 5, 5, 3, 3, 3, 3, 3]
    assert (Flips().side(0.8, 2, 50), Transfers().side(0.8, 2, 50), Transfers().side(0.8, 1, 1)) == (2, 2, 1)


# Linf.


def test_the_start_in_linf_is_vertical_stripes():
    x = images(200, 3, 5, 6)
    start = Flips().start(x, 0.1, streams(200))
    up, down = start == (x + 0.1).clamp(max=1), start == (x - 0.1).clamp(min=0)
    assert (up | down).all()
    assert (up == up[:, :, :1]).all()
    assert abs(float(up.float().mean()) - 0.5) < 4 * 0.5 / math.sqrt(200 * 3 * 6)  # four standard deviations


def test_a_query_in_linf_moves_one_window_to_one_end_per_channel():
    x = images(20, 3, 7, 9)
    best = Flips().start(x, 0.1, streams(20))
    block = Flips().block(x, 0.1, 4, 10, streams(20), 0)
    ends = (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1)
    for turn in range(10):
        adv = block.candidate(turn, best)
        for image, code in enumerate(block.code[:, turn].tolist()):
            corner, signs = divmod(code, 8)
            top, left = divmod(corner, 6)  # of the 4 rows and 6 columns where a window of 4 fits
            expected = best[image].clone()
            for channel in range(3):
                end = ends[signs >> (2 - channel) & 1][image, channel]
                expected[channel, top : top + 4, left : left + 4] = end[top : top + 4, left : left + 4]
            assert torch.equal(adv[image], expected)


def test_pixels_stay_at_the_ends_in_spite_of_rounding():
    x = images(50, 1, 8, 8)
    eps = 0.1 / 3
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    best = Flips().start(x, eps, streams(50))
    block = Flips().block(x, eps, 3, 100, streams(50), 0)
    for turn in range(100):
        best = block.candidate(turn, best)
    assert ((best == low) | (best == high)).all()


# L2.


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 20])
def test_patterns_are_a_bump_and_a_trough_of_norm_1(side):
    """Against nested rectangles around the centres, as the paper defines them."""

    def bump(height: int, width: int) -> Tensor:
        total = torch.zeros(height, width, dtype=torch.float64)
        for ring in range(max(height, width) // 2 + 1):
            top, left = height // 2 - ring, width // 2 - ring
            total[max(top, 0) : top + 2 * ring + 1, max(left, 0) : left + 2 * ring + 1] += 1 / (ring + 1) ** 2
        return total / total.norm()

    upright, lying = patterns(side, CPU).double()
    expected = torch.cat([bump(side // 2, side), -bump(side - side // 2, side)])
    torch.testing.assert_close(upright, expected / expected.norm(), rtol=1e-6, atol=1e-7)
    assert torch.equal(lying, upright.T)


def test_the_pattern_of_side_2_by_hand():
    row = torch.tensor([0.25, 1.25]) / math.sqrt(2 * (0.25**2 + 1.25**2))
    torch.testing.assert_close(patterns(2, CPU)[0], torch.stack([row, -row]))


@pytest.mark.parametrize(
    ("height", "width", "side", "above", "before"),
    [(32, 32, 6, 1, 1), (28, 28, 5, 1, 1), (8, 8, 1, 0, 0), (19, 14, 2, 0, 0), (4, 11, 1, 0, 0), (1, 1, 1, 0, 0)],
)
def test_the_start_in_l2_is_a_centred_grid_of_patterns(height, width, side, above, before):
    x = torch.full((6, 2, height, width), 0.5)
    delta = Transfers().start(x, 0.1, streams(6)) - x
    torch.testing.assert_close(delta.flatten(1).norm(dim=1), torch.full((6,), 0.1), rtol=1e-5, atol=0)
    down, across = height // side, width // side
    grid = delta[:, :, above : above + down * side, before : before + across * side]
    assert int((delta != 0).sum()) == int((grid != 0).sum())
    tiles = grid.unfold(2, side, side).unfold(3, side, side)
    known = patterns(side, CPU) * 0.1 / math.sqrt(2 * down * across)
    like = [((tiles - sign * known[turned]).abs() < 1e-6).all(-1).all(-1) for sign in (1, -1) for turned in (0, 1)]
    assert torch.stack(like).any(0).all()
    if side > 1:
        assert all(part.any() for part in like)
    turned = like[1] | like[3]
    assert (turned == turned[:, :1]).all()  # one way per tile, a sign per channel


def moved(x: Tensor, best: Tensor, eps: float, query: tuple[int, int, int, int, Tensor]) -> Tensor:
    """Algorithm 3 of the paper for one image in float64, window by window."""
    top, left, other_top, other_left, pattern = query  # pattern (C,s,s)
    delta, side, channels = (best - x).double(), pattern.shape[-1], x.shape[0]
    first = slice(None), slice(top, top + side), slice(left, left + side)
    second = slice(None), slice(other_top, other_top + side), slice(other_left, other_left + side)
    both = torch.zeros_like(delta)
    both[first] = both[second] = 1
    budget = max(eps**2 - float(delta.square().sum()), 0) / channels + (delta * both).square().sum((1, 2))
    there = delta[first].norm(dim=(1, 2), keepdim=True)
    new = pattern + delta[first] / (there + 1e-12)
    new = new / new.norm(dim=(1, 2), keepdim=True) * budget.sqrt()[:, None, None]
    delta[second] = 0
    delta[first] = new
    return (x + delta * eps / delta.norm()).clamp(0, 1)


@pytest.mark.parametrize(("shape", "side"), [((3, 9, 7), 3), ((1, 8, 8), 5), ((2, 2, 3), 2)])
def test_a_query_in_l2_is_that_of_the_paper(shape, side):
    channels, height, width = shape
    x = images(12, *shape)
    best = Transfers().start(x, 0.7, streams(12))
    assert (best == 0).any()  # some of the budget was clipped
    block = Transfers().block(x, 0.7, side, 4, streams(12, seed=1), 0)
    places = (height - side + 1, width - side + 1)
    for turn in range(4):
        adv = block.candidate(turn, best)
        for image, code in enumerate(block.code[:, turn].tolist()):
            rest, bits = divmod(code, 2 ** (1 + channels))
            rest, other_left = divmod(rest, places[1])
            rest, other_top = divmod(rest, places[0])
            top, left = divmod(rest, places[1])
            signs = torch.tensor([1 if bits >> (channels - 1 - c) & 1 else -1 for c in range(channels)])
            pattern = signs[:, None, None] * patterns(side, CPU).double()[bits >> channels]
            expected = moved(x[image], best[image], 0.7, (top, left, other_top, other_left, pattern))
            torch.testing.assert_close(adv[image].double(), expected, rtol=1e-4, atol=1e-5)
        best = adv


# Both.


@pytest.mark.parametrize(("changes", "codes"), [(Flips(), 2 * 3 * 2), (Transfers(), (2 * 3) ** 2 * 2 * 2)])
def test_all_queries_are_equally_likely(changes, codes):
    """Chi-squared test over the codes; windows reach the last row and column as often as any other."""
    x = images(2000, 1, 5, 6)
    assert changes.codes(4, 1, 5, 6) == codes
    block = changes.block(x, 0.1, 4, 20, streams(2000), 0)
    seen = torch.bincount(block.code.flatten(), minlength=codes).double()
    assert len(seen) == codes
    expected = block.code.numel() / codes
    statistic = float((seen - expected).square().sum() / expected)
    assert statistic < codes - 1 + 4 * math.sqrt(2 * (codes - 1))  # four standard deviations above its mean


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_equal_codes_are_equal_changes_and_others_are_not(changes):
    x = images(1, 2, 4, 4).expand(300, -1, -1, -1)
    best = changes.start(x[:1], 0.1, streams(1)).expand_as(x)
    block = changes.block(x, 0.1, 3, 1, streams(300), 0)
    adv, code = block.candidate(0, best).flatten(1), block.code[:, 0]
    for image in range(0, 300, 10):
        alike = ((adv - adv[image]).abs() < 1e-6).all(1)
        assert alike[code == code[image]].all()
        if changes is CHANGES["L2"]:
            assert not alike[code != code[image]].any()


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_an_image_has_its_own_numbers_whatever_its_batch(changes):
    x = images(9, 3, 8, 8)
    rows = torch.tensor([7, 2, 5])
    best = changes.start(x, 0.1, streams(9))
    torch.testing.assert_close(changes.start(x[rows], 0.1, streams(9).select(rows)), best[rows])
    assert len({tuple(image.tolist()) for image in (best - x).sign().flatten(1)}) == 9
    block = changes.block(x, 0.1, 3, 5, streams(9), 2)
    part = changes.block(x[rows], 0.1, 3, 5, streams(9).select(rows), 2)
    assert torch.equal(part.code, block.code[rows])
    assert torch.equal(block.select(rows).code, block.code[rows])
    assert not torch.equal(changes.block(x, 0.1, 3, 5, streams(9), 3).code, block.code)
    for some in (part, block.select(rows)):
        torch.testing.assert_close(some.candidate(4, best[rows]), block.candidate(4, best)[rows])


@pytest.mark.parametrize("eps", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 2), (3, 1, 6), (1, 4, 4), (2, 5, 3), (1, 19, 14)])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_any_size_in_the_ball_and_in_the_box(changes, shape, eps):
    x = images(6, *shape)
    x[:2] = x[:2].round()
    best = changes.start(x, eps, streams(6))
    for share in (0.8, 0.1, 0.01):
        side = changes.side(share, *shape[1:])
        block = changes.block(x, eps, side, 4, streams(6), 0)
        for turn in range(4):
            best = block.candidate(turn, best)
            delta = (best.double() - x.double()).flatten(1)
            size = delta.norm(dim=1) if changes is CHANGES["L2"] else delta.abs().amax(1)
            assert float(size.max()) <= eps * (1 + 1e-6) + 1e-7
            assert best.isfinite().all()
            assert 0 <= float(best.min()) <= float(best.max()) <= 1
