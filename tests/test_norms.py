from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from bench.errors import BadBudget
from bench.norms import L2, LINF, NORMS, growth, norm, per_image
from bench.randomness import Streams

DELTAS = arrays(np.float32, (3, 2, 4), elements=st.floats(-4, 4, width=32))
RADII = arrays(np.float32, (3,), elements=st.floats(0.0078125, 4, width=32))
relaxed = settings(deadline=None, max_examples=100)


def linf_projection(delta: np.ndarray, eps: np.ndarray) -> np.ndarray:
    radius = eps.astype(np.float64)[:, None, None]
    return np.minimum(np.maximum(delta.astype(np.float64), -radius), radius)


def l2_projection(delta: np.ndarray, eps: np.ndarray) -> np.ndarray:
    wide = delta.astype(np.float64)
    length = np.sqrt((wide**2).sum((1, 2)))
    return wide * np.minimum(1, eps / np.where(length == 0, 1, length))[:, None, None]


@given(DELTAS, RADII)
@relaxed
def test_projections_agree_with_float64(delta, eps):
    for geometry, reference in ((LINF, linf_projection), (L2, l2_projection)):
        got = geometry.project(torch.tensor(delta), torch.tensor(eps)).numpy()
        np.testing.assert_allclose(got, reference(delta, eps), rtol=1e-5, atol=1e-6)


@given(DELTAS, RADII)
@relaxed
def test_a_projection_is_inside_stays_and_leaves_what_is_inside(delta, eps):
    for geometry in NORMS.values():
        radius = torch.tensor(eps)
        inside = geometry.project(torch.tensor(delta), radius)
        assert (geometry.size(inside) <= radius * (1 + 1e-6)).all()
        torch.testing.assert_close(geometry.project(inside, radius), inside, rtol=1e-6, atol=0)
        small = torch.tensor(delta) * per_image(radius, inside) / 40
        assert torch.equal(geometry.project(small, radius), small)


@given(DELTAS, RADII)
@relaxed
def test_back_into_the_box_never_leaves_the_ball(delta, eps):
    x = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    for geometry in NORMS.values():
        radius = torch.tensor(eps)
        adv = (x + geometry.project(torch.tensor(delta), radius)).clamp(0, 1)
        assert (geometry.size(adv - x) <= radius * (1 + 1e-5) + 1e-7).all()


@given(DELTAS)
@relaxed
def test_size_agrees_with_float64(delta):
    wide = delta.astype(np.float64).reshape(3, -1)
    np.testing.assert_allclose(LINF.size(torch.tensor(delta)), np.abs(wide).max(1))
    np.testing.assert_allclose(L2.size(torch.tensor(delta)), np.sqrt((wide**2).sum(1)), rtol=1e-5, atol=1e-18)


@given(DELTAS, DELTAS)
@relaxed
def test_no_direction_of_norm_1_is_steeper(grad, other):
    for geometry, dual in ((LINF, 1), (L2, 2)):
        g = torch.tensor(grad)
        best = geometry.steepest(g)
        assert (geometry.size(best) <= 1 + 1e-5).all()
        gain = (best * g).flatten(1).sum(1)
        expected = torch.linalg.vector_norm(g.double().flatten(1), dual, dim=1)
        torch.testing.assert_close(gain.double(), expected, rtol=1e-4, atol=1e-5)
        rival = geometry.project(torch.tensor(other), torch.ones(3))
        assert ((rival * g).flatten(1).sum(1) <= gain + 1e-4).all()


def test_a_gradient_whose_squares_vanish_still_has_a_direction():
    grad = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]])
    torch.testing.assert_close(L2.steepest(grad), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert torch.equal(LINF.steepest(grad), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("geometry", NORMS.values(), ids=NORMS.keys())
def test_noise_fills_the_ball(geometry):
    n, d = 4000, 3
    like, eps = torch.zeros(n, 1, 1, d), torch.full((n,), 0.5)
    noise = geometry.noise(Streams(5, torch.arange(n)), like, eps)
    assert noise.shape == like.shape
    size = geometry.size(noise).numpy()
    assert size.max() <= 0.5 * (1 + 1e-6)
    # The share of a ball within a fraction r of its radius is r^d, in either geometry.
    for fraction in (0.5, 0.8, 0.95):
        assert abs((size < 0.5 * fraction).mean() - fraction**d) < 0.03
    assert abs(float(noise.mean())) < 0.02
    assert geometry.noise(Streams(5, torch.arange(0)), like[:0], eps[:0]).shape == (0, 1, 1, d)


def test_norms_are_found_by_name():
    assert norm("Linf") is LINF
    assert norm("L2") is L2
    with pytest.raises(BadBudget, match="norm 'L1' is not supported; choose one of Linf, L2"):
        norm("L1")


@given(DELTAS, DELTAS)
@relaxed
def test_growth_is_the_dual_norm_and_bounds_every_move(grad, move):
    slope, delta = torch.tensor(grad), torch.tensor(move)
    wide = grad.astype(np.float64).reshape(3, -1)
    np.testing.assert_allclose(growth(slope, LINF), np.abs(wide).sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(growth(slope, L2), np.sqrt((wide**2).sum(1)), rtol=1e-5, atol=1e-6)
    gained = (slope * delta).flatten(1).sum(1)
    for geometry in NORMS.values():
        assert (gained <= growth(slope, geometry) * geometry.size(delta) * (1 + 1e-5) + 1e-5).all()
