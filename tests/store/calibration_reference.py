"""Whether confidences can be believed: calibration on attacked samples, and how far an attack moves the output.

ADR (Wu et al., ICLR 2024) starts from the observation that robust networks are better calibrated and answer more alike
on clean and attacked images. The view `calibration` in schema.sql says so from stored outcomes; these functions compute
the same in numpy, for test_calibration.py to hold the view to.

Confidence is the softmax probability of the predicted class. A sample that was wrong before any attack is never
attacked: it counts with its unattacked confidence and with divergence 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bench.outcomes import Outcomes

BINS = 15
"""Bins of the expected calibration error, as in Guo et al."""


def mean_confidence(outcomes: Outcomes) -> float:
    """Mean confidence, in [0, 1]; NaN without samples."""
    return _mean(outcomes.confidence)


def error_confidence(outcomes: Outcomes) -> float:
    """Mean confidence of the wrong predictions, in [0, 1]; NaN where none is wrong."""
    return _mean(outcomes.confidence[~outcomes.correct])


def divergence(outcomes: Outcomes) -> float:
    """Mean KL divergence of the clean from the judged softmax, in nats, at least 0; NaN without samples."""
    return _mean(outcomes.divergence)


def class_divergence(outcomes: Outcomes, classes: int) -> npt.NDArray[np.float64]:
    """(classes,) mean KL divergence of each true class, in nats; NaN where a class has no sample."""
    total = np.bincount(outcomes.label, minlength=classes)
    sums = np.bincount(outcomes.label, weights=outcomes.divergence, minlength=classes)
    means: npt.NDArray[np.float64] = np.divide(sums, total, out=np.full(classes, np.nan), where=total > 0)
    return means


def ece(outcomes: Outcomes, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal width: mean gap between confidence and accuracy, by bin.

    Which of two bins a border belongs to does not matter with 15 bins: of the borders k/15 only 0 and 1 are float32
    numbers.

    Args:
        outcomes: N samples.
        bins: number of bins of [0, 1].

    Returns:
        sum over bins of |sum of (correct - confidence)| / N, in [0, 1]; NaN without samples.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    confidence = outcomes.confidence.astype(np.float64)
    place = np.minimum(np.floor(bins * confidence).astype(np.intp), bins - 1)
    return _gap(outcomes.correct - confidence, place)


def ece_mass(outcomes: Outcomes, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal numbers of samples, in ascending order of confidence.

    The numbers differ by at most one, the larger bins first; with fewer samples than bins each has its own. Samples of
    one confidence share their accuracy, so that it does not matter which of them fall on which side of a border.

    Args:
        outcomes: N samples.
        bins: number of bins.

    Returns:
        As `ece`.

    Source: Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language processing
        models", EMNLP 2015 (adaptive bins).
    """
    order = np.argsort(outcomes.confidence, kind="stable")
    confidence = outcomes.confidence[order].astype(np.float64)
    _, tie, size = np.unique(confidence, return_inverse=True, return_counts=True)
    share = np.bincount(tie, weights=outcomes.correct[order]) / size
    sizes = [len(part) for part in np.array_split(order, bins)]
    return _gap(share[tie] - confidence, np.repeat(np.arange(bins), sizes))


def _gap(gaps: npt.NDArray[np.float64], place: npt.NDArray[np.intp]) -> float:
    """Mean over samples of the absolute mean gap of their bins."""
    return float(np.abs(np.bincount(place, weights=gaps)).sum() / len(gaps)) if len(gaps) else float("nan")


def _mean(values: npt.NDArray[np.float32]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")
