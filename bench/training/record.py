"""What a checkpoint's record must hold: a file with the right hash may still say something else than a training would.

The functions raise ValueError in words; `checkpoint.py` says of which file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.budget import parse_eps
from bench.errors import BenchError, brief
from bench.training.selection import RULES

WORDS = {str: "a text", int: "a whole number", float: "a number", dict: "a table", list: "a list"}
JUDGED = ("model", "averaged")


def of(table: Any, key: str, kind: type) -> Any:
    """The entry of a table that must be of a kind: str, int, float (or int), dict or list.

    Raises:
        ValueError: it is missing or of another kind.
    """
    if not isinstance(table, Mapping) or key not in table:
        raise ValueError(f"it lacks {key!r}")
    value = table[key]
    if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool)):
        raise ValueError(f"its {key!r} is {brief(repr(value))}, not {WORDS[kind]}")
    return value


def check_head(record: Any, parts: Iterable[str]) -> None:
    """Refuse a record from which no checkpoint can be made.

    Args:
        record: JSON.
        parts: of the tensors in the file.

    Raises:
        ValueError: something is missing, or of another kind.
    """
    for key, kind in (("judged", str), ("run", dict), ("history", list), ("versions", dict), ("architecture", dict)):
        of(record, key, kind)
    for key in ("epoch", "step"):
        if of(record, key, int) < 0:
            raise ValueError(f"its {key!r} is below 0")
    if record["judged"] not in {*JUDGED} & {*parts}:
        raise ValueError(f"it judges {brief(repr(record['judged']))}, of which it holds no weights")
    architecture = record["architecture"]
    of(architecture, "name", str)
    for key in ("classes", "channels"):
        of(architecture, key, int)
    for key in ("mean", "std"):
        if not all(type(value) in (int, float) for value in of(architecture, key, list)):
            raise ValueError(f"its {key!r} holds something else than numbers")
    if strange := architecture.keys() - {"name", "classes", "channels", "mean", "std"}:
        raise ValueError(f"its 'architecture' holds {brief(repr(min(strange)))}")


def check_training(run: Any, history: list[Any], classes: int) -> None:
    """Refuse what no training of ours records of itself.

    Args:
        run: JSON of what determined it.
        history: its epochs, JSON.
        classes: K.

    Raises:
        ValueError: something is missing, or of another kind.
    """
    for key in ("method", "preset", "variant"):
        of(run, key, str)
    of(run, "seed", int)
    of(run, "recipe", dict)
    of(of(run, "data", dict), "name", str)
    schedule = of(run, "schedule", dict)
    if of(schedule, "epochs", int) < 1:
        raise ValueError("its 'epochs' is below 1")
    if of(schedule, "selection", str) not in RULES:
        raise ValueError(f"its 'selection' is {brief(repr(schedule['selection']))}, which is no rule")
    try:
        parse_eps(of(schedule, "eps", str))
    except BenchError as problem:
        raise ValueError(str(problem)) from None
    for teacher in of(run, "teachers", dict).values():
        of(teacher, "checkpoint_id", str)
        of(teacher, "recipe_id", str)
    for row in history:
        check_epoch(row, classes)


def check_epoch(row: Any, classes: int) -> None:
    """Refuse what is no line of a history.

    Raises:
        ValueError: something is missing, or of another kind.
    """
    if of(row, "epoch", int) < 1 or of(row, "split", str) not in ("train", "valid"):
        raise ValueError(f"its history has epoch {row['epoch']} of {brief(repr(row['split']))}")
    n = counts(row, "n", classes)
    for key in ("hits_clean", "hits_adv"):
        if key in row and row[key] is None and row["split"] == "train":
            continue
        if any(hits > images for hits, images in zip(counts(row, key, classes), n, strict=True)):
            raise ValueError(f"its history has more {key!r} than images")
    if row["split"] == "valid" and not sum(n):
        raise ValueError("its history has a validation without images")


def counts(row: Any, key: str, classes: int) -> list[int]:
    """A number of each class.

    Raises:
        ValueError: it is none.
    """
    values: list[int] = of(row, key, list)
    if len(values) != classes or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"its history has {brief(repr(values))} as {key!r}, not a count of each of {classes} classes")
    return values
