"""What came out of an evaluation, for the verb that ran it. Reads the database; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.console import stdout
from bench.cli.reading import give, tell
from bench.report.formats import json_text
from bench.report.tables import Table, text_table

if TYPE_CHECKING:
    from bench.store.database import Store
    from bench.verdict import Verdict

_HEADER = ("attack", "accuracy %", "worst class %", "NSD")
FIGURES = ("norm", "eps_exact", "n", "accuracy", "worst_class", "worst_accuracy", "nsd")


@dataclass(frozen=True)
class Summary:
    """One network's figures under some attacks.

    Attributes:
        target: as the user named it.
        checkpoint_id: its identity.
        data: data set, split and subset in words.
        attacks: `FIGURES` under each attack, by the order they were asked for; and its name, as `attack`.
        best_known: `FIGURES` of the AND over all attacks ever run within the same budgets; how many, as `attacks`.
        checks: what the soundness checks found within those budgets.
    """

    target: str
    checkpoint_id: str
    data: str
    attacks: list[dict[str, Any]]
    best_known: list[dict[str, Any]]
    checks: list[Verdict]

    def table(self) -> Table:
        """A row per attack, the best known last, where there is more than one attack to know it from."""
        named = [(entry["attack"] + threat(entry), entry) for entry in self.attacks]
        named += [
            (f"best known{threat(entry)}, {entry['attacks']} attacks", entry)
            for entry in self.best_known
            if entry["attacks"] > 1
        ]
        rows = [
            (
                name,
                f"{100 * entry['accuracy']:.2f}",
                f"{100 * entry['worst_accuracy']:.2f} ({entry['worst_class']})",
                "" if entry["nsd"] is None else f"{entry['nsd']:.3f}",
            )
            for name, entry in named
        ]
        return text_table(f"{self.target} on {self.data}", _HEADER, rows)


def threat(entry: Mapping[str, Any]) -> str:
    """The budget in words, with a space before it; nothing where there is none."""
    return "" if entry["norm"] == "none" else f" {entry['norm']} {entry['eps_exact']}"


def summarised(store: Store, target: str, checkpoint_id: str, dataset_id: str, attack_ids: Sequence[str]) -> Summary:
    """What the database says of a network under these attacks."""
    figures, place = ", ".join(FIGURES), [checkpoint_id, dataset_id]
    mine = "WHERE (checkpoint_id, dataset_id) = (?, ?)"
    under = {
        attack_id: dict(zip(("attack", *FIGURES), row, strict=True))
        for attack_id, *row in store.rows(f"SELECT attack_id, attack, {figures} FROM summary {mine}", place)
    }
    attacks = [under[attack_id] for attack_id in attack_ids if attack_id in under]
    budgets = dict.fromkeys((entry["norm"], entry["eps_exact"]) for entry in attacks)
    known = [
        dict(zip(("attacks", *FIGURES), row, strict=True))
        for row in store.rows(f"SELECT attacks, {figures} FROM best_known_summary {mine} ORDER BY norm, eps", place)
    ]
    ((name, split, subset),) = store.rows("SELECT name, split, subset FROM datasets WHERE dataset_id = ?", [dataset_id])
    return Summary(
        target,
        checkpoint_id,
        f"{name} {split}" + (f" ({subset})" if subset else ""),
        attacks,
        [entry for entry in known if (entry["norm"], entry["eps_exact"]) in budgets],
        [verdict for budget in budgets for verdict in store.verdicts(checkpoint_id, dataset_id, *budget)],
    )


def tell_evaluations(found: Sequence[Summary], db: Path, *, as_json: bool) -> None:
    """Show what came out, network by network, with the checks that do not pass."""
    if as_json:
        facts = {"database": str(db), "evaluations": [asdict(summary) for summary in found]}
        give(json_text(facts))
        return
    for summary in found:
        tell(summary.table())
        for verdict in summary.checks:
            if verdict.verdict in ("fail", "warn"):
                stdout().print(f"check {verdict.name}: {verdict.verdict}, {verdict.detail}", markup=False)
    stdout().print(f"stored in {db}; 'evenbench leaderboard --db {db}' shows it", markup=False, soft_wrap=True)
