"""What enters the store: rows of data, attacks and networks, and outcomes chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

from bench.attacks.trial import Trial
from bench.budget import show_eps
from bench.data.images import Images
from bench.fingerprint import canonical
from bench.outcomes import Outcomes
from bench.store.database import Store
from bench.store.rows import AttackRow, DatasetRow
from bench.study.progress import Forecast, Known


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


def remember(forecast: Forecast, store: Store, checkpoint_id: str, images: Images, trials: Sequence[Trial]) -> None:
    """Tell a forecast what the store has of a network."""
    by_id = {trial.attack_id: trial for trial in trials}
    found = store.rows(
        "SELECT attack_id, count(*), count(*) FILTER (correct), "
        "(coalesce(sum(forwards), 0) + coalesce(sum(backwards), 0))::BIGINT "
        "FROM outcomes JOIN evaluations USING (evaluation_id) "
        "WHERE (checkpoint_id, dataset_id) = (?, ?) GROUP BY attack_id",
        [checkpoint_id, images.dataset_id],
    )
    for attack_id, *counts in found:
        if attack_id in by_id:
            forecast.learn(by_id[attack_id], Known(*counts))
