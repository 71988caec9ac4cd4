"""Compare: two entries, class by class, with the paired counts behind every difference.

What a single accuracy hides shows here: which classes pay for what the others gain, and on how many of the same
images the two really differ.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

from bench.errors import Incomparable
from bench.report.names import Entry, find
from bench.report.pairing import Counts, Meeting, Pairing, Side, pair
from bench.store.database import Store

CSV_HEADER = (
    "dataset",
    "split",
    "subset",
    "attack",
    "norm",
    "eps",
    "class",
    "class_name",
    "n",
    "accuracy_a",
    "accuracy_b",
    "difference",
    "both",
    "only_a",
    "only_b",
    "neither",
)
"""Columns of `Comparison.to_csv`; accuracies and differences are fractions."""


@dataclass(frozen=True)
class Comparison:
    """Two entries on everything they share.

    Attributes:
        pairing: the entries and the counts.
    """

    pairing: Pairing

    @property
    def a(self) -> Entry:
        """The first entry."""
        return self.pairing.a

    @property
    def b(self) -> Entry:
        """The second entry."""
        return self.pairing.b

    @property
    def meetings(self) -> tuple[Meeting, ...]:
        """One per data set and attack; clean first."""
        return self.pairing.meetings

    @property
    def labels(self) -> tuple[str, str]:
        """What to call the two in a table: as short as tells them apart."""
        a, b = self.a, self.b
        if a.name != b.name:
            return a.name, b.name
        return (a.spelled, b.spelled) if a.spelled != b.spelled else (f"{a.spelled} (A)", f"{b.spelled} (B)")

    @property
    def header(self) -> tuple[str, ...]:
        """Column heads of `rows`; percentages, and percentage points for the difference."""
        a, b = self.labels
        return ("class", "n", f"{a} %", f"{b} %", "difference", "both right", f"only {a}", f"only {b}", "neither")

    def rows(self, meeting: Meeting) -> list[tuple[str, ...]]:
        """One row of text per class with samples, then all classes, the worst class and the NSD.

        Differences are second minus first: in percentage points, and for the NSD as it is.
        """
        named = zip(meeting.class_names, meeting.classes, strict=True)
        a, b = meeting.a, meeting.b
        return [
            *(_row(name, counts) for name, counts in named if counts.n),
            _row("all", meeting.total),
            (
                "worst class",
                "",
                f"{100 * a.worst_accuracy:.1f} ({a.worst_class})",
                f"{100 * b.worst_accuracy:.1f} ({b.worst_class})",
                f"{100 * (b.worst_accuracy - a.worst_accuracy):+.1f}",
                *[""] * 4,
            ),
            ("NSD", "", _figure(a.nsd, ".3f"), _figure(b.nsd, ".3f"), _figure(b.nsd - a.nsd, "+.3f"), *[""] * 4),
        ]

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers: seeds, and what only one of the two was evaluated on."""
        a, b = self.labels
        said = []
        if any(len(meeting.pairs) > 1 for meeting in self.meetings):
            said.append(
                "Counts are summed over training seeds, paired by seed; worst class and NSD are means over seeds."
            )
        if self.pairing.unpaired:
            said.append(f"Left out, as the other has no such seed: {', '.join(self.pairing.unpaired)}.")
        for label, titles in ((a, self.pairing.only_a), (b, self.pairing.only_b)):
            if titles:
                said.append(f"Only {label} was evaluated on: {', '.join(titles)}.")
        return said

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; fractions for accuracies, None for what is no number."""
        return {
            "a": describe(self.a),
            "b": describe(self.b),
            "meetings": [_as_dict(meeting) for meeting in self.meetings],
            "only_a": list(self.pairing.only_a),
            "only_b": list(self.pairing.only_b),
            "unpaired": list(self.pairing.unpaired),
        }

    def to_markdown(self) -> str:
        """A heading and a table per attack."""
        parts = [f"# {self.labels[0]} and {self.labels[1]}, class by class\n"]
        for meeting in self.meetings:
            lines = [self.header, ("---", *["---:"] * (len(self.header) - 1)), *self.rows(meeting)]
            parts.append(f"## {meeting.title}\n")
            parts.append("\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines) + "\n")
        parts.extend(f"{note}\n" for note in self.notes())
        return "\n".join(parts)

    def to_csv(self) -> str:
        """One line per attack and class, under CSV_HEADER; `class` is empty where all classes are meant."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(CSV_HEADER)
        for meeting in self.meetings:
            head = (meeting.dataset, meeting.split, meeting.subset, meeting.attack, meeting.norm, meeting.eps_exact)
            for index, (name, counts) in enumerate(zip(meeting.class_names, meeting.classes, strict=True)):
                if counts.n:
                    writer.writerow((*head, index, name, *_numbers(counts)))
            writer.writerow((*head, "", "all", *_numbers(meeting.total)))
        return out.getvalue()


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
    return Comparison(pairing)


def describe(entry: Entry) -> dict[str, Any]:
    """An entry, ready for JSON."""
    return {
        "name": entry.name,
        "method": entry.method,
        "variant": entry.variant,
        "preset": entry.preset,
        "model": entry.model,
        "trained_on": entry.trained_on,
        "selection": entry.selection,
        "recipe_id": entry.recipe_id,
        "checkpoints": [{"checkpoint_id": one.checkpoint_id, "seed": one.seed} for one in entry.members],
    }


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
        names = ("n", "accuracy_a", "accuracy_b", "difference", "both", "only_a", "only_b", "neither")
        return dict(zip(names, _numbers(counts), strict=True))

    def side(figures: Side) -> dict[str, Any]:
        return {**vars(figures), "nsd": None if math.isnan(figures.nsd) else figures.nsd}

    return {
        "dataset": meeting.dataset,
        "split": meeting.split,
        "subset": meeting.subset,
        "dataset_id": meeting.dataset_id,
        "attack": meeting.attack,
        "attack_id": meeting.attack_id,
        "norm": meeting.norm,
        "eps": meeting.eps_exact,
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


def _escaped(cells: str) -> str:
    return cells.replace("|", "\\|")
