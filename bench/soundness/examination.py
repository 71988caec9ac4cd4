"""What is asked, after the attacks, about whether their figures should be believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from torch import nn

from bench.attacks.trial import Trial
from bench.budget import show_eps
from bench.data.images import Images
from bench.evaluation.network import Network
from bench.outcomes import COLUMNS, Outcomes
from bench.soundness.run import run_checks
from bench.store.database import Store
from bench.verdict import Verdict

Checks = Literal["none", "default", "all"]
"""Which soundness checks are asked for."""


@dataclass(frozen=True)
class Examination:
    """What is asked about one checkpoint under one threat; it pickles.

    Attributes:
        norm: geometry of the threat.
        eps: its radius.
        seed: names the randomness.
        which: on few images or on more.
        runs: what the attacks did.
        recorded_clean: hits and images by the checkpoint's own record, where there is one.
    """

    norm: str
    eps: Fraction
    seed: int
    which: Literal["default", "all"]
    runs: dict[Trial, Outcomes]
    recorded_clean: tuple[int, int] | None

    def verdicts(self, network: nn.Module, images: Images, *, batch_size: int, device: str) -> Iterator[Verdict]:
        """Run the checks."""
        return run_checks(
            network,
            images,
            norm=self.norm,
            eps=self.eps,
            seed=self.seed,
            device=device,
            which=self.which,
            runs=self.runs,
            recorded_clean=self.recorded_clean,
            batch_size=batch_size,
        )

    def enter(self, store: Store, checkpoint_id: str, images: Images, verdicts: Sequence[Verdict]) -> None:
        """Store what the checks said, in place of what they said before."""
        store.add_verdicts(checkpoint_id, images.dataset_id, self.norm, show_eps(self.eps), verdicts)


def examinations(
    store: Store,
    network: Network,
    images: Images,
    trials: Sequence[Trial],
    *,
    which: Literal["default", "all"],
    anew: bool = True,
) -> Iterator[Examination]:
    """One for every threat that was attacked.

    Args:
        store: holds the outcomes of the trials.
        network: what was attacked.
        images: on which data.
        trials: by what.
        which: on few images or on more.
        anew: whether to ask again what has verdicts already.
    """
    checkpoint_id = network.row.checkpoint_id
    for norm, eps in threats(trials):
        if not anew and store.verdicts(checkpoint_id, images.dataset_id, norm, show_eps(eps)):
            continue
        runs = {trial: stored(store, checkpoint_id, images, trial) for trial in trials}
        yield Examination(norm, eps, trials[-1].seed, which, runs, recorded_clean(network, images))


def threats(trials: Sequence[Trial]) -> list[tuple[str, Fraction]]:
    """The norms and radii that are attacked, once each, but for those that leave nothing to defend."""
    found = dict.fromkeys((trial.norm, trial.eps) for trial in trials if trial.attack is not None)
    return [(norm, eps) for norm, eps in found if not (norm == "Linf" and eps >= 1)]


def stored(store: Store, checkpoint_id: str, images: Images, trial: Trial) -> Outcomes:
    """The outcomes of a trial that the store has; what it did not keep before version 2 of its tables is 0."""
    wanted = ", ".join(f"coalesce({name}, 0) AS {name}" for name in COLUMNS)
    frame = store.query(
        f"SELECT {wanted} FROM outcomes JOIN evaluations USING (evaluation_id) "
        "WHERE (checkpoint_id, dataset_id, attack_id) = (?, ?, ?) ORDER BY sample",
        [checkpoint_id, images.dataset_id, trial.attack_id],
    )
    columns: list[Any] = [frame[name].to_numpy() for name in COLUMNS]
    return Outcomes(*columns)


def recorded_clean(network: Network, images: Images) -> tuple[int, int] | None:
    """Hits and number of images by the network's own record of its last epoch, on what was held out of its training.

    None where there is no such record, or it is of other data.
    """
    last = [row for row in network.epochs if row.split == "valid" and row.epoch == network.row.epoch]
    if not last or network.row.trained_on != images.name:
        return None
    hits = [row.hits_clean for row in last if row.hits_clean is not None]
    return (sum(hits), sum(row.n for row in last)) if len(hits) == len(last) else None
