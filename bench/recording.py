"""Evaluate one network and store its outcomes, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bench.attacks.suite import Trial
from bench.data import Images
from bench.eps import show_eps
from bench.evaluate import evaluate
from bench.identity import canonical
from bench.outcomes import Outcomes
from bench.store import AttackRow, DatasetRow, Store
from bench.target import Target
from bench.units import trial_cost


class Progress(Protocol):
    """Where a long run says how far it is."""

    def plan(self, total: float) -> None:
        """How much there is to do, in forward passes of one image."""

    def advance(self, done: float, doing: str) -> None:
        """How much is done, and what is being done."""

    def say(self, line: str) -> None:
        """A line to keep."""


def dataset_row(images: Images) -> DatasetRow:
    """What the store keeps of a data set."""
    return DatasetRow(images.dataset_id, images.name, images.split, images.subset, len(images), images.class_names)


def attack_row(trial: Trial) -> AttackRow:
    """What the store keeps of an attack."""
    exact = show_eps(trial.eps) if trial.eps else "0"
    return AttackRow(
        trial.attack_id, trial.name, trial.norm, exact, float(trial.eps), trial.lineup, canonical(trial.spec)
    )


def put(store: Store, checkpoint_id: str, images: Images, trial: Trial, outcomes: Outcomes) -> None:
    """Store a chunk, but for what another process has stored meanwhile; it would be the same.

    Raises:
        BadStore: the database cannot take it; what is stored stays.
    """
    number = store.begin(checkpoint_id, images.dataset_id, trial.attack_id, len(images))
    store.add_missing(number, outcomes)


def record(
    store: Store,
    target: Target,
    images: Images,
    trials: Sequence[Trial],
    *,
    batch_size: int,
    device: str,
    progress: Progress,
) -> None:
    """Attack a target with every trial, leaving out what the store already has.

    Raises:
        BenchError: the network, the data or the store do not hold; what is stored stays.
    """
    data, checkpoint_id = dataset_row(images), target.row.checkpoint_id
    store.add_dataset(data)
    for trial in trials:
        store.add_attack(attack_row(trial))

    def done(trial: Trial) -> set[int]:
        return set(store.done(checkpoint_id, data.dataset_id, trial.attack_id).tolist())

    costs = {trial: trial_cost(trial, images.classes) for trial in trials}
    reached = {trial: float(len(done(trial))) for trial in trials}
    progress.plan(sum(costs[trial] * len(images) for trial in trials))

    def report(trial: Trial, samples: float, total: int) -> None:
        reached[trial] = samples
        progress.advance(sum(costs[t] * reached[t] for t in trials), f"{target.row.method}: {trial.name}")

    parts = evaluate(
        target.network(),
        images,
        trials,
        batch_size=batch_size,
        device=device,
        done=done,
        report=report,
        notice=progress.say,
    )
    for trial, outcomes in parts:
        store.add_checkpoint(target.row, target.epochs)  # a network that fails at its first images leaves no trace
        put(store, checkpoint_id, images, trial, outcomes)
