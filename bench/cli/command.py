"""The command. The only place that knows both halves; every verb imports what it needs when it is called.

Exit codes: 0 done, 1 the check found a regression or a cell of a study failed, 2 the input was wrong (one line says
what came, what was wanted and what to do), 130 interrupted by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from bench.cli import evaluation, reading, registries, study, training
from bench.cli.console import Stopped
from bench.cli.signals import asked_to_end, exit_code, say
from bench.errors import BRIEF, BenchError, brief, told, visible
from bench.files import is_full

app = typer.Typer(
    name="evenbench",
    help="Adversarial robustness, read class by class: train, attack, store, compare.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (study, training, evaluation, reading, registries):
    module.register(app)

DEBUG = "--debug"


@app.callback()
def common(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show where an error arose; anywhere on the line.")] = False,
) -> None:
    """What all verbs share; `answer` has taken the option from the line already."""


INTERRUPTED = 130
"""What typer answers after Ctrl-C, without a word."""


def answer(arguments: Sequence[str]) -> int:
    """Do what the arguments ask for; the exit code."""
    words = [word for word in arguments if word != DEBUG]
    try:
        code = app(args=words or ["--help"], standalone_mode=False)
    except Stopped as stopped:
        say(str(stopped))
        return exit_code()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except (Exception, SystemExit) as problem:
        if not asked_to_end():
            if DEBUG in arguments:
                traceback.print_exception(problem)
            return fault(problem)
        code = INTERRUPTED
    if code == INTERRUPTED:
        say("interrupted")
        return exit_code()
    return code if isinstance(code, int) else 0


def fault(problem: Exception | SystemExit) -> int:
    """Say on one line what is wrong; the exit code."""
    if isinstance(problem, typer.TyperException):
        context = getattr(problem, "ctx", None)  # of the verb; typer exports no class for it
        path = context.command_path if context else "evenbench"
        return complain(f"{problem.format_message().rstrip('.')}; '{path} --help' shows how it is used")
    if isinstance(problem, BenchError):
        return complain(str(problem))
    if isinstance(problem, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(problem, OSError):
        if is_full(problem):
            return complain(f"no space left to write {problem.filename or 'a file'}; free some and run it again")
        if problem.errno == errno.ENAMETOOLONG:
            return complain(f"{brief(str(problem.filename))}: no path may be so long; choose a shorter one")
        if problem.filename is not None and problem.strerror:
            at = brief(str(problem.filename))
            return complain(f"{at}: {problem.strerror}; choose another place or mend its permissions")
    if isinstance(problem, SystemExit):
        return complain(f"code that was loaded left by sys.exit({problem.code!r}); mend it, {DEBUG} shows where")
    return complain(f"{told(problem)}; a fault of evenbench or of code that it loaded, {DEBUG} shows where")


def complain(line: str) -> int:
    """Say on one line of standard error what is wrong; the exit code for wrong input."""
    words = (word if len(word) <= BRIEF else f"{word[:BRIEF]}..." for word in line.split())
    sys.stderr.write(f"evenbench: {visible(' '.join(words))}\n")
    return 2
