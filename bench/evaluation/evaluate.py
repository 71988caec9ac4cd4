"""The judge: attacks a model chunk by chunk and says what became of every image.

The attack only proposes images. Here they are held against the budget and classified again in fp32, and that decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bench.attacks.prepare import own_randomness, prepared, search_model
from bench.attacks.trial import Trial
from bench.data.images import Images
from bench.errors import BadData, BadOption
from bench.evaluation.batching import USUAL, CudaGauge, Room, images_that_fit
from bench.evaluation.judge import Chunk, Keep, check_pixels, judge, logits_of
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
    done: Callable[[Trial], Collection[int]] = lambda trial: (),
    report: Callable[[Trial, float, int], None] = lambda trial, samples, total: None,
    notice: Callable[[str], None] = lambda line: None,
    keep: Keep | None = None,
) -> Iterator[tuple[Trial, Outcomes]]:
    """Attack the model with every trial in turn and yield the outcomes of each chunk as soon as they are known.

    Chunks are the same runs of images whatever was done before, so that a killed evaluation goes on as it would have
    gone. Where memory runs out, a chunk is worked on in parts. The model is moved to `device`; its modes and flags are
    as they were whenever this generator has yielded.

    Args:
        model: pixels (B,C,H,W) in [0, 1] to logits (B,K).
        images: what it is judged on.
        trials: what it is judged by.
        batch_size: images per chunk, unless the trial's own result depends on it; None for as many as fit on a GPU,
            and 250 elsewhere.
        device: where to compute.
        done: the samples of a trial that are known already and left out.
        report: hears of a trial how many of its samples are done, a fraction of a chunk by estimate, and of how many.
        notice: hears a line about a model that can be judged but looks wrong; once each.
        keep: takes the adversarial images.

    Raises:
        BadModel: it fails, or returns something else than finite logits (B,K) for the K classes of `images`.
        BadData: labels outside the classes, or pixels outside [0, 1].
        OutOfBudget: an attack returned images outside its ball or the box.
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

    if batch_size is None:
        measurable = probe.device.type == "cuda" and search() is not model  # else nobody knows what a pass would do
        batch_size = images_that_fit(search(), probe, CudaGauge(probe.device)) if measurable else USUAL
    room = Room()
    said: set[str] = set()

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            notice(line)

    for trial in trials:
        known = np.isin(images.sample, np.fromiter(done(trial), np.int64))
        count = int(known.sum())
        for rows in chunks(known, trial.batch_size or batch_size):
            x, y = images.batch(rows, device=device)
            chunk = Chunk(x, y, images.sample[rows], images.classes)
            tick = partial(_report_within, report, trial, count, len(rows), len(images))
            seen = model if trial.attack is None else search()
            outcomes = _judged(model, seen, chunk, trial, room, tick, once, keep)
            count += len(rows)
            yield trial, outcomes
            report(trial, count, len(images))


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


def _judged(
    model: nn.Module,
    seen: nn.Module,
    chunk: Chunk,
    trial: Trial,
    room: Room,
    tick: Callable[[float], None],
    notice: Callable[[str], None],
    keep: Keep | None,
) -> Outcomes:
    """The outcomes of a chunk, judged in as many parts as memory demands."""
    total = len(chunk.y)

    def part(rows: slice) -> Outcomes:
        some = Chunk(chunk.x[rows], chunk.y[rows], chunk.sample[rows], chunk.classes)
        with prepared(model):
            return judge(
                model,
                some,
                trial,
                search=seen,
                tick=lambda share: tick((rows.start + share * len(some.y)) / total),
                notice=notice,
                keep=keep,
            )

    if trial.batch_size is None:
        return joined(room.fill(total, part))
    try:
        return part(slice(0, total))
    except torch.OutOfMemoryError as problem:
        raise BadOption(
            f"the device runs out of memory with {total} images at a time, and the result of {trial.name!r} depends on "
            "how many there are; ask for fewer with --batch-size"
        ) from problem


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Outcomes one after the other; their times add up."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    return Outcomes(**columns, seconds=sum(part.seconds for part in parts))


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
