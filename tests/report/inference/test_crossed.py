"""Means over seeds and images: by the analysis of variance, by identities, and by what is covered."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from bench.report.inference.crossed import Components, Figures, accuracy, class_accuracies, components, image_means

RNG = np.random.default_rng(0)
B, A = RNG.random((2, 4, 60)) < 0.7


def differences():
    return accuracy(B) - accuracy(A)


def test_the_components_are_those_of_the_analysis_of_variance():
    d = B.astype(float) - A.astype(float)
    seeds, n = d.shape
    rows, columns = d.mean(axis=1, keepdims=True), d.mean(axis=0, keepdims=True)
    ms_seed = n * rows.var(ddof=1)
    ms_image = seeds * columns.var(ddof=1)
    ms_error = ((d - rows - columns + d.mean()) ** 2).sum() / ((seeds - 1) * (n - 1))
    made = components([differences()], [n])
    half_samples = 1 / (seeds * n**2)
    assert made.value == pytest.approx(d.mean())
    assert made.seeds * seeds * n == pytest.approx(ms_seed)
    assert (made.images - half_samples) * seeds * n == pytest.approx(ms_image)
    assert made.rest * seeds * n == pytest.approx(ms_error)


def test_of_seeds_alone_it_is_the_paired_t():
    found = components([differences()], [60]).estimate("images")
    wanted = ttest_1samp(B.mean(axis=1) - A.mean(axis=1), 0).confidence_interval(0.95)
    assert np.array(found.interval(0.05)).ravel() == pytest.approx(wanted)


def test_of_images_alone_it_is_the_mean_over_images():
    found = components([differences()], [60]).estimate("checkpoints")
    moved = (B.astype(float) - A).mean(axis=0)
    error = np.sqrt(moved.var(ddof=1) / 60 + 1 / (4 * 60**2))
    assert found.error == pytest.approx(error)
    assert found.half(0.1) == pytest.approx(error * t.ppf(0.95, 59))


def by_hand(images, seeds, rest, networks=5):
    ones = np.ones(1)
    return Components(0 * ones, images * ones, 99 * ones, seeds * ones, (networks - 1) * ones, rest * ones, networks)


def test_the_half_width_is_howes():
    found = by_hand(4, 3, 1).estimate("method")
    assert found.error == pytest.approx(6**0.5)
    assert found.half(0.01) ** 2 == pytest.approx(3 * t.ppf(0.995, 99) ** 2 + 3 * t.ppf(0.995, 4) ** 2)
    assert by_hand(1, 3, 2).estimate("method").half() == pytest.approx(3**0.5 * t.ppf(0.975, 4))


def test_kin_lean_on_each_other_but_never_below_their_own():
    ones = np.ones(3)
    made = Components(0 * ones, np.array([1.0, 2, 9]), 99 * ones, np.array([3.0, 0, 7]), 4 * ones, 0 * ones, 5)
    leant = made.leaning(np.array([True, True, False]))
    assert leant.seeds.tolist() == [3.0, 1.0, 7.0]  # 3 of 3 images' worth: 1 and 2, halved with their own 3 and 0
    assert leant.seeds_freedom.tolist() == [8, 8, 4]
    assert made.leaning(np.zeros(3, dtype=bool)) is made


def test_two_seeds_have_bounded_freedom():
    found = by_hand(4, 1, 1, networks=2).estimate("method")
    assert found.half() == pytest.approx(2 * t.ppf(0.975, 10))
    assert by_hand(0, 3, 0, networks=2).estimate("method").half() == pytest.approx(3**0.5 * t.ppf(0.975, 1))


def test_single_networks_have_images_only():
    found = components([accuracy(B[:1]) - accuracy(A[:1])], [60])
    assert found.networks == 1
    assert found.estimate("method").half() == pytest.approx(found.estimate("checkpoints").half())


def test_unpaired_seeds_add_their_variances_and_keep_the_images_paired():
    b, a = accuracy(B), accuracy(A[:3])
    made = components([b, -a], [60])
    assert made.value == pytest.approx(B.mean() - A[:3].mean())
    assert made.seeds == pytest.approx(B.mean(axis=1).var(ddof=1) / 4 + A[:3].mean(axis=1).var(ddof=1) / 3)
    moved = B.mean(axis=0) - A[:3].mean(axis=0)
    assert made.images == pytest.approx(moved.var(ddof=1) / 60 + 1 / (3 * 60**2))
    assert 2 <= made.seeds_freedom <= 5


def test_what_no_image_moves_keeps_an_error():
    found = components([accuracy(B) - accuracy(B)], [60]).estimate("method")
    assert found.value == 0
    assert found.error == pytest.approx(1 / (2 * 60))


def test_classes_are_accuracies_of_their_images():
    labels = np.arange(60) % 3
    members = labels == np.arange(3)[:, None]
    made = class_accuracies(B, members)
    for label in range(3):
        alone = accuracy(B[:, labels == label])
        assert made.seeds[:, label] == pytest.approx(alone.seeds[:, 0])
        assert made.images[:, label, labels == label] == pytest.approx(alone.images[:, 0])
    assert image_means([made]).sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-12)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("of_seeds", "of_images"), [(0, 0.3), (0.02, 0.3), (0.04, 0.1), (0.1, 0.1)])
def test_intervals_cover_crossed_effects(seeds, of_seeds, of_images):
    rng = np.random.default_rng(1)
    n, covered = 100, []
    for _ in range(500):
        d = of_seeds * rng.standard_normal((seeds, 1)) + of_images * rng.standard_normal(n)
        d = d + 0.2 * rng.standard_normal((seeds, n))
        mean = d.mean(axis=1, keepdims=True)
        low, high = components([Figures(mean, ((d - mean) / n)[:, None])], [n]).estimate("method").interval(0.05)
        covered.append(low[0] <= 0 <= high[0])
    assert np.mean(covered) >= 0.95 - 3 * (0.05 * 0.95 / 500) ** 0.5
