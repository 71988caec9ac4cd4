"""The judge: attacks a model chunk by chunk and says what became of every image.

The attack only proposes images. Here they are held against the budget and classified again in fp32, and that decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bench.attacks.prepare import prepared
from bench.attacks.suite import Trial
from bench.data import Images
from bench.errors import BadData, BadOption
from bench.judge import Chunk, judge
from bench.outcomes import Outcomes


def evaluate(
    model: nn.Module,
    images: Images,
    trials: Iterable[Trial],
    *,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
    done: Callable[[Trial], Collection[int]] = lambda trial: (),
    report: Callable[[Trial, float, int], None] = lambda trial, samples, total: None,
    notice: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Trial, Outcomes]]:
    """Attack the model with every trial in turn and yield the outcomes of each chunk as soon as they are known.

    Chunks are the same runs of images whatever was done before, so that a killed evaluation goes on as it would have
    gone. The model is moved to `device`; its modes and flags are as they were whenever this generator has yielded.

    Args:
        model: pixels (B,C,H,W) in [0, 1] to logits (B,K).
        images: what it is judged on.
        trials: what it is judged by.
        batch_size: images per chunk, unless the trial's own result depends on it.
        device: where to compute.
        done: the samples of a trial that are known already and left out.
        report: hears of a trial how many of its samples are done, a fraction of a chunk by estimate, and of how many.
        notice: hears a line about a model that can be judged but looks wrong; once each.

    Raises:
        BadModel: it fails, or returns something else than finite logits (B,K) for the K classes of `images`.
        BadData: labels outside the classes, or pixels outside [0, 1].
        OutOfBudget: an attack returned images outside its ball or the box.
        BadOption: a batch size below 1.
    """
    if batch_size < 1:
        raise BadOption(f"batch size {batch_size} is too small; at least 1 image is needed")
    check_labels(images)
    model = model.to(device)
    said: set[str] = set()

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            notice(line)

    for trial in trials:
        known = np.isin(images.sample, np.fromiter(done(trial), np.int64))
        count = int(known.sum())
        for rows in chunks(known, trial.batch_size or batch_size):
            x, y = images.batch(rows, device=str(device))
            chunk = Chunk(x, y, images.sample[rows], images.classes)
            tick = partial(_report_within, report, trial, count, len(rows), len(images))
            with prepared(model):
                outcomes = judge(model, chunk, trial, tick=tick, notice=once)
            count += len(rows)
            yield trial, outcomes
            report(trial, count, len(images))


def _report_within(
    report: Callable[[Trial, float, int], None], trial: Trial, count: int, rows: int, total: int, share: float
) -> None:
    report(trial, count + share * rows, total)


def chunks(known: npt.NDArray[np.bool_], size: int) -> Iterator[npt.NDArray[np.intp]]:
    """Rows that are not known, in runs whose borders do not depend on what is known."""
    for start in range(0, len(known), size):
        rows = start + np.flatnonzero(~known[start : start + size])
        if len(rows):
            yield rows


def check_labels(images: Images) -> None:
    """Every label must be one of the classes.

    Raises:
        BadData: one is not.
    """
    outside = np.flatnonzero(images.labels >= images.classes)
    if len(outside):
        first = outside[0]
        raise BadData(
            f"sample {images.sample[first]} of {images.name} has label {images.labels[first]}, but there are only "
            f"{images.classes} classes (0 to {images.classes - 1}); mend the labels or the class names"
        )
