"""The training loop. It knows slots, not methods: every method of the registry goes through these lines.

`train` is a generator of checkpoints, one after every epoch; who calls it decides which are kept (`bench.fit`).
Randomness is counter-based (seed, epoch, step, image), so a run that goes on from any checkpoint is the same run.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.augment import augment
from bench.checkpoint import Checkpoint
from bench.data import Images
from bench.errors import BadRecipe, Diverged
from bench.inner import Inner, switched
from bench.losses import cross_entropy, one_hot
from bench.models import build, load_state
from bench.recipe import Schedule
from bench.runs import Run
from bench.streams import Streams, permutation
from bench.types import Batch, Context, Losses, Reach, Tally

HOLDOUT_SEED = 0
"""Every run on a data set holds out the same images, so that runs are selected on the same grounds."""
VALIDATION = Inner(steps=10, start="uniform", mode="eval")
"""PGD-10 with steps of a quarter of eps, as most releases select."""


def _to_fp32(model: nn.Module, images: object, logits: Tensor) -> Tensor:
    return logits.float()


def learning_rate(schedule: Schedule, epoch: int, progress: float) -> float:
    """The learning rate of a step.

    Args:
        schedule: its shape and peak.
        epoch: epochs finished.
        progress: share of all steps finished, in [0, 1).
    """
    if schedule.shape == "piecewise":
        return schedule.lr * schedule.factor ** cuts(schedule, epoch)
    if schedule.shape == "one-cycle" and progress < schedule.rise:
        return schedule.lr * progress / schedule.rise
    begin = schedule.rise if schedule.shape == "one-cycle" else 0.0
    return schedule.lr * (1 + math.cos(math.pi * (progress - begin) / (1 - begin))) / 2


def cuts(schedule: Schedule, epoch: int) -> int:
    """How often the learning rate has been cut before an epoch (0-based)."""
    return sum(epoch >= first for first in schedule.first_epochs_of_drops())


@dataclass
class _Job:
    """A training in flight: everything that a checkpoint must hold to go on."""

    run: Run
    ctx: Context
    optimizer: torch.optim.SGD
    targets: Any
    budget: Any
    tally: Tally
    history: list[dict[str, Any]]
    step: int = 0

    @classmethod
    def begin(cls, run: Run, device: str) -> _Job:
        schedule = run.plan.schedule
        model = build(run.architecture, run.seed).to(device)
        if schedule.precision == "bf16":
            model.register_forward_hook(_to_fp32)  # losses and softmaxes are computed in fp32
        ctx = Context(
            model=model,
            averaged=deepcopy(model).eval().requires_grad_(False),
            teachers={role: parent.network().to(device) for role, parent in run.teachers.items()},
            classes=run.architecture.classes,
            eps=float(schedule.eps),
            epochs=schedule.epochs,
            streams=Streams(run.seed, torch.arange(0, device=device)),
        )
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=schedule.lr,
            momentum=schedule.momentum,
            nesterov=schedule.nesterov,
            weight_decay=schedule.weight_decay,
        )
        recipe = run.plan.recipe
        tally = Tally.zeros(ctx.classes, device)
        return cls(run, ctx, optimizer, recipe.targets.init(ctx), recipe.budget.init(ctx), tally, [])

    @classmethod
    def resume(cls, run: Run, checkpoint: Checkpoint, device: str) -> _Job:
        job = cls.begin(run, device)
        parts = {part: {k: v.to(device) for k, v in state.items()} for part, state in checkpoint.tensors.items()}
        job.ctx.model.load_state_dict(load_state(run.architecture, parts["model"]).state_dict())
        job.ctx.averaged.load_state_dict(load_state(run.architecture, parts["averaged"]).state_dict())
        for name, parameter in job.ctx.model.named_parameters():
            if name in parts["momentum"]:
                job.optimizer.state[parameter]["momentum_buffer"] = parts["momentum"][name].clone()
        job.targets, job.budget = unpack(job.targets, parts["targets"]), unpack(job.budget, parts["budget"])
        if parts["tally"]:
            job.tally = Tally(**parts["tally"])
        job.history = deepcopy(checkpoint.history)
        job.ctx.epoch, job.step = checkpoint.epoch, checkpoint.step
        return job

    def checkpoint(self) -> Checkpoint:
        momentum = {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.ctx.model.named_parameters()
            if self.optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        tensors = {
            "model": self.ctx.model.state_dict(),
            "averaged": self.ctx.averaged.state_dict(),
            "momentum": momentum,
            "targets": pack(self.targets),
            "budget": pack(self.budget),
            "tally": {f.name: getattr(self.tally, f.name) for f in fields(Tally)} if self.step else {},
        }
        return Checkpoint(
            architecture=self.run.architecture,
            tensors={part: {k: v.detach().cpu().clone() for k, v in state.items()} for part, state in tensors.items()},
            judged="averaged" if self.run.plan.recipe.average.judged else "model",
            run=self.run.identity,
            history=deepcopy(self.history),
            epoch=self.ctx.epoch,
            step=self.step,
            versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        )


def pack(state: Any) -> dict[str, Tensor]:
    """A slot's state as named tensors."""
    if state is None:
        return {}
    return {"state": state} if isinstance(state, Tensor) else dict(state._asdict())


def unpack(initial: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `pack` took apart, of the type of the initial one."""
    if initial is None:
        return None
    return tensors["state"] if isinstance(initial, Tensor) else type(initial)(**tensors)


def validate(model: nn.Module, images: Images, eps: float, seed: int, device: str) -> Tally:
    """Class vectors of a network on held-out images, clean and under PGD-10, in eval mode."""
    tally = Tally.zeros(images.classes, device)
    with switched(model, False):
        for first in range(0, len(images), 512):
            rows = np.arange(first, min(first + 512, len(images)))
            x, y = images.batch(rows, device)
            streams = Streams(seed, torch.from_numpy(images.sample[rows].astype(np.int64)).to(device)).fork("validate")
            ctx = Context(model, model, {}, images.classes, eps, 0, streams)
            reach = Reach(
                eps=torch.full((len(x),), eps, device=device), step=torch.full((len(x),), eps / 4, device=device)
            )
            label = one_hot(y, images.classes)
            adv = VALIDATION(ctx, partial(_gain, model, label), x, reach)
            with torch.no_grad():
                tally.add(y, model(x), model(adv))
    return tally


def _gain(model: nn.Module, label: Tensor, x: Tensor) -> Tensor:
    return cross_entropy(model(x), label)


def record(epoch: int, split: str, tally: Tally) -> dict[str, Any]:
    """Class vectors of an epoch as JSON; what was never looked at is null."""

    def counts(hits: Tensor, seen: Tensor) -> list[int] | None:
        return [int(v) for v in hits.tolist()] if seen.any() else None

    return {
        "epoch": epoch,
        "split": split,
        "n": [int(v) for v in tally.count.tolist()],
        "hits_clean": counts(tally.hits_clean, tally.count_clean),
        "hits_adv": counts(tally.hits_adv, tally.count_adv),
    }


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
    recipe, schedule = run.plan.recipe, run.plan.schedule
    rest, held = run.images.hold_out(schedule.holdout, HOLDOUT_SEED) if schedule.holdout else (run.images, None)
    # A last batch of a single image is left out: BatchNorm has no variance of one.
    starts = [s for s in range(0, len(rest), schedule.batch_size) if len(rest) - s > 1]
    if not starts:
        raise BadRecipe(f"{len(rest)} images are left to train on; at least 2 are needed")
    job = _Job.resume(run, resume, device) if resume else _Job.begin(run, device)
    ctx, steps = job.ctx, len(starts)
    samples = torch.from_numpy(rest.sample.astype(np.int64)).to(device)

    while ctx.epoch < schedule.epochs:
        ctx.model.train()
        everyone = Streams(run.seed, samples).fork(f"epoch {ctx.epoch}")
        order = permutation(everyone.seed, len(rest))
        first_bad = torch.full((), -1, device=device)
        ctx.drops = cuts(schedule, ctx.epoch)
        while job.step < steps:
            rows = order[starts[job.step] : starts[job.step] + schedule.batch_size]
            ctx.streams = everyone.select(rows.to(device))
            ctx.progress = (ctx.epoch + job.step / steps) / schedule.epochs
            for group in job.optimizer.param_groups:
                group["lr"] = learning_rate(schedule, ctx.epoch, ctx.progress)
            x, y = rest.batch(rows.numpy(), device)
            loss, losses = step(job, Batch(augment(x, ctx.streams, schedule.augment), y))
            first_bad = torch.where((first_bad < 0) & ~loss.isfinite(), job.step, first_bad)
            job.targets = recipe.targets.end_step(ctx, job.targets, losses)
            job.budget = recipe.budget.end_step(ctx, job.budget, losses)
            recipe.average.end_step(ctx)
            job.tally.add(y, losses.logits_clean, losses.logits_adv)
            job.step += 1
            report(ctx.epoch * steps + job.step, schedule.epochs * steps)
            stopping = job.step < steps and stop()
            if stopping or job.step == steps or job.step % 50 == 0:  # rarely: looking at a number waits for the device
                _check(first_bad, ctx.epoch, schedule)
            if stopping:
                yield job.checkpoint()
                return
        ctx.progress = (ctx.epoch + 1) / schedule.epochs
        ctx.drops = cuts(schedule, ctx.epoch + 1)  # a cut after this epoch holds for what the slots do at its end
        finish_epoch(job, held, device)
        yield job.checkpoint()
        if stop():
            return


def step(job: _Job, batch: Batch) -> tuple[Tensor, Losses]:
    """Targets, reach, adversarial images, loss, weights: one step of training."""
    recipe, ctx = job.run.plan.recipe, job.ctx
    precision = torch.autocast(
        batch.x.device.type, dtype=torch.bfloat16, enabled=job.run.plan.schedule.precision == "bf16"
    )
    with precision:
        targets = recipe.targets(ctx, batch, job.targets)
        adv = recipe.objective.perturb(ctx, batch, targets, recipe.budget.reach(ctx, batch, job.budget))

    def objective() -> tuple[Tensor, Losses]:
        with precision:
            losses = recipe.objective.losses(ctx.model, batch, adv, targets)
            weights = recipe.budget.weigh(ctx, batch, losses, job.budget)
            return (weights.fit * losses.fit + weights.smooth * losses.smooth).mean(), losses

    loss, losses = recipe.step(ctx, job.optimizer, objective)
    clean, adversarial = losses.logits_clean, losses.logits_adv
    return loss.detach(), Losses(
        losses.fit.detach(),
        losses.smooth.detach(),
        None if clean is None else clean.detach(),
        None if adversarial is None else adversarial.detach(),
    )


def finish_epoch(job: _Job, held: Images | None, device: str) -> None:
    """Let the slots look at the epoch, validate the judged weights, write the record."""
    recipe, schedule, ctx = job.run.plan.recipe, job.run.plan.schedule, job.ctx

    def measure(model: nn.Module) -> Tally:
        if held is None:
            raise BadRecipe("this recipe's averaging needs a held-out split; set schedule.holdout above 0")
        return validate(model, held, ctx.eps, job.run.seed, device)

    job.targets = recipe.targets.end_epoch(ctx, job.targets, job.tally)
    job.budget = recipe.budget.end_epoch(ctx, job.budget, job.tally)
    recipe.average.end_epoch(ctx, measure)
    ctx.epoch, job.step = ctx.epoch + 1, 0
    job.history.append(record(ctx.epoch, "train", job.tally))
    if held is not None and (ctx.epoch % schedule.validate_every == 0 or ctx.epoch == schedule.epochs):
        judged = ctx.averaged if recipe.average.judged else ctx.model
        job.history.append(record(ctx.epoch, "valid", measure(judged)))
    job.tally = Tally.zeros(ctx.classes, device)


def _check(first_bad: Tensor, epoch: int, schedule: Schedule) -> None:
    if (at := int(first_bad)) >= 0:
        raise Diverged(
            f"the loss became NaN or infinite in epoch {epoch + 1} of {schedule.epochs}, step {at + 1}; "
            "lower schedule.lr, or go on from the last good epoch with another setting"
        )
