"""Trials: who was right about which image, for every network of two entries under one attack.

What `bench.report.pairing` counts is here kept image by image, so that seeds and images can both be taken as drawn.
Seeds are paired where both entries have the same, else both have all of theirs and only the images are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.errors import BadStore
from bench.report.boards import Setting
from bench.report.inference.crossed import FEWEST_SEEDS
from bench.report.names import Entry, Member
from bench.report.pairing import Key, evaluations, settings
from bench.store.database import Store

Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Side:
    """Networks of one entry.

    Attributes:
        members: (S,) the checkpoints.
        correct: (S,n) whether each was right about each image.
    """

    members: tuple[Member, ...]
    correct: Correct


@dataclass(frozen=True)
class Trials:
    """Two entries on the same n images under one attack.

    Attributes:
        setting: images and attack.
        labels: (n,) true classes.
        baseline: the networks of the one.
        candidate: those of the other.
        paired: whether the two sides are of the same seeds, in the same order.
    """

    setting: Setting
    labels: npt.NDArray[np.int64]
    baseline: Side
    candidate: Side
    paired: bool

    @property
    def seeds(self) -> int:
        """Networks of the side that has fewer."""
        return min(len(self.baseline.members), len(self.candidate.members))


@dataclass(frozen=True)
class Met:
    """All that two entries share.

    Attributes:
        trials: one per data set and attack that both were evaluated on; clean first.
        only_baseline: titles of what only the baseline was evaluated on.
        only_candidate: titles of what only the candidate was evaluated on.
        left_out: spellings of the checkpoints that take part nowhere.
    """

    trials: tuple[Trials, ...]
    only_baseline: tuple[str, ...]
    only_candidate: tuple[str, ...]
    left_out: tuple[str, ...]


def meet(store: Store, candidate: Entry, baseline: Entry, *, attack: str | None = None) -> Met:
    """What two entries were both evaluated on, image by image.

    Args:
        store: where the outcomes are.
        candidate: the one.
        baseline: the other.
        attack: name of an attack, or the first digits of its fingerprint; None for every one.

    Raises:
        BadStore: two evaluations on one data set contradict each other in images or labels.
    """
    done = evaluations(store, {*candidate.members, *baseline.members})
    of_candidate, of_baseline = (
        {key for one in side.members for key in done[one.checkpoint_id]} for side in (candidate, baseline)
    )
    facts = settings(store, of_candidate | of_baseline)
    wanted = {key: one for key, one in facts.items() if attack is None or one.is_under(attack)}
    found = tuple(
        _trials(store, setting, key, done, *_sides(baseline, candidate, key, done))
        for key, setting in wanted.items()
        if key in of_candidate & of_baseline
    )
    took_part = {member for one in found for side in (one.baseline, one.candidate) for member in side.members}
    return Met(
        found,
        tuple(one.title for key, one in wanted.items() if key in of_baseline - of_candidate),
        tuple(one.title for key, one in wanted.items() if key in of_candidate - of_baseline),
        tuple(
            side.spell(member)
            for side in (baseline, candidate)
            for member in side.members
            if found and member not in took_part
        ),
    )


Done = dict[str, dict[Key, int]]


def _sides(
    baseline: Entry, candidate: Entry, key: Key, done: Done
) -> tuple[tuple[Member, ...], tuple[Member, ...], bool]:
    """Who takes part: the seeds that both have where these are all of one side's or enough, else everybody."""
    one, other = (tuple(m for m in side.members if key in done[m.checkpoint_id]) for side in (baseline, candidate))
    if len(one) == len(other) == 1:
        return one, other, True
    partner = {member.seed: member for member in other if member.seed is not None}
    couples = [(member, partner[member.seed]) for member in one if member.seed in partner]
    if couples and (len(couples) == min(len(one), len(other)) or len(couples) >= FEWEST_SEEDS):
        first, second = zip(*couples, strict=True)
        return tuple(first), tuple(second), True
    return one, other, False


def _trials(
    store: Store,
    setting: Setting,
    key: Key,
    done: Done,
    baseline: Sequence[Member],
    candidate: Sequence[Member],
    paired: bool,
) -> Trials:
    ids = [done[member.checkpoint_id][key] for member in (*baseline, *candidate)]
    columns = store.columns(
        "SELECT evaluation_id, sample, label, correct FROM outcomes "
        "WHERE evaluation_id IN (SELECT unnest(?)) ORDER BY evaluation_id, sample",
        [ids],
    )
    there, sizes = np.unique(columns["evaluation_id"], return_counts=True)
    if len(set(sizes.tolist())) > 1:
        raise BadStore(f"{store.path} holds evaluations on {setting.title} that are of different numbers of images")
    tables = {name: np.asarray(columns[name]).reshape(len(there), -1) for name in ("sample", "label", "correct")}
    for name in ("sample", "label"):
        if (tables[name] != tables[name][0]).any():
            raise BadStore(f"{store.path} holds evaluations on {setting.title} that contradict each other in {name}")
    row = {evaluation: place for place, evaluation in enumerate(there.tolist())}
    correct = tables["correct"].astype(np.bool_)[[row[one] for one in ids]]
    return Trials(
        setting,
        tables["label"][0].astype(np.int64),
        Side(tuple(baseline), correct[: len(baseline)]),
        Side(tuple(candidate), correct[len(baseline) :]),
        paired,
    )
