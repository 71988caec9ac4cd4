"""The NSD of a sample: floor, correction and interval against simulation, slopes against differences."""

from __future__ import annotations

import numpy as np
import pytest

from bench.report.inference.crossed import Figures, class_accuracies, components
from bench.report.inference.fairness import corrected, figures, floor, interval, slope
from bench.report.metrics import nsd

COUNTS = np.full(10, 72)
PROFILES = {
    "equal": np.full(10, 0.7),
    "one low": np.array([0.8] * 9 + [0.4]),
    "two low": np.array([0.9] * 8 + [0.3, 0.2]),
    "nearly right": np.array([0.99] * 9 + [0.93]),
    "even": np.linspace(0.5, 0.95, 10),
    "digits": np.array([0.97, 0.65, 0.86, 0.66, 0.79, 0.81, 0.90, 0.79, 0.45, 0.58]),
}


def drawn(profile, draws, seed=0):
    return np.random.default_rng(seed).binomial(72, profile, (draws, 10)) / 72


@pytest.mark.parametrize(("accuracy", "wanted"), [(0.3, 0.166), (0.5, 0.109), (0.75, 0.063)])
def test_the_floor_is_what_equal_classes_give(accuracy, wanted):
    assert floor(accuracy, COUNTS) == pytest.approx(wanted, abs=0.0006)
    seen = np.mean([nsd(one) for one in drawn(np.full(10, accuracy), 4000)])
    assert floor(accuracy, COUNTS) == pytest.approx(seen, rel=0.02)
    assert np.isnan(floor(0.0, COUNTS))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_the_correction_takes_off_what_the_images_scatter(profile):
    samples = drawn(profile, 4000)
    signed = corrected(samples, COUNTS)
    variance = (np.sign(signed) * signed**2 * samples.mean(axis=1) ** 2).mean()
    assert variance == pytest.approx(profile.var(), abs=0.0002)
    raw = np.array([nsd(one) for one in samples])
    truth = nsd(profile)
    assert abs(signed.mean() - truth) <= abs(raw.mean() - truth) + 0.002


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_the_interval_covers(profile):
    truth = nsd(profile)
    ends = [interval(one, COUNTS) for one in drawn(profile, 300)]
    covered = np.mean([low - 1e-12 <= truth <= high for low, high in ends])
    assert covered >= 0.95 - 3 * (0.05 * 0.95 / 300) ** 0.5


def test_intervals_of_edges():
    assert interval(np.ones(10), COUNTS) == (0.0, np.inf)
    assert np.isnan(interval(np.zeros(10), COUNTS)).all()
    low, high = interval(np.full(10, 0.7), COUNTS)
    assert low == 0 < high


def test_influences_are_the_slope_of_the_nsd():
    rng = np.random.default_rng(0)
    labels = np.arange(72000) % 10
    members = labels == np.arange(10)[:, None]
    correct = rng.random((2, labels.size)) < np.take(PROFILES["digits"], labels)
    classes, counts = class_accuracies(correct, members), np.full(10, 7200)
    made = figures(classes, counts)
    assert made.seeds[:, 0] == pytest.approx(corrected(classes.seeds, counts))
    image = int(np.flatnonzero(correct[0])[0])
    step = classes.images[0, :, image]
    moved = [corrected(classes.seeds[0] + sign * 0.1 * step, counts) for sign in (1, -1)]
    assert made.images[0, 0, image] == pytest.approx((moved[0] - moved[1]) / 0.2, rel=0.02)
    near = [nsd(PROFILES["digits"] + sign * 1e-6 * np.eye(10)[8]) for sign in (1, -1)]
    assert slope(PROFILES["digits"])[8] == pytest.approx((near[0] - near[1]) / 2e-6, rel=1e-4)


def test_where_classes_are_equal_the_interval_of_a_difference_covers():
    rng = np.random.default_rng(3)
    labels = np.arange(720) % 10
    members = labels == np.arange(10)[:, None]
    covered = []
    for _ in range(200):
        one, other = (figures(class_accuracies(rng.random((3, 720)) < 0.7, members), COUNTS) for _ in range(2))
        low, high = components([one - other], [720]).estimate("method").interval()
        covered.append(low[0] <= 0 <= high[0])
    assert np.mean(covered) >= 0.95 - 3 * (0.05 * 0.95 / 200) ** 0.5


def test_equal_classes_have_a_finite_slope():
    made = figures(Figures(np.full((1, 10), 0.5), np.zeros((1, 10, 20))), COUNTS)
    assert np.isfinite(made.images).all()
