"""Pairing: two entries on the same samples under the same attacks, counted sample by sample.

Samples are paired, and so are seeds: what is compared is what two models did with one image, under one attack
fingerprint on one data set identity. Only complete evaluations count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.errors import BadStore
from bench.report import metrics
from bench.report.boards import CLEAN, Setting
from bench.report.names import Entry, Member
from bench.store.database import Store


@dataclass(frozen=True)
class Counts:
    """How often a and b were right about the same samples."""

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Counts over the samples of either."""
        return Counts(
            self.both + other.both,
            self.only_a + other.only_a,
            self.only_b + other.only_b,
            self.neither + other.neither,
        )

    @property
    def n(self) -> int:
        """Samples paired."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def accuracy_a(self) -> float:
        """Fraction that a was right about; NaN without samples."""
        return (self.both + self.only_a) / self.n if self.n else float("nan")

    @property
    def accuracy_b(self) -> float:
        """Fraction that b was right about; NaN without samples."""
        return (self.both + self.only_b) / self.n if self.n else float("nan")

    @property
    def difference(self) -> float:
        """Accuracy of b minus that of a, in [-1, 1]; NaN without samples."""
        return (self.only_b - self.only_a) / self.n if self.n else float("nan")


@dataclass(frozen=True)
class SeedPair:
    """Two checkpoints, one of either entry, under one attack.

    Attributes:
        a: checkpoint of the first entry.
        b: checkpoint of the second.
        classes: (K,) counts by class.
    """

    a: Member
    b: Member
    classes: tuple[Counts, ...]

    @property
    def total(self) -> Counts:
        """Counts over all classes."""
        return sum(self.classes, Counts())


@dataclass(frozen=True)
class Side:
    """What the board says of one of two entries, over the paired seeds only.

    Attributes:
        accuracy: fraction of samples classified correctly, mean over seeds.
        worst_class: name of the class that was the worst of most seeds; of equals the one with the lower mean.
        worst_accuracy: mean over seeds of the accuracy of each seed's own worst class.
        nsd: mean over seeds of the NSD; NaN where no seed has one.
    """

    accuracy: float
    worst_class: str
    worst_accuracy: float
    nsd: float


@dataclass(frozen=True)
class Meeting(Setting):
    """Two entries on one data set under one attack.

    Attributes:
        pairs: the pairs of checkpoints that were both evaluated, by seed.
    """

    pairs: tuple[SeedPair, ...]

    @property
    def classes(self) -> tuple[Counts, ...]:
        """(K,) counts by class, over all seeds."""
        return tuple(sum(column, Counts()) for column in zip(*(pair.classes for pair in self.pairs), strict=True))

    @property
    def total(self) -> Counts:
        """Counts over all classes and seeds."""
        return sum(self.classes, Counts())

    @property
    def a(self) -> Side:
        """The figures of the first entry."""
        seeds = [[counts.accuracy_a for counts in pair.classes] for pair in self.pairs]
        return self._side(seeds, self.total.accuracy_a)

    @property
    def b(self) -> Side:
        """The figures of the second entry."""
        seeds = [[counts.accuracy_b for counts in pair.classes] for pair in self.pairs]
        return self._side(seeds, self.total.accuracy_b)

    def _side(self, seeds: list[list[float]], accuracy: float) -> Side:
        spreads = [spread for spread in map(metrics.nsd, seeds) if spread == spread]
        return Side(
            accuracy=accuracy,
            worst_class=self.class_names[metrics.worst_by_vote(seeds)[0]],
            worst_accuracy=sum(map(metrics.worst_accuracy, seeds)) / len(seeds),
            nsd=sum(spreads) / len(spreads) if spreads else float("nan"),
        )


@dataclass(frozen=True)
class Pairing:
    """All that two entries share.

    Attributes:
        a: the first entry.
        b: the second.
        meetings: one per data set and attack that both were evaluated on; clean first.
        only_a: titles of what only a was evaluated on.
        only_b: titles of what only b was evaluated on.
        unpaired: spellings of the checkpoints whose seed the other entry lacks.
        reason: why there is no meeting; "" where there is one.
    """

    a: Entry
    b: Entry
    meetings: tuple[Meeting, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    reason: str = ""


Key = tuple[str, str]
"""dataset_id, attack_id"""


def pair(store: Store, a: Entry, b: Entry) -> Pairing:
    """Pair two entries, seed by seed and sample by sample.

    Checkpoints of the same seed are paired; a single checkpoint is paired with a single one whatever their seeds.
    Nothing shared is no error here: `meetings` is empty then, and `reason` says why.

    Raises:
        BadStore: two evaluations on the same images have them in different classes.
    """
    couples = _couples(a, b)
    paired = {member for couple in couples for member in couple}
    unpaired = tuple(entry.spell(member) for entry in (a, b) for member in entry.members if member not in paired)
    if not couples:
        reason = f"{a.spelled} and {b.spelled} have no seed in common; name one checkpoint of each, as in name#0"
        return Pairing(a, b, (), unpaired=unpaired, reason=reason)
    done = evaluations(store, paired)
    of_a = {key for one, _ in couples for key in done[one.checkpoint_id]}
    of_b = {key for _, one in couples for key in done[one.checkpoint_id]}
    jobs = [
        (key, couple, done[couple[0].checkpoint_id][key], done[couple[1].checkpoint_id][key])
        for couple in couples
        for key in done[couple[0].checkpoint_id]
        if key in done[couple[1].checkpoint_id]
    ]
    facts = settings(store, of_a | of_b)
    counted = _count(store, [(first, second) for _, _, first, second in jobs])
    seeds: defaultdict[Key, list[SeedPair]] = defaultdict(list)
    for (key, couple, *_), by_label in zip(jobs, counted, strict=True):
        names = facts[key].class_names
        classes = tuple(by_label.get(label, Counts()) for label in range(len(names)))
        seeds[key].append(SeedPair(couple[0], couple[1], classes))
    return Pairing(
        a,
        b,
        tuple(Meeting(**vars(facts[key]), pairs=tuple(seeds[key])) for key in facts if key in seeds),
        only_a=tuple(facts[key].title for key in facts if key in of_a - of_b),
        only_b=tuple(facts[key].title for key in facts if key in of_b - of_a),
        unpaired=unpaired,
        reason="" if jobs else f"{a.spelled} and {b.spelled} share no complete evaluation: same data set, same attack",
    )


def _couples(a: Entry, b: Entry) -> list[tuple[Member, Member]]:
    if len(a.members) == len(b.members) == 1:
        return [(a.members[0], b.members[0])]
    partner = {member.seed: member for member in b.members if member.seed is not None}
    return [(member, partner[member.seed]) for member in a.members if member.seed in partner]


def evaluations(store: Store, members: Iterable[Member]) -> dict[str, dict[Key, int]]:
    """The complete evaluations of each checkpoint, by what they are on and under."""
    ids = sorted(member.checkpoint_id for member in members)
    found: dict[str, dict[Key, int]] = {one: {} for one in ids}
    for checkpoint_id, dataset_id, attack_id, evaluation_id in store.rows(
        "SELECT checkpoint_id, dataset_id, attack_id, evaluation_id FROM complete_evaluations "
        f"WHERE checkpoint_id IN ({', '.join('?' * len(ids))})",
        ids,
    ):
        found[checkpoint_id][dataset_id, attack_id] = evaluation_id
    return found


def settings(store: Store, keys: set[Key]) -> dict[Key, Setting]:
    """What each key stands for, in the order in which it is shown."""
    rows = store.rows(
        "SELECT d.name, d.split, d.subset, d.dataset_id, d.class_names, a.name, a.attack_id, a.norm, a.eps_exact "
        "FROM datasets d CROSS JOIN attacks a "
        "ORDER BY d.name, d.split, d.subset, d.dataset_id, a.name != ?, a.norm, a.eps, a.name, a.attack_id",
        [CLEAN],
    )
    found = [
        Setting(dataset, split, subset, dataset_id, tuple(class_names), *attack)
        for dataset, split, subset, dataset_id, class_names, *attack in rows
    ]
    return {(one.dataset_id, one.attack_id): one for one in found if (one.dataset_id, one.attack_id) in keys}


def _count(store: Store, evaluations: Sequence[tuple[int, int]]) -> list[Mapping[int, Counts]]:
    """For each two evaluations, the counts of each label, in one pass over their outcomes.

    Raises:
        BadStore: two evaluations on the same images have them in different classes.
    """
    found: list[dict[int, Counts]] = [{} for _ in evaluations]
    if not evaluations:
        return []
    jobs = ", ".join(f"({job}, {first}, {second})" for job, (first, second) in enumerate(evaluations))
    firsts = ", ".join(str(first) for first, _ in evaluations)
    seconds = ", ".join(str(second) for _, second in evaluations)
    for job, label, differ, *counts in store.rows(
        f"""
        SELECT j.job, a.label, bool_or(a.label != b.label),
               count(*) FILTER (a.correct AND b.correct), count(*) FILTER (a.correct AND NOT b.correct),
               count(*) FILTER (NOT a.correct AND b.correct), count(*) FILTER (NOT a.correct AND NOT b.correct)
        FROM (VALUES {jobs}) AS j(job, first, second)
        JOIN (SELECT * FROM outcomes WHERE evaluation_id IN ({firsts})) a ON a.evaluation_id = j.first
        JOIN (SELECT * FROM outcomes WHERE evaluation_id IN ({seconds})) b
          ON b.evaluation_id = j.second AND b.sample = a.sample
        GROUP BY j.job, a.label
        """
    ):
        if differ:
            first, second = evaluations[job]
            raise BadStore(
                f"{store.path} holds evaluations {first} and {second} of the same images with different labels; one of "
                "them is forged or damaged, 'evenbench import' good exports into a new database"
            )
        found[job][label] = Counts(*counts)
    return list(found)
