"""Everything that can be wrong with what a user gave us, as one tree.

    BenchError                 a person can mend it; the command prints one line and exits 2
    ├── UnknownName            no method, attack, data set, model, suite, field or column is called that
    ├── AmbiguousName          a name that fits more than one thing
    ├── BadRecipe              a recipe, schedule or override that cannot be
    ├── BadData                a data set that cannot be read or does not hold together
    ├── BadModel               a model that does not answer as a classifier should
    ├── BadCheckpoint          a file that is no checkpoint, or does not fit
    ├── BadStudy               a study file that cannot be run
    ├── BadBudget              an eps or norm that is none
    ├── BadOption              an option outside its range
    ├── BadAttack              an attack that fails, or changes the model that it was shown
    │   └── OutOfBudget        it left its ball or the image box
    ├── TimedOut               a model or an attack that was not heard of for too long
    ├── Diverged               training reached a loss that is not a number
    ├── BadStore               a database or bundle that is damaged, foreign, newer or read-only
    │   ├── StoreBusy          another process holds the database
    │   └── BadQuery           SQL that cannot be answered, or would write
    ├── BadPlace               a file or folder that cannot be written there
    ├── DiskFull               a file could not be written for want of space
    └── Incomparable           nothing that two entries share can be compared

A message says what came, what was wanted and what to do, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

BRIEF = 200
"""Characters of what others said that a message repeats."""


class BenchError(Exception):
    """Root of every error that a user can mend."""


def brief(text: str) -> str:
    """A text on one line, cut where it gets long."""
    line = " ".join(text.split())
    return line if len(line) <= BRIEF else f"{line[:BRIEF]}..."


def visible(text: str) -> str:
    """A text with escapes for what a terminal would obey, or not show: control and bidirectional marks and the like."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )


def told(problem: BaseException) -> str:
    """What somebody else's code raised, by its kind and its words."""
    return f"{type(problem).__name__}: {said}" if (said := brief(str(problem))) else type(problem).__name__


class UnknownName(BenchError):
    """A name that is in no registry."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], see: str = "") -> UnknownName:
        """The error for `name`, with the nearest known name and where to see them all.

        Args:
            kind: what was looked for, as a noun ("method").
            name: what came.
            known: every name that would have been right.
            see: what to run or read to see them ("'evenbench list methods'").
        """
        names = sorted(known)
        near = difflib.get_close_matches(name[:BRIEF], names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        listing = f"{see} shows all {len(names)}" if see else f"known: {', '.join(names) or 'none'}"
        return cls(f"no {kind} is called {brief(repr(name))}{hint or ';'} {listing}")


class AmbiguousName(BenchError):
    """A name that fits more than one thing."""


class BadRecipe(BenchError):
    """A recipe, schedule or override that cannot be."""


class BadData(BenchError):
    """A data set that cannot be read or does not hold together."""


class BadModel(BenchError):
    """A model that does not answer as a classifier should."""


class BadCheckpoint(BenchError):
    """A file that is no checkpoint, or does not fit what was asked."""


class BadStudy(BenchError):
    """A study file that cannot be run."""


class BadBudget(BenchError):
    """An eps or a norm that is none."""


class BadOption(BenchError):
    """An option outside its range, such as a level of significance above 1."""


class BadAttack(BenchError):
    """An attack that fails, returns something else than images, or changes the model that it was shown."""


class OutOfBudget(BadAttack):
    """An attack returned an image outside its ball or outside [0, 1]."""


class TimedOut(BenchError):
    """A model or an attack that was not heard of for too long."""


class Diverged(BenchError):
    """Training reached a loss that is not a number."""


class BadStore(BenchError):
    """A database or an exported bundle that is damaged, foreign, newer or read-only."""


class StoreBusy(BadStore):
    """Another process holds the database."""


class BadQuery(BadStore):
    """SQL that cannot be answered, or that would write."""


class BadPlace(BenchError):
    """A file or folder that cannot be written where it should be."""


class DiskFull(BenchError):
    """A file could not be written for want of space."""


class Incomparable(BenchError):
    """Nothing that two entries share can be compared."""
