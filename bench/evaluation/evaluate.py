"""Evaluation: a model is attacked with every trial, chunk by chunk, and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bench.attacks.prepare import own_randomness, prepared, search_model
from bench.attacks.trial import Trial
from bench.data.images import Images
from bench.errors import BadData, BadOption
from bench.evaluation.answer import logits_of
from bench.evaluation.batching import USUAL, CudaGauge, Room, images_that_fit
from bench.evaluation.chunk import Chunk, check_pixels
from bench.evaluation.judge import Case, Keep, ignored, judge
from bench.evaluation.random_models import FEW, STEADY, unsteadiness
from bench.outcomes import COLUMNS, Outcomes

PROBE = 4
"""Images that the network made for searching must agree on with the model."""


def evaluate(
    model: nn.Module,
    images: Images,
    trials: Iterable[Trial],
    *,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    report: Callable[[Trial, float, int], None] = ignored,
    notice: Callable[[str], None] = ignored,
    keep: Keep = ignored,
) -> Iterator[tuple[Trial, Outcomes]]:
    """Attack the model with every trial in turn and yield the outcomes of each chunk as soon as they are known.

    Where memory runs out, a chunk is worked on in parts. The model is moved to `device`; its modes and flags are as
    they were whenever this generator has yielded.

    Args:
        model: pixels (B,C,H,W) in [0, 1] to logits (B,K).
        images: what it is judged on.
        trials: what it is judged by.
        batch_size: images per chunk, unless the trial's own result depends on it; None for `usual_batch`.
        device: where to compute.
        report: hears of a trial how many of its samples are done, a fraction of a chunk by estimate, and of how many.
        notice: hears a line about a model that can be judged but looks wrong; once each.
        keep: takes the adversarial images.

    Raises:
        BadModel: it fails, or returns something else than finite logits (B,K) for the K classes of `images`.
        BadData: labels outside the classes, or pixels outside [0, 1].
        BadAttack: an attack fails, returns no images within its ball and the box, or changes the model.
        BadOption: a batch size below 1, or one that memory does not hold and that cannot be divided.
    """
    if batch_size is not None and batch_size < 1:
        raise BadOption(f"batch size {batch_size} is too small; at least 1 image is needed")
    check_labels(images)
    model = model.to(device)
    probe, _ = images.batch(slice(0, PROBE), device=device)

    @cache
    def search() -> nn.Module:
        return search_model(model, probe)

    size, room, remarked = batch_size or usual_batch(model, images, device), Room(), once(notice)
    for trial in trials:
        for rows in chunks(np.zeros(len(images), bool), trial.batch_size or size):
            x, y = images.batch(rows, device=device)
            case = Case(
                model,
                Chunk(x, y, images.sample[rows], images.classes),
                trial,
                search=search() if trial.attack else None,
                tick=_within(report, trial, rows, len(images)),
                notice=remarked,
                keep=keep,
            )
            yield trial, in_parts(case, room)
            report(trial, rows[-1] + 1, len(images))


def usual_batch(model: nn.Module, images: Images, device: torch.device | str) -> int:
    """How many images a chunk has where nobody says: as many as are seen to fit on a GPU, and 250 elsewhere."""
    probe, _ = images.batch(slice(0, PROBE), device=device)
    if probe.device.type != "cuda":
        return USUAL
    search = search_model(model.to(device), probe)
    if search is model:  # nobody knows what a pass through it would do
        return USUAL
    return images_that_fit(search, probe, CudaGauge(probe.device))


def once(notice: Callable[[str], None]) -> Callable[[str], None]:
    """Passes every line on, but none twice."""
    said: set[str] = set()

    def remarked(line: str) -> None:
        if line not in said:
            said.add(line)
            notice(line)

    return remarked


def answers_vary(model: nn.Module, images: Images, device: torch.device | str = "cpu") -> bool:
    """Whether the model in eval mode answers the same images differently from time to time.

    Raises:
        BadData: pixels outside [0, 1].
        BadModel: it fails, or returns something else than finite logits.
    """
    x, y = images.batch(slice(0, FEW), device)
    check_pixels(Chunk(x, y, images.sample[:FEW], images.classes))
    model.to(device)
    with prepared(model), own_randomness(), torch.no_grad():
        return unsteadiness(lambda pixels: logits_of(model, pixels, images.classes), x) > STEADY


def in_parts(case: Case, room: Room) -> Outcomes:
    """The outcomes of a chunk, judged in as many parts as memory demands."""

    def part(rows: slice) -> Outcomes:
        with prepared(case.model):
            return judge(case.part(rows))

    total = len(case.chunk.y)
    if case.trial.batch_size is None:
        return joined(room.fill(total, part))
    try:
        return part(slice(0, total))
    except torch.OutOfMemoryError as problem:
        raise BadOption(
            f"the device runs out of memory with {total} images at a time, and the result of {case.trial.name!r} "
            "depends on how many there are; ask for fewer with --batch-size"
        ) from problem


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Outcomes one after the other; their times add up."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    return Outcomes(**columns, seconds=sum(part.seconds for part in parts))


def _within(
    report: Callable[[Trial, float, int], None], trial: Trial, rows: npt.NDArray[np.intp], total: int
) -> Callable[[float], None]:
    """Tells the share of a chunk as a number of samples."""
    return lambda share: report(trial, rows[0] + share * len(rows), total)


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
