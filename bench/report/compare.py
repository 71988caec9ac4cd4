"""Compare: two entries, class by class, with the paired counts behind every difference.

What a single accuracy hides shows here: which classes pay for what the others gain, and on how many of the same
images the two really differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bench.errors import Incomparable, UnknownName
from bench.report.formats import csv_text, inline, markdown
from bench.report.names import Entry, find
from bench.report.pairing import Counts, Meeting, Pairing, Side, pair
from bench.report.tables import Table, text_table
from bench.store.database import Store

_COUNTED = ("n", "accuracy_a", "accuracy_b", "difference", "both", "only_a", "only_b", "neither")
CSV_HEADER = ("dataset", "split", "subset", "attack", "norm", "eps", "class", "class_name", *_COUNTED)
"""Columns of `Comparison.to_csv`; accuracies and differences are fractions."""


@dataclass(frozen=True)
class Comparison(Pairing):
    """Two entries on everything they share, ready to be shown; there is at least one meeting."""

    @property
    def labels(self) -> tuple[str, str]:
        """What to call the two in a table: as short as tells them apart."""
        a, b = self.a, self.b
        if a.name != b.name:
            return a.name, b.name
        return (a.spelled, b.spelled) if a.spelled != b.spelled else (f"{a.spelled} (A)", f"{b.spelled} (B)")

    def under(self, attack: str | None) -> tuple[Meeting, ...]:
        """The meetings under one attack, called by its name or the beginning of its fingerprint; None for all.

        Raises:
            UnknownName: the two met under no attack called so.
        """
        found = tuple(meeting for meeting in self.meetings if attack is None or meeting.is_under(attack))
        if not found:
            raise UnknownName.among("attack of both", attack or "", {meeting.attack for meeting in self.meetings})
        return found

    def table(self, meeting: Meeting) -> Table:
        """One row per class with samples, then all classes, the worst class and the NSD.

        Accuracies are in percent. Differences are second minus first: in percentage points, and for the NSD as it is.
        """
        one, other = self.labels
        header = ("class", "n", f"{one} %", f"{other} %", "difference")
        counted = ("both right", f"only {one}", f"only {other}", "neither")
        named = zip(meeting.class_names, meeting.classes, strict=True)
        a, b = meeting.a, meeting.b
        rows = [
            *(_row(name, counts) for name, counts in named if counts.n),
            _row("all", meeting.total),
            (
                *("worst class", ""),
                f"{100 * a.worst_accuracy:.1f} ({a.worst_class})",
                f"{100 * b.worst_accuracy:.1f} ({b.worst_class})",
                f"{100 * (b.worst_accuracy - a.worst_accuracy):+.1f}",
                *[""] * len(counted),
            ),
            (
                *("NSD", ""),
                *(_figure(a.nsd, ".3f"), _figure(b.nsd, ".3f"), _figure(b.nsd - a.nsd, "+.3f")),
                *[""] * len(counted),
            ),
        ]
        return text_table(meeting.title, (*header, *counted), rows)

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers: seeds, and what only one of the two was evaluated on."""
        a, b = self.labels
        said = []
        if any(len(meeting.pairs) > 1 for meeting in self.meetings):
            said.append(
                "Counts are summed over training seeds, paired by seed; worst class and NSD are means over seeds."
            )
        if self.unpaired:
            said.append(f"Left out, as the other has no such seed: {', '.join(self.unpaired)}.")
        for label, titles in ((a, self.only_a), (b, self.only_b)):
            if titles:
                said.append(f"Only {label} was evaluated on: {', '.join(titles)}.")
        return said

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; fractions for accuracies, None for what is no number."""
        return {
            "a": describe(self.a),
            "b": describe(self.b),
            "meetings": [_as_dict(meeting) for meeting in self.meetings],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "unpaired": list(self.unpaired),
        }

    def to_markdown(self) -> str:
        """A heading and a table per attack."""
        parts = [f"# {inline(self.labels[0])} and {inline(self.labels[1])}, class by class"]
        for meeting in self.meetings:
            parts += [f"## {inline(meeting.title)}", markdown(self.table(meeting))]
        return "\n\n".join([*parts, *map(inline, self.notes())]) + "\n"

    def to_csv(self) -> str:
        """One line per attack and class, under CSV_HEADER; `class` is empty where all classes are meant."""
        rows: list[tuple[object, ...]] = []
        for meeting in self.meetings:
            head = (meeting.dataset, meeting.split, meeting.subset, meeting.attack, meeting.norm, meeting.eps_exact)
            for index, (name, counts) in enumerate(zip(meeting.class_names, meeting.classes, strict=True)):
                if counts.n:
                    rows.append((*head, index, name, *_numbers(counts)))
            rows.append((*head, None, "all", *_numbers(meeting.total)))
        return csv_text(CSV_HEADER, rows)


def compare(store: Store, a: str, b: str) -> Comparison:
    """Compare two entries class by class, on clean images and under every attack that both met.

    Args:
        store: where their outcomes are.
        a: the first entry, in any spelling that `bench.report.names.find` understands.
        b: the second; differences are b minus a.

    Raises:
        UnknownName: nothing is called `a` or `b`.
        AmbiguousName: more than one entry is.
        Incomparable: no complete evaluation of both is on the same data under the same attack, or the two have several
            seeds and none in common.
    """
    pairing = pair(store, find(store, a), find(store, b))
    if not pairing.meetings:
        raise Incomparable(pairing.reason)
    return Comparison(**vars(pairing))


def describe(entry: Entry) -> dict[str, Any]:
    """An entry, ready for JSON."""
    facts = {name: value for name, value in vars(entry).items() if name not in ("members", "chosen")}
    return {"name": entry.name, **facts, "checkpoints": [vars(member) for member in entry.members]}


def _row(name: str, counts: Counts) -> tuple[str, ...]:
    return (
        name,
        str(counts.n),
        f"{100 * counts.accuracy_a:.1f}",
        f"{100 * counts.accuracy_b:.1f}",
        f"{100 * counts.difference:+.1f}",
        *(str(value) for value in (counts.both, counts.only_a, counts.only_b, counts.neither)),
    )


def _numbers(counts: Counts) -> tuple[float, ...]:
    return (
        counts.n,
        counts.accuracy_a,
        counts.accuracy_b,
        counts.difference,
        counts.both,
        counts.only_a,
        counts.only_b,
        counts.neither,
    )


def _as_dict(meeting: Meeting) -> dict[str, Any]:
    def counted(counts: Counts) -> dict[str, Any]:
        return dict(zip(_COUNTED, _numbers(counts), strict=True))

    def side(figures: Side) -> dict[str, Any]:
        return {**vars(figures), "nsd": None if math.isnan(figures.nsd) else figures.nsd}

    return {
        **meeting.as_dict(),
        "seeds": [[pair.a.seed, pair.b.seed] for pair in meeting.pairs],
        "classes": [
            {"class": index, "class_name": name, **counted(counts)}
            for index, (name, counts) in enumerate(zip(meeting.class_names, meeting.classes, strict=True))
            if counts.n
        ],
        "total": counted(meeting.total),
        "a": side(meeting.a),
        "b": side(meeting.b),
    }


def _figure(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
