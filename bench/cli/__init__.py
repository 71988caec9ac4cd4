"""The command. The only place that knows both halves; every verb imports what it needs when it is called.

Exit codes: 0 done, 1 the check found a regression or a cell of a study failed, 2 the input was wrong (one line says
what came, what was wanted and what to do), 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import typer

from bench.cli import evaluation, reading, registries, study, training
from bench.cli.console import Stopped
from bench.errors import BenchError
from bench.files import is_full

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="evenbench",
    help="Adversarial robustness, read class by class: train, attack, store, compare.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (study, training, evaluation, reading, registries):
    module.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given or ["--help"], standalone_mode=False)
    except typer.TyperException as problem:
        context = getattr(problem, "ctx", None)  # of the verb; typer exports no class for it
        path = context.command_path if context else "evenbench"
        return complain(f"{problem.format_message().rstrip('.')}; '{path} --help' shows how it is used")
    except BenchError as problem:
        return complain(str(problem))
    except Stopped as stopped:
        sys.stderr.write(f"\nevenbench: {stopped}\n")
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        if is_full(problem):
            return complain(f"no space left to write {problem.filename or 'a file'}; free some and run it again")
        if problem.errno in (errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            return complain(f"{problem.filename}: {problem.strerror}; choose another place or mend its permissions")
        raise
    if code == INTERRUPTED:  # typer answers Ctrl-C so, without a word
        sys.stderr.write("\nevenbench: interrupted\n")
    return code if isinstance(code, int) else 0


def complain(line: str) -> int:
    """Say on one line of standard error what is wrong; the exit code for wrong input."""
    sys.stderr.write(f"evenbench: {' '.join(line.split())}\n")
    return 2
