"""What the soundness checks found of an entry, for the verb `soundness`: should its figures be believed?

A check that fails says that the robust accuracy is probably too high, or that something else was measured than was
meant; one that warns, that a person should look. Checks that could not be run say why.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from bench.errors import BadStore
from bench.report.names import Entry, find
from bench.report.tables import MISSING, Table, text_table
from bench.store.database import Store
from bench.verdict import Verdict

_HEADER = ("check", "value", "threshold", "verdict", "n", "detail")
_GRAVITY = ("fail", "warn", "pass", "not-run")


@dataclass(frozen=True)
class Checked:
    """All checks of one checkpoint on one data set within one budget.

    Attributes:
        checkpoint: as the board shows it, with model and seed.
        checkpoint_id: its identity.
        data: the samples in words.
        dataset_id: their identity.
        norm: norm of the budget; "none" for checks that no threat is part of.
        eps_exact: its radius; "0" likewise.
        verdicts: the gravest first, then by name.
    """

    checkpoint: str
    checkpoint_id: str
    data: str
    dataset_id: str
    norm: str
    eps_exact: str
    verdicts: tuple[Verdict, ...]

    def table(self) -> Table:
        """One row per check."""
        threat = "whatever the threat" if self.norm == "none" else f"{self.norm} eps {self.eps_exact}"
        rows = (
            (one.name, _figure(one.value), _figure(one.threshold), one.verdict, str(one.n), one.detail)
            for one in self.verdicts
        )
        title = f"{self.checkpoint}, {threat}, on {self.data}"
        return text_table(title, _HEADER, rows, words=("verdict", "detail"))


@dataclass(frozen=True)
class Soundness:
    """What the checks found of the checkpoints of an entry.

    Attributes:
        entry: the checkpoints.
        checked: by checkpoint, data set and budget; those that no threat is part of first.
    """

    entry: Entry
    checked: tuple[Checked, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that fail, each once."""
        return tuple(sorted({one.name for each in self.checked for one in each.verdicts if one.verdict == "fail"}))

    @property
    def sentence(self) -> str:
        """The outcome in a line."""
        if not self.failed:
            return f"{self.entry.spelled}: no soundness check fails"
        return (
            f"{self.entry.spelled} fails {', '.join(self.failed)}: do not trust its figures before the reason is known"
        )

    @property
    def exit_code(self) -> int:
        """0 if no check fails, else 1."""
        return 1 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        """For a program."""
        return {
            "entry": self.entry.spelled,
            "failed": list(self.failed),
            "exit_code": self.exit_code,
            "examinations": [asdict(one) for one in self.checked],
        }


def soundness(store: Store, text: str) -> Soundness:
    """What the checks found of the entry that `text` calls.

    Args:
        store: the database.
        text: as `bench.report.names.find` understands it: a method as the board shows it, or an id.

    Raises:
        UnknownName: nothing is called that.
        AmbiguousName: more than one entry is.
        BadStore: no check of it is recorded.
    """
    entry = find(store, text)
    found = store.rows(
        """
        SELECT checkpoint_id, dataset_id, coalesce(concat_ws(' ', d.name, d.split, nullif(d.subset, '')), dataset_id),
               norm, eps_exact, check_name, value, threshold, verdict, c.n, detail, version
        FROM checks c LEFT JOIN datasets d USING (dataset_id)
        WHERE checkpoint_id IN (SELECT unnest(?))
        ORDER BY checkpoint_id, 3, dataset_id, norm != 'none', norm, eps_exact, check_name
        """,
        [[member.checkpoint_id for member in entry.members]],
    )
    if not found:
        raise BadStore(f"no soundness check of {entry.spelled} is recorded; 'evenbench evaluate' runs them")
    spelled = {member.checkpoint_id: entry.spell(member) for member in entry.members}
    place = {member.checkpoint_id: number for number, member in enumerate(entry.members)}
    checked = [
        Checked(spelled[checkpoint], checkpoint, data, dataset_id, norm, eps, _gravest_first(rows))
        for (checkpoint, dataset_id, data, norm, eps), rows in groupby(found, key=lambda row: row[:5])
    ]
    return Soundness(entry, tuple(sorted(checked, key=lambda one: place[one.checkpoint_id])))


def _gravest_first(rows: Any) -> tuple[Verdict, ...]:
    verdicts = [Verdict(*row[5:]) for row in rows]
    return tuple(sorted(verdicts, key=lambda one: (_GRAVITY.index(one.verdict), one.name)))


def _figure(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}"
