"""Checks of what the model answers without attack: is it the model that it is taken for?"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from bench.attacks.pgd import PGD_SAT
from bench.errors import BadModel
from bench.evaluation.answer import looks_like_probabilities
from bench.evaluation.meter import Bfloat16
from bench.evaluation.random_models import FEW, STEADY
from bench.outcomes import Outcomes
from bench.soundness.check import Finding, beyond, check, judgement, outweighs
from bench.soundness.measured import NotRun
from bench.soundness.subject import Subject

ALONE = 8
"""Images that are shown to the model one by one."""
VANISHING = 0.4
"""If more than this share of the errors vanish on pixels of another range, the model is made for that range."""
UNRELATED = 1e-2
"""A relative difference of logits above this is more than rounding."""


@check("eval-mode", 0)
def eval_mode(subject: Subject) -> Finding:
    """Is every module in eval mode, and does an answer leave the model's buffers as they were?

    The value counts modules that stay in training mode and buffers that change. A model that was handed over in
    training mode is no fault: it is put into eval mode before anything is measured.

    Source: users' reports of evaluations that updated BatchNorm statistics.
    """
    training = [name or "the model" for name, module in subject.model.named_modules() if module.training]
    before = {name: buffer.clone() for name, buffer in subject.model.named_buffers()}
    subject.logits(subject.shown.x[:ALONE], subject.meter)
    after = dict(subject.model.named_buffers())
    changed = [name for name, buffer in before.items() if not same(buffer, after.get(name))]
    count = len(training) + len(changed)
    if not count:
        return Finding("pass", 0, 1, "eval mode everywhere, no buffer changes")
    what = [f"in training mode: {', '.join(training[:3])}"] * bool(training)
    what += [f"changed by an answer: {', '.join(changed[:3])}"] * bool(changed)
    return Finding("fail", count, 1, "; ".join(what))


def same(before: Tensor, after: Tensor | None) -> bool:
    """Whether a buffer is unchanged; NaN counts as equal to NaN."""
    return after is not None and torch.equal(before.nan_to_num(), after.nan_to_num())


@check("input-domain", VANISHING)
def input_domain(subject: Subject) -> Finding:
    """Is the model made for pixels in [0, 1], with any normalisation inside?

    The value is the share of its errors that vanish on pixels of another range: standardised per channel, [-1, 1] or
    [0, 255]. It fails if that is more than the threshold, and more than chance would give: the normalisation is then
    meant to come from outside, and attacks search the wrong range.

    Source: Carlini et al. 2019, "On evaluating adversarial robustness", section 4.
    """
    x, right = subject.shown.x, subject.clean.argmax(1) == subject.shown.y
    axes = (0, 2, 3)
    mean, std = x.mean(axes, keepdim=True), x.std(axes, keepdim=True, correction=0).clamp(min=1e-6)
    others = {"standardised": (x - mean) / std, "[-1, 1]": 2 * x - 1, "[0, 255]": 255 * x}
    errors = int((~right).sum())
    worst = Finding("pass", 0, len(x), "no more accurate on pixels of another range")
    for name, seen in others.items():
        try:
            there = subject.logits(seen).argmax(1) == subject.shown.y
        except BadModel:  # it refuses such pixels, as it may
            continue
        gained, lost = int((there & ~right).sum()), int((right & ~there).sum())
        share = (gained - lost) / max(1, errors)
        if share > (worst.value or 0):
            detail = f"{errors} errors on pixels in [0, 1], {errors - gained + lost} on {name} ones"
            worst = Finding(judgement(fail=share > VANISHING and outweighs(gained, lost)), share, len(x), detail)
    return worst


@check("clean-accuracy", 0.001)
def clean_accuracy(subject: Subject) -> Finding:
    """Is it as accurate without attack as its own record says?

    The value is the recorded accuracy minus the one found. It fails if it exceeds the threshold by more than three
    standard errors of the two accuracies.

    Source: RobustBench issue 105; users' reports of wrong preprocessing or weights.
    """
    if subject.recorded_clean is None:
        raise NotRun("the checkpoint has no record of its clean accuracy")
    hits, n = subject.recorded_clean
    correct = subject.clean.argmax(1) == subject.shown.y
    found, count = float(correct.double().mean()), len(correct)
    for trial, outcomes in subject.runs.items():
        if trial.attack is None and isinstance(outcomes, Outcomes) and len(outcomes):
            found, count = float(outcomes.correct.mean()), len(outcomes)
    recorded = hits / n
    error = math.sqrt(sum(share * (1 - share) / of for share, of in ((smoothed(recorded, n), n), (found, count))))
    gap = recorded - found
    return Finding(
        judgement(fail=gap > 0.001 + 3 * error),
        gap,
        count,
        f"recorded {recorded:.3f} on {n} images, found {found:.3f} on {count}",
    )


def smoothed(share: float, n: int) -> float:
    """The share with one hit and one miss added, so that its standard error is never 0."""
    return (share * n + 1) / (n + 2)


@check("determinism", STEADY)
def determinism(subject: Subject) -> Finding:
    """Does it give the same answer to the same images five times?

    The value is the largest difference, relative to the largest logit. A model whose answers differ fails, unless it
    was attacked in expectation and judged by vote; then there is a warning.

    Source: AutoAttack's flag for randomised defences (checks.py); Athalye et al. 2018, section 4.2.
    """
    value, n = subject.unsteadiness, len(subject.shown.y[:FEW])
    if not subject.random:
        return Finding("pass", value, n, "same answers")
    if subject.eot > 1:
        detail = f"random answers; attacked in expectation over {subject.eot} and judged by {subject.votes} votes"
        return Finding("warn", value, n, detail)
    return Finding("fail", value, n, "random answers; evaluate it in expectation and by vote (eot, votes)")


@check("batch-invariance", STEADY)
def batch_invariance(subject: Subject) -> Finding:
    """Is the answer to an image the same alone as among others?

    The value is the largest difference of logits, relative to the largest logit. Above the threshold it warns; above
    one in a hundred, or if predictions flip besides, it fails.

    Source: RobustBench issue 7; BatchNorm by the statistics of the batch is the usual reason.
    """
    if subject.random:
        raise NotRun("the model's answers are random")
    x = subject.shown.x[:FEW]
    among, alone = subject.logits(x)[:ALONE], subject.logits(x[:ALONE], batch_size=1)
    value = float((among - alone).abs().max() / among.abs().max().clamp(min=1e-12))
    flips = int((among.argmax(1) != alone.argmax(1)).sum())
    differs = value > STEADY
    verdict = judgement(fail=differs and (flips > 0 or value > UNRELATED), warn=differs)
    return Finding(verdict, value, len(alone), f"{flips} predictions flip when an image is shown alone")


@check("logits", 0)
def logits(subject: Subject) -> Finding:
    """Are its answers logits, not probabilities?

    The value is 1 if every answer is a distribution. The cross-entropy of probabilities hardly moves, and attacks that
    follow it are weak.

    Source: AutoAttack's flag for softmax outputs (checks.py), which only warns.
    """
    if looks_like_probabilities(subject.clean):
        detail = "every answer is a distribution; return the values before the softmax"
        return Finding("fail", 1, len(subject.clean), detail)
    return Finding("pass", 0, len(subject.clean), "no distributions")


@check("precision", 0.002)
def precision(subject: Subject) -> Finding:
    """Are predictions the same in float64, for clean and for adversarial images?

    The value is the share of predictions that differ. It warns if that is more than the threshold, and more than chance
    would give. How many differ in bfloat16 is only reported.

    Source: Carlini et al. 2019, section 5.
    """
    if subject.random:
        raise NotRun("the model's answers are random")
    found = subject.result_of(PGD_SAT)
    x = torch.cat([subject.shown.x, found.adv])
    here = torch.cat([subject.clean, found.logits]).argmax(1)
    try:
        low = int((subject.logits(x, Bfloat16(subject.meter)).argmax(1) != here).sum())
        twin = copy.deepcopy(subject.model).double()
        there = subject.logits(x.double(), twin).argmax(1)
    except Exception as problem:  # whatever a user's network does when it is copied or gets other numbers
        raise NotRun(f"the model cannot be run in another precision ({problem})") from None
    flips = int((there != here).sum())
    detail = f"of {len(x)} predictions {flips} differ in float64, {low} in bfloat16"
    return Finding(judgement(warn=beyond(flips, len(x), 0.002)), flips / len(x), len(x), detail)
