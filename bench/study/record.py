"""Evaluate one network and store its outcomes, chunk by chunk; then what the soundness checks say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.attacks.trial import Trial
from bench.budget import show_eps
from bench.data.images import Images
from bench.errors import OutOfBudget
from bench.evaluation.adversarials import Keeper
from bench.evaluation.batching import USUAL
from bench.evaluation.evaluate import evaluate
from bench.evaluation.network import Target
from bench.fingerprint import canonical
from bench.outcomes import Outcomes
from bench.soundness.examination import Checks, examinations
from bench.store.database import Store
from bench.store.rows import AttackRow, DatasetRow
from bench.study.account import Account, Progress
from bench.study.forecast import Forecast, Known


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
    batch_size: int | None = None,
    device: str = "cpu",
    progress: Progress,
    keep: Keeper | None = None,
    checks: Checks = "none",
) -> None:
    """Attack a target with every trial, leaving out what the store already has; then ask whether to believe it.

    Args:
        store: takes every chunk as it is done.
        target: what is attacked.
        images: on which data.
        trials: by what, the clean trial first.
        batch_size: images per chunk; None for what suits the device.
        device: where to compute.
        progress: hears what it will cost, how far it is, and what looks wrong.
        keep: takes the adversarial images of what is attacked now.
        checks: which soundness checks follow the attacks. By `default` they are left out where nothing was attacked
            now and their verdicts are known.

    Raises:
        BenchError: the network, the data or the store do not hold; what is stored stays.
    """
    store.add_dataset(dataset_row(images))
    for trial in trials:
        store.add_attack(attack_row(trial))
    network, checkpoint_id = target.network(), target.row.checkpoint_id
    account = Account(
        remembered(store, checkpoint_id, images, trials), trials, len(images), progress, target.row.method
    )
    fresh = account.left > 0
    if fresh:
        account.foretell(network, images, batch_size or USUAL, device)
    if keep is not None:
        remark_on_lost(keep, account)
    underway: list[Trial] = []

    def begun() -> Iterator[Trial]:
        for trial in trials:
            underway.append(trial)
            yield trial

    def done(trial: Trial) -> set[int]:
        return set(store.done(checkpoint_id, images.dataset_id, trial.attack_id).tolist())

    def examined(failed: Mapping[Trial, OutOfBudget]) -> None:
        if checks != "none":
            anew = fresh or checks == "all"
            for asked in examinations(store, target, images, trials, which=checks, failed=failed, anew=anew):
                verdicts = []
                for verdict in asked.verdicts(network, images, batch_size=batch_size or USUAL, device=device):
                    account.checked(verdict)
                    verdicts.append(verdict)
                asked.enter(store, checkpoint_id, images, verdicts)

    parts = evaluate(
        network,
        images,
        begun(),
        batch_size=batch_size,
        device=device,
        done=done,
        report=account.report,
        notice=progress.say,
        keep=keep,
    )
    try:
        for trial, outcomes in parts:
            store.add_checkpoint(target.row, target.epochs)  # a network that fails at its first images leaves no trace
            put(store, checkpoint_id, images, trial, outcomes)
            account.enter(trial, outcomes)
    except OutOfBudget as problem:
        examined({underway[-1]: problem})  # that an attack cheats is a verdict too
        raise
    examined({})


def remembered(store: Store, checkpoint_id: str, images: Images, trials: Sequence[Trial]) -> Forecast:
    """A forecast that knows what the store has."""
    forecast, by_id = Forecast(images.classes), {trial.attack_id: trial for trial in trials}
    found = store.rows(
        "SELECT attack_id, count(*), count(*) FILTER (correct), coalesce(sum(forwards), 0)::BIGINT, "
        "coalesce(sum(backwards), 0)::BIGINT FROM outcomes JOIN evaluations USING (evaluation_id) "
        "WHERE (checkpoint_id, dataset_id) = (?, ?) GROUP BY attack_id",
        [checkpoint_id, images.dataset_id],
    )
    for attack_id, *counts in found:
        if attack_id in by_id:
            forecast.learn(by_id[attack_id], Known(*counts))
    return forecast


def remark_on_lost(keep: Keeper, account: Account) -> None:
    """Say which images cannot be kept, because an earlier run has found them and thrown them away."""
    for trial in account.trials:
        before = account.forecast.judged(trial)
        if trial.attack is not None and before and not keep.place(trial).exists():
            account.progress.say(f"{trial.name}: the images of {before} samples were found earlier and not kept")
