from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks.trial import CLEAN
from bench.data.images import images_from_arrays
from bench.evaluation.evaluate import evaluate
from bench.outcomes import Outcomes
from bench.soundness import answers
from bench.soundness.run import run_checks

from .impostors import Around

SIZE = 60
BRIGHT, DARK = 0.7, 0.3


@pytest.fixture
def images():
    """Bright and dark images, 30 each."""
    labels = np.arange(SIZE) % 2
    pixels = np.where(labels, BRIGHT, DARK)[:, None, None, None] * np.ones((SIZE, 1, 2, 2))
    return images_from_arrays("shades", "test", pixels, labels, ("dark", "bright"))


class Shade(nn.Module):
    """Tells bright from dark by the mean pixel."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        over = 10 * (x.mean((1, 2, 3)) - self.threshold)
        return torch.stack([-over, over], 1)


def asked(check, model, images, **options):
    (verdict,) = run_checks(model, images, norm="Linf", eps=Fraction(1, 10), seed=0, checks=[check], **options)
    return verdict


class Counting(Shade):
    """Keeps a running mean, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += x.mean()
        return super().forward(x)


def test_a_buffer_that_an_answer_changes(images):
    found = asked(answers.eval_mode, Counting(), images)
    assert (found.verdict, found.value) == ("fail", 1)
    assert "seen" in found.detail
    plain = Shade()
    plain.register_buffer("unset", torch.full((2,), torch.nan))
    assert asked(answers.eval_mode, plain, images).verdict == "pass"


@pytest.mark.parametrize(
    ("before", "named"),
    [
        (lambda x: x / 255, "[0, 255]"),
        (lambda z: (z + 1) / 2, "standardised"),  # which are as good to it as [-1, 1]
        (lambda z: 0.2 * z + 0.5, "standardised"),
    ],
)
def test_the_range_of_pixels_that_a_model_wants_is_named(images, before, named):
    found = asked(answers.input_domain, Around(Shade(), before=before), images)
    assert (found.verdict, found.value) == ("fail", 1.0)
    assert named in found.detail


def test_a_model_may_refuse_other_ranges(images):
    def strict(x):
        if x.min() < 0 or x.max() > 1:
            raise ValueError("pixels")
        return x

    found = asked(answers.input_domain, Around(Shade(), before=strict), images)
    assert (found.verdict, found.value) == ("pass", 0)


def test_few_errors_that_vanish_elsewhere_are_chance(images):
    class Unsure(Shade):
        """Wrong about six images of [0, 1], about none of [-1, 1]."""

        def forward(self, x):
            logits = super().forward(x if x.min() >= 0 else (x + 1) / 2)
            logits[:6] *= 1 if x.min() < 0 else -1
            return logits

    found = asked(answers.input_domain, Unsure(), images)
    assert (found.verdict, found.value) == ("pass", 1.0)


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        ((50, 50), "fail"),
        ((44, 50), "fail"),
        ((30, 50), "pass"),
        ((25, 50), "pass"),
        ((5, 50), "pass"),
        (None, "not-run"),
    ],
)
def test_clean_accuracy_against_its_record(images, record, verdict):
    """Everything is called dark, which is right for half of them: 30 of 60; three standard errors are 0.29."""
    found = asked(answers.clean_accuracy, Shade(threshold=0.9), images, recorded_clean=record)
    assert found.verdict == verdict
    if record is not None:
        assert found.value == pytest.approx(record[0] / 50 - 0.5)


def test_clean_accuracy_of_all_images_if_they_were_judged(images):
    clean = dict(evaluate(Shade(), images, [CLEAN]))
    tripled = Outcomes(
        *(np.tile(getattr(clean[CLEAN], name), 3) for name in ("sample", "label")),
        *(np.tile(getattr(clean[CLEAN], name), 3) for name in ("predicted", "confidence", "broken_by")),
    )
    found = asked(answers.clean_accuracy, Shade(), images, recorded_clean=(10, 10), runs={CLEAN: tripled})
    assert (found.verdict, found.value, found.n) == ("pass", 0, 180)


class Uneven(Shade):
    """Adds a little to the logits, depending on how many images come along."""

    def __init__(self, little: float) -> None:
        super().__init__()
        self.little = little

    def forward(self, x):
        return super().forward(x) + self.little * len(x)


@pytest.mark.parametrize(("little", "verdict"), [(1e-7, "pass"), (1e-4, "warn"), (0.1, "fail")])
def test_an_answer_that_depends_on_the_batch(images, little, verdict):
    assert asked(answers.batch_invariance, Uneven(little), images).verdict == verdict


class Flickering(Shade):
    """A little noise on the logits."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x):
        logits = super().forward(x)
        return logits + self.noise * torch.randn_like(logits)


@pytest.mark.parametrize(("noise", "verdict"), [(0, "pass"), (1e-6, "pass"), (0.01, "fail")])
def test_random_answers(images, noise, verdict):
    assert asked(answers.determinism, Flickering(noise), images).verdict == verdict


def test_probabilities_are_no_logits(images):
    assert asked(answers.logits, nn.Sequential(Shade(), nn.Softmax(1)), images).verdict == "fail"
    assert asked(answers.logits, nn.Sequential(Shade(), nn.LogSoftmax(1)), images).verdict == "pass"


def test_float64_that_answers_otherwise(images):
    class Rounding(Shade):
        """So large an offset that float32 has no room for the difference of two shades."""

        def forward(self, x):
            x = x + 2.0**24 - 2.0**24
            return super().forward(x) + 0.1 * torch.tensor([1.0, -1.0])

    assert asked(answers.precision, Shade(), images).verdict == "pass"
    found = asked(answers.precision, Rounding(), images)
    assert found.verdict == "warn"
    assert "differ in float64" in found.detail


def test_a_model_that_cannot_be_copied_has_no_precision(images):
    class Single(Shade):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one")

    found = asked(answers.precision, Single(), images)
    assert (found.verdict, "there is only one" in found.detail) == ("not-run", True)
