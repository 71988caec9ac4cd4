"""The command's door: it answers to Ctrl-C and SIGTERM before it imports anything else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from bench.cli.signals import gently


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave the process with its exit code."""
    sys.exit(gently(partial(run, arguments)))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code (see `command.py`)."""
    from bench.cli.command import answer
    from bench.cli.console import legible

    legible()
    return answer(sys.argv[1:] if arguments is None else arguments)
