"""What of the papers' claims can be seen in a study of several seeds: differences with intervals, as a page.

    python results/claims.py results/digits/bench.duckdb results/digits/claims.md

Every line compares two entries seed by seed: the mean of the differences and its 95 % interval by Student's t over the
seeds. A claim is called seen where the whole interval lies on the claimed side of zero. Intervals are those of single
comparisons; with 95 % each, one in twenty of those without any effect will exclude zero.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from bench.store.database import Store

ATTACK = "autoattack"
LEVEL = 0.95
INTRODUCTION = """# Which claims can be seen on the digits

{entries} entries, {seeds} seeds each, 719 test images of 8x8 pixels in 10 classes, Linf eps 0.15. Students are
convnet-6, the teachers convnet-16. Differences are in percentage points (NSD: as it is), entry minus the other, paired
by seed, with a 95 % interval by Student's t over the seeds; "seen" means that the whole interval lies on the claimed
side of zero. The intervals are not corrected for their number. Written by results/claims.py.

What this does and does not mean: losses, targets and states are the papers', data and networks are not. A class has
about 72 test images, so its accuracy moves in steps of 1.4 points; the held-out tenth, on which epochs are followed,
has 11 a class. A claim that is seen here holds for small convnets on digits; one that is not seen is not refuted for
CIFAR-10 and a ResNet-18. Settings for the digits were set by hand in a few trials, not searched method by method."""

Figures = Mapping[tuple[str, int], float]
"""A figure by entry and seed; an entry is a method and its variant."""


@dataclass(frozen=True)
class Measure:
    """Something that every entry has once a seed."""

    name: str
    unit: float
    digits: int
    query: str


def judged(name: str, column: str, unit: float, digits: int) -> Measure:
    """A column of the view `summary` under the attack."""
    query = f"SELECT method, variant, seed, {column} FROM summary WHERE attack = '{ATTACK}' ORDER BY ALL"
    return Measure(name, unit, digits, query)


ACCURACY = judged("AutoAttack accuracy", "accuracy", 100, 2)
WORST = judged("worst class under AutoAttack", "worst_accuracy", 100, 2)
NSD = judged("NSD under AutoAttack", "nsd", 1, 4)
GAP = Measure(
    "best minus last epoch, held-out PGD-10 accuracy",
    100,
    2,
    f"""
    WITH by_epoch AS (
        SELECT checkpoint_id, epoch, sum(hits_adv) / sum(n) AS robust FROM epochs
        WHERE split = 'valid' AND checkpoint_id IN (SELECT checkpoint_id FROM summary WHERE attack = '{ATTACK}')
        GROUP BY ALL
    )
    SELECT method, variant, seed, max(robust) - arg_max(robust, e.epoch)
    FROM by_epoch e JOIN checkpoints USING (checkpoint_id) GROUP BY ALL ORDER BY ALL
    """,
)


@dataclass(frozen=True)
class Claim:
    """A paper's claim as comparisons: which entry against which, in what, and which way it should go."""

    text: str
    pairs: tuple[tuple[str, str], ...]
    measures: tuple[tuple[Measure, int], ...]
    """With +1 where the first entry should have more, -1 where less, 0 where the paper says nothing."""


CLAIMS = (
    Claim(
        "RSLAD: a small student learns more robustness from a robust teacher's soft labels than from hard labels",
        (("rslad", "pgd-at"), ("rslad", "trades"), ("rslad", "ard")),
        ((ACCURACY, 1), (WORST, 0)),
    ),
    Claim(
        "ABSLD: class-wise temperatures lower NSD and lift the worst class against RSLAD",
        (("absld", "rslad"), ("absld targets.as_released=true", "rslad")),
        ((NSD, -1), (WORST, 1), (ACCURACY, 0)),
    ),
    Claim(
        "ADR: annealed self-distillation lifts robust accuracy and shrinks the gap between best and last epoch",
        (("adr", "pgd-at"), ("adr+wa", "wa"), ("adr+awp", "awp"), ("trades+adr", "trades")),
        ((ACCURACY, 1), (GAP, -1)),
    ),
    Claim(
        "Robust fairness: the worst class gains, at some cost of the average",
        (
            ("cfa", "pgd-at"),
            ("trades+cfa", "trades"),
            ("pgd-at+dafa", "pgd-at"),
            ("dafa", "trades"),
            ("wat", "trades"),
            ("bat", "trades"),
            ("frl", "pgd-at"),
            ("frl budget.remargin=0,budget.slack=0.1", "pgd-at"),
            ("faal", "pgd-at"),
            ("fair-ard", "ard"),
            ("fair-rslad", "rslad"),
            ("absld", "rslad"),
        ),
        ((WORST, 1), (ACCURACY, 0), (NSD, -1)),
    ),
)


def figures(store: Store, measure: Measure) -> Figures:
    """The measure of every entry and seed."""
    rows = store.rows(measure.query)
    return {(f"{method} {variant}".strip(), seed): value for method, variant, seed, value in rows}


def paired(found: Figures, first: str, second: str) -> npt.NDArray[np.float64]:
    """(S,) differences, one for every seed that both entries have."""
    seeds = sorted({seed for entry, seed in found if entry == first} & {seed for e, seed in found if e == second})
    return np.array([found[first, seed] - found[second, seed] for seed in seeds])


def interval(differences: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean difference and the ends of its interval; NaN where there are fewer than two."""
    mean, n = float(np.mean(differences)), len(differences)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * stats.sem(differences)) if n > 1 else float("nan")
    return mean, mean - half, mean + half


def verdict(low: float, high: float, wanted: int) -> str:
    """What an interval says about a claim."""
    if not low <= high:
        return "too few seeds"
    if low <= 0 <= high:
        return "not seen" if wanted else "no difference seen"
    side = 1 if low > 0 else -1
    if not wanted:
        return "higher" if side > 0 else "lower"
    return "seen" if side == wanted else "the opposite"


def page(store: Store) -> str:
    """All claims as Markdown."""
    tables = {measure: figures(store, measure) for measure in (ACCURACY, WORST, NSD, GAP)}
    entries, seeds = map(set, zip(*tables[ACCURACY], strict=True))
    parts = [INTRODUCTION.format(entries=len(entries), seeds=len(seeds))]
    for claim in CLAIMS:
        rows = ["| entry | against | measure | difference | 95 % interval | seeds | |", "|---|---|---|---|---|---|---|"]
        for first, second in claim.pairs:
            for measure, wanted in claim.measures:
                differences = measure.unit * paired(tables[measure], first, second)
                if not len(differences):
                    continue
                mean, low, high = interval(differences)
                shown = f"{mean:+.{measure.digits}f} | {low:+.{measure.digits}f} to {high:+.{measure.digits}f}"
                word = verdict(low, high, wanted)
                rows.append(f"| {first} | {second} | {measure.name} | {shown} | {len(differences)} | {word} |")
        parts.append("\n".join([f"## {claim.text}", "", *rows]))
    return "\n\n".join(parts) + "\n"


def main(database: Path, out: Path) -> None:
    """Write the page."""
    out.write_text(page(Store(database)), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
