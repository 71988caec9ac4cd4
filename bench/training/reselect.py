"""Another selection rule, applied to a finished training: the checkpoint that training under it would have kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from bench.errors import BadCheckpoint
from bench.training.checkpoint import Checkpoint, read, read_trained, write
from bench.training.fit import epoch_of, last_of
from bench.training.selection import best_epoch, held_out


def reselect(kept: Checkpoint, path: Path, rule: str) -> Checkpoint:
    """What the training that wrote `kept` to `path` would have kept there under another selection rule.

    Raises:
        UnknownName: no such rule.
        BadCheckpoint: the training was not finished or not validated, or the weights of that epoch are not there.
    """
    epochs = kept.run["schedule"]["epochs"]
    if not held_out(kept.history):
        raise BadCheckpoint(f"{path} has no held-out figures to select by; train it with schedule.holdout above 0")
    if (reached := max(int(row["epoch"]) for row in kept.history)) < epochs:
        raise BadCheckpoint(
            f"{path} knows epochs up to {reached} of {epochs}; run its training again to go on to the end, then select"
        )
    epoch = best_epoch(kept.history, rule)
    beside = (read_trained(file) for file in (epoch_of(path, epoch), last_of(path)) if file.exists())
    for found in chain([kept], beside):
        if (found.run, found.epoch, found.step) == (kept.run, epoch, 0):
            return replace(found.judged_only(), run=selected_by(rule, kept.run), history=kept.history)
    raise BadCheckpoint(
        f"{rule} keeps epoch {epoch} of {path}, whose weights are not in {epoch_of(path, epoch)}; "
        "name the file that the training wrote, with its folder beside it, or train again to another --out"
    )


def figures(history: list[dict[str, Any]], rule: str) -> dict[str, Any]:
    """What the held-out split says of the epoch that a rule keeps."""
    epoch = best_epoch(history, rule)
    n, clean, adv = held_out(history)[epoch]
    worst = int((adv / n).argmin())
    return {
        "rule": rule,
        "epoch": epoch,
        "n": int(n.sum()),
        "clean": float(clean.sum() / n.sum()),
        "robust": float(adv.sum() / n.sum()),
        "worst": float(adv[worst] / n[worst]),
        "worst_class": worst,
    }


def selected_by(rule: str, run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The identity of a run, had its schedule named another selection rule.

    The variant then names it as an override would, even where it is the preset's own.
    """
    if rule == run["schedule"]["selection"]:
        return run
    address = "schedule.selection"
    others = [change for change in run["variant"].split(",") if change and not change.startswith(f"{address}=")]
    variant = sorted([*others, f"{address}={rule}"], key=lambda change: change.partition("=")[0])
    return {**run, "variant": ",".join(variant), "schedule": {**run["schedule"], "selection": rule}}


def write_new(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint where it is not yet, over nothing else.

    Raises:
        BadCheckpoint: there is another one.
        DiskFull: no space.
    """
    if not path.exists():
        write(checkpoint, path)
    elif read(path).checkpoint_id != checkpoint.checkpoint_id:
        raise BadCheckpoint(f"{path} holds another checkpoint; choose another --out or delete it")
