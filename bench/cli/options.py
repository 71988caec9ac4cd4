"""Options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
