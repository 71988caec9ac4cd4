"""Options that several verbs share, spelled once, and what they stand for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import BadRecipe

Db = Annotated[Path, typer.Option("--db", help="Database to use.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
Dataset = Annotated[
    str,
    typer.Option(
        "--dataset", help="A name ('evenbench list datasets'), a Parquet path or glob, hub:owner/name, or a folder."
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...; auto takes CUDA when it is there.")]
Precision = Annotated[str, typer.Option("--precision", help="fp32 or bf16.")]
DEFAULT_DB = Path("results/bench.duckdb")
PATIENCE = 600.0
"""Seconds that a verb waits for the database which would write to it."""
READERS = 60.0
"""Seconds that the others do."""


def device_of(name: str) -> str:
    """The device that a name means here.

    Raises:
        BadRecipe: it is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise BadRecipe(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise BadRecipe(f"device {name!r} cannot be used ({str(problem).splitlines()[0]}); use cpu or auto") from None
    return name


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
