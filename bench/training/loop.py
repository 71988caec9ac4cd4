"""The training loop. It knows slots, not methods: every method of the registry goes through these lines.

`train` is a generator of checkpoints, one after every epoch; who calls it decides which are kept (`fit.py`).
Randomness is counter-based (seed, epoch, step, image), so a run that goes on from any checkpoint is the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from bench.data.images import Images
from bench.errors import BadRecipe, Diverged
from bench.randomness import Streams, permutation
from bench.training.augment import augment
from bench.training.checkpoint import Checkpoint
from bench.training.run import Run
from bench.training.schedule import Schedule, cuts, learning_rate
from bench.training.state import TrainingState
from bench.training.validation import record, validate
from bench.training.values import Batch, Tally

HOLDOUT_SEED = 0
"""Every run on a data set holds out the same images, so that runs are selected on the same grounds."""


def train(
    run: Run,
    *,
    device: str = "cpu",
    resume: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Checkpoint]:
    """Train, and hand out a checkpoint after every epoch.

    Args:
        run: what to train.
        device: where.
        resume: a checkpoint of the same run to go on from.
        stop: asked after every step; when it says yes, the state in mid-epoch is handed out and training ends.
        report: called after every step with steps done and steps in all.

    Raises:
        Diverged: the loss is not a number.
        BadRecipe: too few images to train on.
    """
    schedule = run.plan.schedule
    rest, held = run.images.hold_out(schedule.holdout, HOLDOUT_SEED) if schedule.holdout else (run.images, None)
    # A last batch of a single image is left out: BatchNorm has no variance of one.
    starts = [s for s in range(0, len(rest), schedule.batch_size) if len(rest) - s > 1]
    if not starts:
        raise BadRecipe(f"{len(rest)} images are left to train on; at least 2 are needed")
    state = TrainingState.resume(run, resume, device) if resume else TrainingState.begin(run, device)
    ctx, steps = state.ctx, len(starts)
    samples = torch.from_numpy(rest.sample.astype(np.int64)).to(device)
    while ctx.epoch < schedule.epochs:
        ctx.model.train()
        everyone = Streams(run.seed, samples).fork(f"epoch {ctx.epoch}")
        order = permutation(everyone.seed, len(rest))
        order_there = order.to(device)  # once an epoch: the host waits for the device at every such copy
        first_bad = torch.full((), -1, device=device)
        ctx.drops = cuts(schedule, ctx.epoch)
        while state.step < steps:
            part = slice(starts[state.step], starts[state.step] + schedule.batch_size)
            ctx.streams = everyone.select(order_there[part])
            ctx.progress = (ctx.epoch + state.step / steps) / schedule.epochs
            for group in state.learner.optimizer.param_groups:
                group["lr"] = learning_rate(schedule, ctx.epoch, ctx.progress)
            x, y = rest.batch(order[part].numpy(), device)
            made = state.learner.step(Batch(augment(x, ctx.streams, schedule.augment), y), schedule.precision)
            state.tally.add(y, made.losses.logits_clean, made.losses.logits_adv, made.losses.stood)
            first_bad = torch.where((first_bad < 0) & ~made.loss.isfinite(), state.step, first_bad)
            state.step += 1
            report(ctx.epoch * steps + state.step, schedule.epochs * steps)
            stopping = state.step < steps and stop()
            if stopping or state.step == steps or state.step % 50 == 0:  # rarely: looking waits for the device
                _check(first_bad, ctx.epoch, schedule)
            if stopping:
                yield state.checkpoint()
                return
        ctx.progress = (ctx.epoch + 1) / schedule.epochs
        ctx.drops = cuts(schedule, ctx.epoch + 1)  # a cut after this epoch holds for what the slots do at its end
        finish_epoch(state, held, device)
        yield state.checkpoint()
        if stop():
            return


def finish_epoch(state: TrainingState, held: Images | None, device: str) -> None:
    """Let the slots look at the epoch, validate the judged weights, write the record."""
    recipe, schedule, ctx = state.run.plan.recipe, state.run.plan.schedule, state.ctx

    if held is not None:
        ctx.validate = cache(partial(validate, images=held, eps=ctx.eps, seed=state.run.seed, device=device))
    state.learner.close_epoch(state.tally)
    ctx.epoch, state.step = ctx.epoch + 1, 0
    state.history.append(record(ctx.epoch, "train", state.tally))
    sound = all(bool(v.isfinite().all()) for net in (ctx.model, ctx.averaged) for v in net.state_dict().values())
    if held is not None and (ctx.epoch % schedule.validate_every == 0 or ctx.epoch == schedule.epochs):
        judged = ctx.averaged if recipe.average.judged else ctx.model
        valid = ctx.validate(judged)
        sound = sound and bool(valid.ce_clean.isfinite().all())
        state.history.append(record(ctx.epoch, "valid", valid))
    if not sound:
        raise Diverged(
            f"after epoch {ctx.epoch} of {schedule.epochs} weights or held-out logits are NaN or infinite; "
            "lower schedule.lr, or go on from the last good epoch with another setting"
        )
    state.tally = Tally.zeros(ctx.classes, device)


def _check(first_bad: Tensor, epoch: int, schedule: Schedule) -> None:
    if (at := int(first_bad)) >= 0:
        raise Diverged(
            f"the loss became NaN or infinite in epoch {epoch + 1} of {schedule.epochs}, step {at + 1}; "
            "lower schedule.lr, or go on from the last good epoch with another setting"
        )
