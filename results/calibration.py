"""Whether intervals cover and verdicts err as they promise: by simulation, and on the digits study's own seeds.

    python results/calibration.py results/digits/bench.duckdb results/calibration-of-statistics.md

Everything is drawn from fixed seeds, so that the page comes out again; about six minutes on one core.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.report import metrics
from bench.report.changes import Change, changes
from bench.report.inference import fairness, proportion, sequential, worst
from bench.report.inference.crossed import accuracy, class_accuracies, components
from bench.report.inference.paired import mcnemar, tango
from bench.report.margins import Margins, judged
from bench.report.names import Member, find
from bench.report.pairing import Setting
from bench.report.trials import Side, Trials, meet
from bench.store.database import Store

Correct = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

LEVEL = 0.05
PROFILES: dict[str, tuple[float, ...]] = {
    "equal classes": (0.7,) * 10,
    "one class far below": (0.8,) * 9 + (0.4,),
    "evenly spread": tuple(np.linspace(0.5, 0.95, 10)),
    "pgd-at on the digits": (0.96, 0.64, 0.89, 0.69, 0.84, 0.87, 0.92, 0.82, 0.42, 0.64),
    "CIFAR-10, as published": (0.58, 0.72, 0.34, 0.23, 0.36, 0.37, 0.60, 0.58, 0.67, 0.62),
}
SEEDS = (1, 3, 5, 10)
SIZES = (719, 1000, 10000)
SPREADS = (0.0, 0.003, 0.015)
DRAWS = {719: 180, 1000: 80, 10000: 50}
"""Of every profile."""
SHARED, OWN = 0.55, 0.3
"""Of the fates of an image, the shares that all networks have in common and that those of one method do: two methods
then disagree on about as many images as on the digits."""
BLOCKS = 0.42
"""Correlation of the seed effects of two methods trained from the same seeds, as on the digits."""
EASIER = (0.0, 0.04, 0.08)
"""What three attacks leave, the strongest first: accuracy above that of the world."""
FLIPS = 1000
"""Of the signs in a check; the command draws more."""


@dataclass(frozen=True)
class World:
    """Two methods, seeds and images of which as many as wanted can be drawn.

    Attributes:
        baseline: (K,) expected class accuracies.
        candidate: those of the other.
        spread: standard deviation of a seed's accuracy; every class has one of its own of twice that on top.
    """

    baseline: Vector
    candidate: Vector
    spread: float

    def networks(self, rng: np.random.Generator, seeds: int) -> tuple[Vector, Vector]:
        """(S,K) true class accuracies of networks of the candidate and of the baseline, seed by seed."""
        block = rng.standard_normal((seeds, 1))
        made = []
        for expected in (self.candidate, self.baseline):
            whole = BLOCKS**0.5 * block + (1 - BLOCKS) ** 0.5 * rng.standard_normal((seeds, 1))
            own = 2 * rng.standard_normal((seeds, len(expected)))
            made.append(np.clip(expected + self.spread * (whole + own), 0.0, 1.0))
        return made[0], made[1]

    def truth(self) -> tuple[Vector, Vector]:
        """The accuracies of many networks, of which the estimands are means."""
        return self.networks(np.random.default_rng(0), 20000)


def outcomes(
    rng: np.random.Generator,
    networks: tuple[Vector, Vector],
    labels: npt.NDArray[np.int64],
    easier: Sequence[float] = (0.0,),
) -> tuple[list[Correct], list[Correct]]:
    """(S,n) who was right about which image, under attacks that leave so much more; candidate's and baseline's."""
    n = len(labels)
    common = rng.random(n, dtype=np.float32)
    made: tuple[list[Correct], list[Correct]] = ([], [])
    for side, truths in zip(made, networks, strict=True):
        own = rng.random(n, dtype=np.float32)
        fate = rng.random((len(truths), n), dtype=np.float32)
        which = rng.random((len(truths), n), dtype=np.float32)
        fate = np.where(which < SHARED, common, np.where(which < SHARED + OWN, own, fate))
        side += [fate < np.clip(truths + more, 0, 1)[:, labels] for more in easier]
    return made


def labels_of(n: int, classes: int = 10) -> Labels:
    """(n,) classes in turn."""
    return np.arange(n) % classes


# Coverage of one network's figures


def single(n: int, profile: Vector, draws: int) -> dict[str, float]:
    """How often the intervals of one network cover, images random."""
    rng = np.random.default_rng([n, draws])
    counts = np.bincount(labels_of(n))
    hits = rng.binomial(counts, profile, (draws, len(profile)))
    low, high = proportion.wilson(hits[:, 0], counts[0])
    lowest_low, lowest_high = proportion.wilson(hits[np.arange(draws), (hits / counts).argmin(axis=1)], counts[0])
    ends = np.array([worst.interval(one, counts) for one in hits])
    spreads = np.array([fairness.interval(one / counts, counts) for one in hits])
    nsd = metrics.nsd(profile)
    return {
        "class": within(low, high, profile[0]),
        "worst class": within(ends[:, 0], ends[:, 1], profile.min()),
        "Wilson of the named worst": within(lowest_low, lowest_high, profile.min()),
        "NSD": within(spreads[:, 0] - 1e-12, spreads[:, 1], nsd),
    }


def within(low: npt.ArrayLike, high: npt.ArrayLike, truth: float) -> float:
    """Share of intervals that hold the truth."""
    return float(np.mean((np.asarray(low) <= truth) & (truth <= np.asarray(high))))


# Coverage of differences over seeds and images


def difference(seeds: int, n: int, spread: float, name: str, draws: int) -> dict[str, float]:
    """How often the intervals of the differences of two methods cover; of single networks, about these networks."""
    profile = np.array(PROFILES[name])
    other = np.clip(profile - np.where(np.arange(10) % 3 == 0, 0.06, -0.01), 0, 1)
    world = World(profile, other, spread)
    rng = np.random.default_rng([seeds, n, round(1000 * spread), list(PROFILES).index(name)])
    labels = labels_of(n)
    members = labels == np.arange(10)[:, None]
    counts = members.sum(axis=1).astype(np.float64)
    weights = counts / n
    many = world.truth()
    held: Counter[str] = Counter()
    for _ in range(draws):
        networks = world.networks(rng, seeds)
        (b,), (a,) = outcomes(rng, networks, labels)
        one, two = networks if seeds == 1 else many
        true = {
            "accuracy": float((one - two).mean(axis=0) @ weights),
            "class": float((one - two).mean(axis=0)[0]),
            "worst class": float(one.mean(axis=0).min() - two.mean(axis=0).min()),
            "NSD": float(_nsd(one) - _nsd(two)),
        }
        for figure, (low, high) in _intervals(b, a, members, counts).items():
            held[figure] += low - 1e-9 <= true[figure] <= high + 1e-9
    return {figure: count / draws for figure, count in sorted(held.items())}


def _nsd(networks: Vector) -> float:
    return float((networks.std(axis=1) / networks.mean(axis=1)).mean())


def _intervals(b: Correct, a: Correct, members: Correct, counts: Vector) -> dict[str, tuple[float, float]]:
    one, two = class_accuracies(b, members), class_accuracies(a, members)
    whole = components([accuracy(b) - accuracy(a)], [b.shape[1]]).estimate("method").interval(LEVEL)
    classes = components([one - two], counts).leaning(counts > 0).estimate("method").interval(LEVEL)
    if len(b) == 1:
        d = b[0].astype(int) - a[0]
        whole = tango((d < 0).sum(), (d > 0).sum(), d.size, LEVEL)
        classes = tango(*((members & (d == sign)).sum(axis=1) for sign in (-1, 1)), counts, LEVEL)
    spreads = fairness.figures(one, counts) - fairness.figures(two, counts)
    nsd = components([spreads], [b.shape[1]]).estimate("method").interval(LEVEL)
    lowest = worst.difference(one, two, counts, "method", paired=True).interval(LEVEL)
    return {
        "accuracy": (float(np.ravel(whole[0])[0]), float(np.ravel(whole[1])[0])),
        "class": (float(classes[0][0]), float(classes[1][0])),
        "worst class": lowest,
        "NSD": (float(nsd[0][0]), float(nsd[1][0])),
    }


# The gate


def trials(candidate: Sequence[Correct], baseline: Sequence[Correct], labels: Labels) -> list[Trials]:
    """What a check starts from, one for every attack."""

    def side(correct: Correct) -> Side:
        return Side(tuple(Member(str(seed), seed) for seed in range(len(correct))), correct)

    names = tuple(map(str, range(int(labels.max()) + 1)))
    made = []
    for at, (a, b) in enumerate(zip(baseline, candidate, strict=True)):
        setting = Setting("drawn", "test", "", "drawn", names, str(at), str(at), "Linf", "1")
        made.append(Trials(setting, labels, side(a), side(b), paired=True))
    return made


def is_worse(found: Sequence[Sequence[Change]], sense: int = 1) -> bool:
    """Whether a check would say worse; of the two exchanged where `sense` is -1."""
    margins = Margins()
    flipped = (one if sense > 0 else _exchanged(one) for row in found for one in row)
    return any(judged(one, margins.of(one.kind)) == "worse" for one in flipped)


def _exchanged(one: Change) -> Change:
    low, high = one.interval
    facts: dict[str, Any] = {**vars(one), "difference": -one.difference, "interval": (-high, -low)}
    return Change(**facts)


def gate(seeds: int, n: int, spread: float, drop: float, draws: int) -> tuple[float, float]:
    """How often a check says worse of a candidate with so much less accuracy, and how often McNemar would.

    The latter with the discordant images of all seeds taken together, under the strongest attack.
    """
    profile = np.array(PROFILES["pgd-at on the digits"])
    world = World(profile, profile - drop, spread)
    rng = np.random.default_rng([seeds, n, round(1000 * spread), round(1000 * drop)])
    labels = labels_of(n)
    worse, pooled = 0, 0
    for _ in range(draws):
        networks = world.networks(rng, seeds) if seeds > 1 else (world.candidate[None], world.baseline[None])
        b, a = outcomes(rng, networks, labels, EASIER)
        worse += is_worse(changes(trials(b, a, labels), "method", LEVEL, flips=FLIPS))
        won, lost = int((b[0] & ~a[0]).sum()), int((a[0] & ~b[0]).sum())
        pooled += mcnemar(lost, won) <= LEVEL and lost > won
    return worse / draws, pooled / draws


def splits(store: Store) -> tuple[int, int, Counter[str]]:
    """Checks of two seeds of an entry against two others of its own: how many there are, and which say worse."""
    names = [
        f"{method}[{variant}]" if variant else method
        for method, variant in store.rows(
            "SELECT DISTINCT method, variant FROM checkpoints WHERE seed = 1 ORDER BY ALL"
        )
    ]
    done, worse = 0, Counter[str]()
    for name in names:
        entry = find(store, name)
        if name == "natural" or len(entry.members) < 4:
            continue
        whole = meet(store, entry, entry).trials
        for first, second in _disjoint(len(entry.members)):
            found = changes([_some(one, first, second) for one in whole], "method", LEVEL, flips=FLIPS)
            done += 2
            worse[name] += is_worse(found) + is_worse(found, -1)
    return done, worse.total(), +worse


def _disjoint(seeds: int) -> Iterator[tuple[list[int], list[int]]]:
    for first in combinations(range(seeds), 2):
        for second in combinations(sorted(set(range(seeds)) - set(first)), 2):
            if first < second:
                yield list(first), list(second)


def _some(one: Trials, first: list[int], second: list[int]) -> Trials:
    def side(seeds: list[int]) -> Side:
        return Side(tuple(one.baseline.members[seed] for seed in seeds), one.baseline.correct[seeds])

    return Trials(one.setting, one.labels, side(first), side(second), paired=False)


# The page


INTRODUCTION = """# Whether the statistics keep what they promise

Intervals at 95 % and verdicts at a level of 5 %, on data drawn from a world that is known. Written by
results/calibration.py from fixed seeds; a share of {most} draws has a standard error of {most_error:.1f} points at
95 %, one of {fewest} of {fewest_error:.1f}.

In the world, methods have expected class accuracies (five profiles), a seed moves the accuracy of a network by a normal
effect with the standard deviation given and every class by one of its own with twice that, seeds of the two methods
correlate with {blocks}, and two networks share the fate of {shared:.0%} of the images, two of one method of {own:.0%}
more. What is estimated is the mean over seeds and images (question "method"); of single networks it is these networks
on other images (question "checkpoints")."""


def main(database: Path, out: Path) -> None:
    """Write the page."""
    out.write_text(page(Store(database)), encoding="utf-8")


def page(store: Store) -> str:
    """All tables as Markdown."""
    most, fewest = (len(PROFILES) * DRAWS[n] for n in (719, 10000))
    parts = [
        INTRODUCTION.format(
            most=most,
            fewest=fewest,
            most_error=100 * (0.95 * 0.05 / most) ** 0.5,
            fewest_error=100 * (0.95 * 0.05 / fewest) ** 0.5,
            blocks=BLOCKS,
            shared=SHARED,
            own=OWN,
        ),
        *_single_tables(),
        *_difference_tables(),
        *_gate_tables(),
        *_sequential_table(),
        *_split_table(store),
    ]
    return "\n\n".join(parts) + "\n"


SINGLE = 1000
"""Draws of one network."""


def single_row(n: int, name: str) -> list[str]:
    """A row of the table of one network."""
    found = single(n, np.array(PROFILES[name]), SINGLE)
    return [name, str(n), *(f"{100 * value:.1f}" for value in found.values())]


def _single_tables() -> list[str]:
    header = ["profile", "images", "class (Wilson)", "worst class", "Wilson of the named worst class", "NSD"]
    return [
        "## One network: how often its intervals cover, in percent",
        f"{SINGLE} draws a row. The named worst class is lower than it should be, so its own interval fails; that of "
        "`worst.interval` is made for whichever class is the worst.",
        table(header, [single_row(n, name) for n, name in product(SIZES, PROFILES)]),
    ]


def _difference_tables() -> list[str]:
    figures = ("accuracy", "class", "worst class", "NSD")
    rows, by_profile, lowest = [], defaultdict(list), 0.0
    for seeds, n, spread in product(SEEDS, SIZES, SPREADS):
        found = {name: difference(seeds, n, spread, name, DRAWS[n]) for name in PROFILES}
        for name, one in found.items():
            by_profile[name].append((DRAWS[n], one))
        means = [float(np.mean([one[figure] for one in found.values()])) for figure in figures]
        rows.append([str(seeds), str(n), f"{100 * spread:g}", *(f"{100 * mean:.1f}" for mean in means)])
        error = (0.94 * 0.06 / (len(PROFILES) * DRAWS[n])) ** 0.5
        lowest = min(lowest, *((mean - 0.94) / error for mean in means))
    merged = [
        [
            name,
            *(
                f"{100 * np.average([f[figure] for _, f in cells], weights=[w for w, _ in cells]):.1f}"
                for figure in figures
            ),
        ]
        for name, cells in by_profile.items()
    ]
    return [
        "## Two methods: how often the intervals of their differences cover, in percent",
        f"Over all five profiles; the candidate loses 6 points in four classes and gains one in the others. "
        f"{DRAWS[719]} draws a profile of 719 images, {DRAWS[1000]} of 1000, {DRAWS[10000]} of 10000: of the "
        f"{len(rows) * len(figures)} shares the lowest lies {-lowest:.1f} standard errors below 94.",
        table(["seeds", "images", "seed sd, points", *figures], rows),
        "The same by profile, over all rows above:",
        table(["profile", *figures], merged),
    ]


GATE = {719: 200, 10000: 30}
"""Draws of a check."""


def _gate_tables() -> list[str]:
    parts = []
    for drop, spreads, title, text in (
        (
            0.0,
            SPREADS,
            "worse, where nothing is",
            "Wanted: 5 at most; half is meant, as intervals have two ends.",
        ),
        (0.03, SPREADS[1:2], "worse, where the accuracy is 3 points lower everywhere", "The power of the check."),
    ):
        rows = []
        for n, seeds, spread in product(GATE, SEEDS, spreads):
            if (n == 10000 and seeds not in (3, 5)) or (seeds == 1 and spread != spreads[0]):
                continue
            found, pooled = gate(seeds, n, spread, drop, GATE[n])
            shown = f"{100 * spread:g}" if seeds > 1 else "of these networks"
            rows.append([str(seeds), str(n), shown, str(GATE[n]), f"{100 * found:.1f}", f"{100 * pooled:.1f}"])
        header = ["seeds", "images", "seed sd, points", "draws", "check", "McNemar, pooled over seeds, one attack"]
        parts += [f"## How often a check says {title}, in percent", text + _THINNED, table(header, rows)]
    return parts


_THINNED = (
    " Three attacks, 39 figures in one family, default margins. Thinned: 1000 images are so near to 719 that they are "
    "left out, and of 10000 there are only three and five seeds, where few seeds and little noise of the images make "
    "errors likeliest."
)


def _sequential_table() -> list[str]:
    rng = np.random.default_rng(0)
    draws, n, every = 2000, 5000, 50
    rows = []
    for lost, won in ((0.06, 0.06), (0.03, 0.03), (0.075, 0.045)):
        drawn = rng.random((draws, n), dtype=np.float32)
        gone, gained = np.cumsum(drawn < lost, axis=1), np.cumsum(drawn > 1 - won, axis=1)
        reached = sequential.log_evidence_of_loss(gone, gained) >= -np.log(LEVEL)
        first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, n)
        looks = zip(gone[:500, every - 1 :: every], gained[:500, every - 1 :: every], strict=True)
        peeked = np.mean([any(mcnemar(a, b) <= LEVEL for a, b in zip(*path, strict=True)) for path in looks])
        median = str(int(np.median(first))) if reached.any(axis=1).mean() > 0.5 else "-"
        shares = [f"{100 * lost:g}", f"{100 * won:g}"]
        rows.append([*shares, f"{100 * reached.any(axis=1).mean():.1f}", median, f"{100 * peeked:.1f}"])
    header = [
        "lost, %",
        "won, %",
        "e-process says worse, %",
        "median images until then",
        f"p looked at every {every}, %",
    ]
    return [
        "## Looking at every image",
        f"{draws} runs of {n} images; an e-process is looked at after every one, a p-value of McNemar's exact test "
        f"after every {every} (of 500 runs). Wanted where as many are lost as won: 5 % at most.",
        table(header, rows),
    ]


def _split_table(store: Store) -> list[str]:
    done, worse, by_entry = splits(store)
    named = ", ".join(f"{name} {count}" for name, count in sorted(by_entry.items())) or "none"
    return [
        "## A method against itself, on the digits study's own seeds",
        f"Two seeds of an entry against two others, under six attacks, in either direction: {done} checks, of which "
        f"{worse} say worse ({100 * worse / done:.1f} %). Wanted: 5 % at most. By entry: {named}. "
        "This tries the rule for two seeds only, and the bound in that rule (10 degrees of freedom; 30 gave 4.6 %, "
        "none 5.1 %) was chosen on these very checks, so the share is no independent test of it.",
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
