from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from pyautoattack.fab_projections import projection_l2, projection_linf
from scipy.optimize import linprog, minimize
from torch import Tensor

from bench.attacks.fab_projections import KEPT, NEWTON_STEPS, moves_onto
from bench.norms import L2, LINF, NORMS, Norm

BOTH = pytest.mark.parametrize("norm", [LINF, L2], ids=lambda norm: norm.name)


def drawn(seed: int, pixels: int, tails: float, share: float, rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Two points per normal, in float64, and gaps that are a share of what the box allows in that direction.

    Some pixels are 0 or 1 or nearly so, some entries of the normal 0; `tails` spreads them over orders of magnitude.
    """
    draw = torch.Generator().manual_seed(seed)
    u, kind = torch.rand(2, 2, rows, pixels, generator=draw, dtype=torch.float64)
    points = torch.where(kind < 0.3, u.round(), torch.where(kind < 0.4, u**8, u))
    size, spread, zero = torch.randn(3, rows, pixels, generator=draw, dtype=torch.float64)
    normal = torch.where(zero < -1.3, 0, size * (tails * spread).exp())
    room = torch.where(share * normal > 0, 1 - points, points)
    return points, normal, share * (room * normal.abs()).sum(2)


def bisected(points: Tensor, normal: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The same moves in float64: the length is bisected, its logarithm where that is known from below."""
    way = normal.sign() * gap.sign()[..., None]
    room = torch.where(way > 0, 1 - points, points)
    pace = normal.abs() if norm is L2 else normal.abs().sign()
    low, high = (torch.full_like(gap, bound)[..., None] for bound in (1e-30, 1e30))
    for _ in range(200):
        middle = (low * high).sqrt()
        short = (normal.abs() * torch.minimum(middle * pace, room)).sum(2, keepdim=True) < gap.abs()[..., None]
        low, high = middle.where(short, low), high.where(short, middle)
    return torch.minimum(high * pace, room) * way


SEEDS, PIXELS, TAILS = st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.0, 1.0, 3.0])


@given(SEEDS, PIXELS, TAILS, st.floats(-0.5, 0.5), st.sampled_from(sorted(NORMS)))
@settings(deadline=None, max_examples=150)
def test_moves_are_the_smallest_onto_the_hyperplane_and_stay_in_the_box(seed, pixels, tails, share, name):
    points, normal, gap = drawn(seed, pixels, tails, share)
    moves = moves_onto(points, normal, gap, NORMS[name])
    assert moves.shape == points.shape
    assert float((points + moves).min()) >= 0
    assert float((points + moves).max()) <= 1
    torch.testing.assert_close((moves * normal).sum(2), gap, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(moves, bisected(points, normal, gap, NORMS[name]), rtol=1e-5, atol=1e-9)


LAST = 1 - 2**-53
"""The largest share below 1: only rounding decides whether the box reaches the hyperplane."""


@given(SEEDS, PIXELS, TAILS, st.floats(0.5, 1, exclude_max=True), st.sampled_from(sorted(NORMS)))
@example(seed=13, pixels=12, tails=3.0, share=LAST, name="Linf")  # these four went back by 1e14, or to the start
@example(seed=3, pixels=5, tails=0.0, share=LAST, name="L2")
@example(seed=2, pixels=2, tails=0.0, share=LAST, name="L2")
@example(seed=0, pixels=8, tails=0.0, share=LAST, name="L2")
@settings(deadline=None, max_examples=150)
def test_at_the_edge_of_the_box_a_little_may_be_missing_but_never_too_much_is_done(seed, pixels, tails, share, name):
    """How little is Newton's theorem; how near to the reference, what rounding of the sum over the pixels makes of it.

    What is gained is a concave function of the length. From one step of Newton's to the next let the missing part
    fall to a share a, and the slope to a share b: then a + b <= 1, so that a * b <= 1/4. The first length is such a
    step from 0, where all is missing and the slope is 1; six more follow.
    """
    points, normal, gap = drawn(seed, pixels, tails, share)
    moves = moves_onto(points, normal, gap, NORMS[name])
    assert float((points + moves).min()) >= 0
    assert float((points + moves).max()) <= 1
    gained = (moves * normal).sum(2)
    assert (gained <= gap * (1 + 1e-9)).all()
    slope = normal.abs() * NORMS[name].steepest(normal).abs()
    room = torch.where(normal > 0, 1 - points, points)
    left = ((moves.abs() < room) * slope).sum(2) / slope.sum(1).clamp(min=1e-30)
    may_miss = (4.0 ** -(NEWTON_STEPS + 1) / left).clamp(1 - KEPT, 0.1)  # the worst of four million cases was 4.4 %
    assert (gained >= gap * (1 - may_miss - 1e-9)).all()
    expected = bisected(points, normal, gained, NORMS[name])
    rounding = 2 * pixels * 2**-53 * gap[..., None] / normal.abs()  # of either sum; a pixel moves by its part of that
    assert ((moves - expected).abs() <= 1e-7 + 1e-4 * expected.abs() + rounding.where(normal != 0, 0)).all()


@given(SEEDS, PIXELS, TAILS, st.sampled_from([-1.3, -1.0, 1.0, 50.0]), st.sampled_from(sorted(NORMS)))
@settings(deadline=None, max_examples=60)
def test_out_of_reach_every_pixel_goes_as_near_as_it_can(seed, pixels, tails, share, name):
    points, normal, gap = drawn(seed, pixels, tails, share)
    corner = torch.where(normal == 0, points, torch.where(normal * share > 0, 1.0, 0.0))
    gap = gap * (1 + 1e-9) + share * 1e-9
    torch.testing.assert_close(points + moves_onto(points, normal, gap, NORMS[name]), corner, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_general_solvers_find_nothing_smaller(seed):
    points, normal, gap = drawn(seed, 7, 1.0, 0.4, rows=1)
    point, w, g = points[0, 0].numpy(), normal[0].numpy(), float(gap[0, 0])
    sizes = {name: float(norm.size(moves_onto(points, normal, gap, norm)[0])) for name, norm in NORMS.items()}
    box = list(zip(-point, 1 - point, strict=True))
    # Linf: the smallest t with |move| <= t, as a linear programme in (move, t).
    rows = [[*(sign * (i == j) for j in range(7)), -1] for i in range(7) for sign in (1, -1)]
    linear = linprog([0] * 7 + [1], A_ub=rows, b_ub=[0] * 14, A_eq=[[*w, 0]], b_eq=[g], bounds=[*box, (0, None)])
    assert sizes["Linf"] == pytest.approx(linear.fun, rel=1e-6)
    on_plane = {"type": "eq", "fun": lambda move: move @ w - g}
    begin = moves_onto(points, normal, gap, LINF)[0, 0].numpy()
    square = minimize(lambda move: move @ move, begin, bounds=box, constraints=[on_plane], method="SLSQP", tol=1e-14)
    assert sizes["L2"] == pytest.approx(square.fun**0.5, rel=1e-5)


@BOTH
@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("tails", [0.0, 3.0])
def test_float32_images_of_3072_pixels(norm, tails, share):
    points, normal, gap = drawn(0, 3 * 32 * 32, tails, share, rows=20)
    moves = moves_onto(points.float(), normal.float(), gap.float(), norm)
    torch.testing.assert_close(moves.double(), bisected(points, normal, gap, norm), rtol=1e-4, atol=1e-6)


@BOTH
def test_the_reference_projects_to_the_same_points(norm):
    points, normal, gap = (part.float() for part in drawn(1, 300, 0.0, 0.2, rows=30))
    reference = projection_linf if norm is LINF else projection_l2
    plane = (points * normal).sum(2) + gap
    expected = reference(points.flatten(0, 1), normal.repeat(2, 1), plane.flatten())
    torch.testing.assert_close(moves_onto(points, normal, gap, norm).flatten(0, 1), expected, rtol=0, atol=2e-5)


@BOTH
@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e20])
def test_how_long_the_normal_is_changes_nothing(norm, scale):
    points, normal, gap = (part.float() for part in drawn(2, 50, 0.0, 0.3))
    expected = moves_onto(points, normal, gap, norm)
    torch.testing.assert_close(moves_onto(points, scale * normal, scale * gap, norm), expected, rtol=1e-4, atol=1e-6)


@BOTH
def test_images_and_points_are_on_their_own(norm):
    shape = (2, 4, 3, 4, 5)
    points, normal, gap = drawn(3, 60, 1.0, 0.3)
    whole = moves_onto(points.reshape(shape), normal.reshape(shape[1:]), gap, norm)
    for p in range(2):
        for b in range(4):
            part = moves_onto(points[p : p + 1, b : b + 1], normal[b : b + 1], gap[p : p + 1, b : b + 1], norm)
            torch.testing.assert_close(part[0, 0], whole[p, b].flatten(), rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("gap", [0.0, 1.0, -1e6])
def test_without_a_normal_or_a_gap_nothing_moves(norm, gap):
    points = torch.tensor([0.0, 0.4, 1.0]).expand(1, 2, 3)
    normal = torch.stack([torch.zeros(3), torch.ones(3)])
    moves = moves_onto(points, normal, torch.tensor([[gap, 0.0]]), norm)
    assert torch.equal(moves, torch.zeros_like(points))


@BOTH
def test_a_gradient_that_is_no_number_spoils_only_its_own_image(norm):
    points, normal, gap = drawn(4, 10, 0.0, 0.3)
    expected = moves_onto(points, normal, gap, norm)
    normal[1, 3], gap[:, 2] = torch.nan, torch.inf
    moves = moves_onto(points, normal, gap, norm)
    torch.testing.assert_close(moves[:, [0, 3]], expected[:, [0, 3]], rtol=0, atol=1e-12)
