"""Evaluate one network and store its outcomes, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

from bench.attacks.suite import Trial
from bench.data import Images
from bench.evaluate import evaluate
from bench.runner import Progress, attack_row, dataset_row, trial_cost
from bench.store import Store
from bench.target import Target


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
    data = dataset_row(images)
    store.add_dataset(data)
    store.add_checkpoint(target.row, target.epochs)
    numbers = {}
    for trial in trials:
        store.add_attack(attack_row(trial))
        numbers[trial] = store.begin(target.row.checkpoint_id, data.dataset_id, trial.attack_id, len(images))

    def done(trial: Trial) -> set[int]:
        return set(store.done(target.row.checkpoint_id, data.dataset_id, trial.attack_id).tolist())

    costs = {trial: trial_cost(trial, images.classes) for trial in trials}
    reached = {trial: float(len(done(trial))) for trial in trials}
    progress.plan(sum(costs[trial] * len(images) for trial in trials))

    def report(trial: Trial, samples: float, total: int) -> None:
        reached[trial] = samples
        progress.advance(sum(costs[t] * reached[t] for t in trials), f"{target.row.method}: {trial.name}")

    chunks = evaluate(
        target.network(),
        images,
        trials,
        batch_size=batch_size,
        device=device,
        done=done,
        report=report,
        notice=progress.say,
    )
    for trial, outcomes in chunks:
        store.add_chunk(numbers[trial], outcomes)
