"""The worst class: what its interval covers where that of the named class does not, and differences of two."""

from __future__ import annotations

import numpy as np
import pytest

from bench.report.inference.crossed import class_accuracies
from bench.report.inference.proportion import wilson
from bench.report.inference.worst import difference, how_often_worst, interval

COUNTS = np.full(10, 72)
PROFILES = {
    "equal": np.full(10, 0.7),
    "one low": np.array([0.8] * 9 + [0.4]),
    "three near": np.array([0.8] * 7 + [0.5, 0.51, 0.52]),
    "even": np.linspace(0.5, 0.95, 10),
}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_the_interval_covers(profile):
    drawn = np.random.default_rng(0).binomial(72, profile, (1500, 10))
    ends = [interval(one, COUNTS) for one in drawn]
    assert np.mean([low <= profile.min() <= high for low, high in ends]) >= 0.94


def test_the_interval_of_the_named_class_does_not():
    drawn = np.random.default_rng(0).binomial(72, PROFILES["equal"], (1500, 10))
    low, high = wilson(drawn.min(axis=1), 72)
    assert ((low <= 0.7) & (high >= 0.7)).mean() < 0.85


def test_how_often_a_class_is_the_worst():
    sure = how_often_worst([70] * 9 + [10], COUNTS)
    assert sure[9] == pytest.approx(1)
    even = how_often_worst([36] * 10, COUNTS)
    assert even.sum() == pytest.approx(1)
    assert even.max() < 0.14


def samples(rng, profile, seeds, moved=0.0):
    labels = np.arange(720) % 10
    levels = profile + moved * rng.standard_normal((seeds, 10))
    latent = 0.8 * rng.random(720) + 0.2 * rng.random((seeds, 720))
    return (latent < np.clip(levels, 0, 1)[:, labels]), labels == np.arange(10)[:, None]


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("name", "seeds"), [("equal", 3), ("three near", 5), ("even", 3), ("one low", 1)])
def test_the_interval_of_a_difference_covers(name, seeds, paired):
    rng = np.random.default_rng(1)
    profile = PROFILES[name]
    lower = profile - 0.1 * (np.arange(10) == 8)
    covered = []
    for _ in range(150):
        (b, members), (a, _) = samples(rng, lower, seeds), samples(rng, profile, seeds)
        made = difference(class_accuracies(b, members), class_accuracies(a, members), COUNTS, "method", paired=paired)
        low, high = made.interval(0.05)
        covered.append(low <= made.value <= high and low <= 0.001 + lower.min() - profile.min() <= high + 0.002)
    assert np.mean(covered) >= 0.94


def test_the_value_is_the_difference_of_the_two_lowest_means():
    rng = np.random.default_rng(2)
    (b, members), (a, _) = samples(rng, PROFILES["even"], 3), samples(rng, PROFILES["three near"], 3)
    one, other = class_accuracies(b, members), class_accuracies(a, members)
    made = difference(one, other, COUNTS, "method", paired=True)
    assert made.value == pytest.approx(one.seeds.mean(axis=0).min() - other.seeds.mean(axis=0).min())
    assert made.named().value == pytest.approx(made.value)
    assert made.named().error > 0
