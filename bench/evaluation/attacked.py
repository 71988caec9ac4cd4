"""What an attack makes of images, and whether it may."""

from __future__ import annotations

import traceback

import numpy as np
import torch
from torch import Tensor

from bench.attacks.base import Attributed
from bench.attacks.trial import Trial
from bench.errors import BadAttack, BadModel, BadOption, BenchError, OutOfBudget, brief, told
from bench.evaluation.chunk import Chunk
from bench.evaluation.meter import Meter
from bench.norms import norm
from bench.randomness import Streams

RELATIVE_SLACK, ABSOLUTE_SLACK = 1e-5, 1e-7
"""Rounding that a perturbation may exceed its radius by."""
MEND = "mend the attack or leave it out"


def attacked(meter: Meter, chunk: Chunk, trial: Trial) -> Attributed:
    """What the attack makes of the images; `by` is the position in its line-up that a break is credited to.

    A break that no attack of a line-up claims, because it saw the model in another precision, is the last one's.

    Raises:
        BadModel: the model fails, or passes no gradient to its pixels.
        BadAttack: the attack fails, or returns something else than images; OutOfBudget for images that it may not.
    """
    if trial.attack is None:
        raise BadOption(f"trial {trial.name!r} has no attack")
    streams = Streams(trial.seed, torch.from_numpy(chunk.sample.astype(np.int64)).to(chunk.x.device))
    try:
        with torch.enable_grad():
            answer = trial.attack(
                meter, chunk.x.clone(), chunk.y.clone(), eps=float(trial.eps), norm=norm(trial.norm), streams=streams
            )
    except (torch.OutOfMemoryError, BenchError):
        raise
    except (Exception, SystemExit) as problem:
        raise blamed(problem, trial) from problem
    if not isinstance(answer, Attributed):
        answer = Attributed(answer, torch.zeros_like(chunk.y))
    check_budget(trial, chunk, answer.adv)
    check_claims(trial, chunk, answer)
    last = len(trial.lineup) - 1
    return answer._replace(adv=answer.adv.detach().to(chunk.x), by=answer.by.where(answer.by >= 0, last))


def blamed(problem: BaseException, trial: Trial) -> BenchError:
    """The error of whoever is at fault for what ended an attack: the model where its gradient failed, else the attack.

    What fails in the model's forward pass the meter has told already.
    """
    if "does not require grad" in str(problem):
        return BadModel(
            f"the model passes no gradient to its pixels, which {trial.name!r} needs; "
            "take torch.no_grad, detach and numpy out of its forward"
        )
    files = [frame.filename for frame in traceback.extract_tb(problem.__traceback__)]
    if any(file.endswith("torch/autograd/graph.py") for file in files):
        return BadModel(
            f"the model's gradient, which {trial.name!r} needs, fails with {told(problem)}; mend its backward pass"
        )
    return BadAttack(f"attack {trial.name!r} fails with {told(problem)}; {MEND}")


def check_budget(trial: Trial, chunk: Chunk, adv: object) -> None:
    """What an attack returned must be finite images in the ball and in [0, 1].

    Raises:
        OutOfBudget: it is not; names the attack, the first such sample and by how much.
    """
    who, what = f"attack {trial.name!r}", MEND
    if not isinstance(adv, Tensor) or adv.shape != chunk.x.shape:
        came = tuple(adv.shape) if isinstance(adv, Tensor) else type(adv).__name__
        raise OutOfBudget(f"{who} returned {came} for images of shape {tuple(chunk.x.shape)}; {what}")
    if not adv.is_floating_point():
        raise OutOfBudget(f"{who} returned {adv.dtype}; images are floating-point numbers in [0, 1]; {what}")
    adv = adv.detach().to(chunk.x.device)
    finite = adv.isfinite().flatten(1).all(1)
    if not finite.all():
        row = int((~finite).nonzero()[0, 0])
        raise OutOfBudget(
            f"{who} returned a pixel that is no number for sample {chunk.sample[row]} (is the model's gradient finite "
            f"there?); {what}"
        )
    low, high = adv.flatten(1).amin(1), adv.flatten(1).amax(1)
    boxed = (low >= -ABSOLUTE_SLACK) & (high <= 1 + ABSOLUTE_SLACK)
    if not boxed.all():
        row = int((~boxed).nonzero()[0, 0])
        raise OutOfBudget(
            f"{who} returned pixels from {float(low[row]):.6g} to {float(high[row]):.6g} for sample "
            f"{chunk.sample[row]}; images lie in [0, 1]; {what}"
        )
    eps = float(trial.eps)
    size = norm(trial.norm).size(adv.double() - chunk.x.double())
    within = size <= eps * (1 + RELATIVE_SLACK) + ABSOLUTE_SLACK
    if not within.all():
        row = int((~within).nonzero()[0, 0])
        raise OutOfBudget(
            f"{who} moved sample {chunk.sample[row]} by {float(size[row]):.8g} in {trial.norm}, but eps is {eps:.8g}; "
            f"{what}"
        )


def check_claims(trial: Trial, chunk: Chunk, answer: Attributed) -> None:
    """Who broke an image, and the passes that it took, must be whole numbers, one for each image.

    Raises:
        BadAttack: they are not.
    """
    counts = {"forwards": answer.forwards, "backwards": answer.backwards}
    claims = {"by": answer.by} | {name: count for name, count in counts.items() if count is not None}
    for name, claimed in claims.items():
        low, high = (-1, len(trial.lineup) - 1) if name == "by" else (0, 2**40)
        whole = isinstance(claimed, Tensor) and claimed.dtype == torch.int64 and claimed.shape == chunk.y.shape
        if not whole or int(claimed.min()) < low or int(claimed.max()) > high:
            came = brief(repr(claimed))
            raise BadAttack(
                f"attack {trial.name!r} returned {came} as {name!r}; wanted torch.int64 numbers from {low} to {high}, "
                f"one for each of {len(chunk.y)} images; {MEND}"
            )
