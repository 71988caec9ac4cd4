"""Which checkpoints of a training are kept on disk, and how an interrupted one goes on.

Beside the file asked for, `NAME.safetensors`, which holds the selected epoch, `NAME.last.safetensors` holds the newest
state with all that is needed to go on. Running the same command again goes on from there. `NAME.epochs/` holds the
weights of the epochs that the other selection rules keep, so that each can be applied afterwards (`reselect.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.errors import BadCheckpoint, BadRecipe, Diverged
from bench.files import alone
from bench.training.checkpoint import Checkpoint, read, read_trained, write
from bench.training.loop import train
from bench.training.run import Run
from bench.training.schedule import Schedule
from bench.training.selection import LAST, RULES, best_epoch, held_out

PATIENCE = 1.0
"""Seconds that a training waits for another process before it says so."""


class Interrupted(Exception):  # no error: somebody asked for it
    """The user stopped the work; the message says what is saved and how to go on."""


def last_of(path: Path) -> Path:
    """Where the newest state of a training is kept, beside its selected epoch."""
    return path.with_name(f"{path.stem}.last.safetensors")


def epoch_of(path: Path, epoch: int) -> Path:
    """Where the weights of an epoch are kept that another rule than the schedule's selects."""
    return path.with_name(f"{path.stem}.epochs") / f"{epoch}.safetensors"


def finished(run: Run, path: Path) -> Checkpoint | None:
    """The selected checkpoint of a run, if its training is complete: its history then covers every epoch.

    Raises:
        BadCheckpoint: the file holds another run, or is damaged.
    """
    kept = of_run(run, path)
    complete = kept is not None and max((row["epoch"] for row in kept.history), default=0) == run.plan.schedule.epochs
    return kept if complete else None


def resumable(run: Run, path: Path) -> Checkpoint | None:
    """The state to go on from; None to begin, as when the file of the epoch selected before it is gone.

    Raises:
        BadCheckpoint: the file holds another run, or is damaged.
    """
    newest = of_run(run, last_of(path))
    if newest is None or path.exists() or not newest.epoch:
        return newest
    if newest.step == 0 and best_epoch(newest.history, run.plan.schedule.selection) == newest.epoch:
        keep_selected(newest, run.plan.schedule, path)
        return newest
    return newest if run.plan.schedule.selection == LAST else None


def of_run(run: Run, path: Path) -> Checkpoint | None:
    """The checkpoint at a path, where there is one.

    Raises:
        BadCheckpoint: it holds another run, or is damaged.
    """
    if not path.exists():
        return None
    checkpoint = read_trained(path)
    if other := differences(checkpoint.run, run.identity):
        raise BadCheckpoint(f"{path} holds another run (it differs in {other}); choose another --out or delete it")
    return checkpoint


def differences(a: Any, b: Any, at: str = "") -> str:
    """Where two JSON values differ: the first few dotted paths, or "" when they are equal."""
    return ", ".join(list(_paths(a, b, at))[:4])


def _paths(a: Any, b: Any, at: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _paths(a.get(key), b.get(key), f"{at}.{key}" if at else key)
    elif a != b:
        yield at


def fit(
    run: Run,
    path: Path,
    *,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int, int], None] = lambda done, total: None,
    waits: Callable[[], None] = lambda: None,
) -> Checkpoint:
    """Train a run, or go on with it, or find it done; keep the selected epoch at `path`.

    While another process trains to `path`, this one waits, and then goes on from what that one left.

    Args:
        run: what to train.
        path: the checkpoint's file.
        device: where to train.
        stop: asked after every step whether to save and leave.
        report: called after every step with steps done and steps in all.
        waits: called when it has waited for another process for a second.

    Raises:
        Interrupted: stopped by the user; the state is saved.
        Diverged: the loss is not a number; the last good state is kept.
        BadRecipe: the device has no memory for a batch; likewise.
        BadCheckpoint: `path` holds another run.
        DiskFull: no space for a checkpoint; the previous one is kept.
    """
    done = finished(run, path)
    if done is not None:
        return done
    tell = cache(waits)

    def wait(seconds: float) -> None:
        if stop():
            raise Interrupted(f"stopped while another process trains {path}; run the same command again to go on")
        if seconds > PATIENCE:
            tell()

    with alone(path, wait):
        return finished(run, path) or _fit(run, path, device, stop, report)


def _fit(run: Run, path: Path, device: str, stop: Callable[[], bool], report: Callable[[int, int], None]) -> Checkpoint:
    """Train a run that nobody else trains."""
    epochs = run.plan.schedule.epochs
    try:
        newest = resumable(run, path)
        for state in train(run, device=device, resume=newest, stop=stop, report=report):
            newest = state
            others = other_epochs(state, run.plan.schedule)
            if state.step == 0:
                if state.epoch in others:
                    write(replace(state, tensors={state.judged: state.weights}), epoch_of(path, state.epoch))
                keep_selected(state, run.plan.schedule, path)
            write(state, last_of(path))
            forget_all_but(others, path)  # not before: a run that goes on from an older state may need more
    except Diverged as problem:
        raise Diverged(f"{problem}; {kept_so_far(path)}") from None
    except torch.OutOfMemoryError:
        raise BadRecipe(
            f"the device runs out of memory with {run.plan.schedule.batch_size} images at a time; free some of its "
            "memory or take another device and run it again, or begin anew with a smaller schedule.batch_size; "
            f"{kept_so_far(path)}"
        ) from None
    if newest is not None and newest.epoch < epochs:
        raise Interrupted(
            f"stopped in epoch {newest.epoch + 1} of {epochs} after step {newest.step}; "
            f"saved to {last_of(path)}; run the same command again to go on"
        )
    return read(path)


def kept_so_far(path: Path) -> str:
    """What is left of a training that failed, in words."""
    return f"{last_of(path)} holds the last good epoch" if last_of(path).exists() else "nothing was saved yet"


def keep_selected(state: Checkpoint, schedule: Schedule, path: Path) -> None:
    """Write the selected epoch's checkpoint if this is it; after the last epoch, with the history of the whole run."""
    end = state.epoch == schedule.epochs
    if schedule.selection == LAST and not end:
        return
    best = best_epoch(state.history, schedule.selection) == state.epoch
    if best or end:
        chosen = state if best else read(path)
        write(replace(chosen.judged_only(), history=state.history), path)


def other_epochs(state: Checkpoint, schedule: Schedule) -> set[int]:
    """The epochs whose weights are kept for the rules that the schedule does not name; none without validation.

    Until the run is finished the newest state has what `last` keeps, and what the schedule's own rule keeps may change.
    """
    if not held_out(state.history):
        return set()
    end = state.epoch == schedule.epochs
    passed_over = {schedule.selection} if end else {schedule.selection, LAST}
    epochs = {best_epoch(state.history, rule) for rule in RULES if rule not in passed_over}
    return epochs - {best_epoch(state.history, schedule.selection)} if end else epochs


def forget_all_but(epochs: set[int], path: Path) -> None:
    """Remove the weights of epochs that no rule keeps any more."""
    kept = {epoch_of(path, epoch) for epoch in epochs}
    folder = epoch_of(path, 0).parent
    for file in folder.glob("*.safetensors*"):
        if file not in kept:
            file.unlink(missing_ok=True)
    with suppress(OSError):  # it holds something, or was never there
        folder.rmdir()
