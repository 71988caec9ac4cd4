"""All checks in their order, and running them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

from torch import nn

from bench.attacks.prepare import prepared
from bench.attacks.trial import Trial
from bench.data.images import Images
from bench.errors import BadOption, OutOfBudget
from bench.evaluation.random_models import seeded
from bench.norms import norm as norm_called
from bench.outcomes import Outcomes
from bench.soundness import answers, attacks, gradients, strength
from bench.soundness.check import Check, Finding, check
from bench.soundness.subject import Effort, Subject
from bench.verdict import Verdict

Which = Literal["default", "all"]
EFFORTS: Mapping[Which, Effort] = MappingProxyType(
    {
        "default": Effort(images=64, one_in=5, points=100, queries=500, own=2_000),
        "all": Effort(images=512, one_in=1, points=1_000, queries=5_000, own=40_000),
    }
)
"""The work of `default` stays below 5 % of what the standard attack costs on all images if three of four survive it;
`all` has no such bound."""
STANDARD = 7_864 + 1_910
"""Forward and backward passes that the reference AutoAttack takes for an image that survives."""
ALLOWED = 0.05
"""The checks may take this share of those passes."""


@check("cost", ALLOWED)
def cost(subject: Subject) -> Finding:
    """What did the checks cost?

    The value is their passes, forward and backward, as a share of what the standard attack would take on all images
    that are classified correctly if three of four survived it. It is only reported.

    Source: evaluation cost model, counted on the reference implementation.
    """
    right = float((subject.clean.argmax(1) == subject.shown.y).double().mean())
    standard = STANDARD * 0.75 * max(1.0, right * len(subject.images))
    detail = f"{subject.passes} passes, forward and backward"
    return Finding("pass", subject.passes / standard, len(subject.images), detail)


CHECKS: tuple[Check, ...] = (
    answers.eval_mode,
    answers.input_domain,
    answers.clean_accuracy,
    answers.determinism,
    answers.batch_invariance,
    answers.logits,
    gradients.zero_gradient,
    gradients.nan_gradient,
    gradients.finite_difference,
    strength.fgsm_vs_pgd,
    strength.pgd_vs_apgd,
    strength.steps_doubled,
    strength.restarts,
    strength.incomplete_optimisation,
    strength.black_box,
    strength.unbounded,
    strength.eps_monotone,
    strength.random_noise,
    strength.loss_choice,
    strength.logit_scale,
    answers.precision,
    strength.re_prediction,
    strength.rounding,
    attacks.budget,
    attacks.attack_moves,
    attacks.attack_strength,
    attacks.silent_success,
    cost,
)
"""All checks in the order they are run and shown: what the model is, its gradient, attacks on it, attacks that were."""


def run_checks(
    model: nn.Module,
    images: Images,
    *,
    norm: str,
    eps: Fraction,
    seed: int,
    device: str = "cpu",
    which: Which = "default",
    runs: Mapping[Trial, Outcomes | OutOfBudget] = MappingProxyType({}),
    recorded_clean: tuple[int, int] | None = None,
    batch_size: int = 250,
    checks: Sequence[Check] = CHECKS,
) -> Iterator[Verdict]:
    """Ask of a model, and of the attacks that were run on it, whether the figures should be believed.

    Every check gives one verdict, in order, as soon as it is known; one that cannot be run says "not-run" and why. A
    model that answers badly raises nothing.

    Args:
        model: pixels (B,C,H,W) in [0, 1] to logits (B,K). Whenever a verdict comes, its modes and flags are as they
            were; it is moved to `device`.
        images: all that it is evaluated on; the checks take a stratified subset.
        norm: name of the geometry of the threat model.
        eps: exact radius of the threat model.
        seed: of the subset and of all randomness.
        device: where to compute.
        which: "default", or "all": the same checks on more images.
        runs: what the attacks did to the model on these images, of any threat model, with the clean trial: their
            outcomes, all or those at hand, or the error of one that left its budget. Those with `eot` or `votes`
            above 1 say how a random model is to be examined.
        recorded_clean: hits and number of images of its clean accuracy by the checkpoint's own record, on images like
            these; None where there is no such record.
        batch_size: images attacked at a time.
        checks: what to ask.

    Raises:
        BadBudget: an unknown norm.
        BadOption: no such choice of checks.
    """
    if which not in EFFORTS:
        raise BadOption(f"checks {which!r} are not known; choose none, default or all")
    subject = Subject(
        model=model.to(device),
        images=images,
        norm=norm_called(norm),
        eps=eps,
        seed=seed,
        device=device,
        effort=EFFORTS[which],
        batch_size=batch_size,
        runs=runs,
        recorded_clean=recorded_clean,
        eot=max((trial.eot for trial in runs), default=1),
        votes=max((trial.votes for trial in runs), default=1),
    )
    for each in checks:
        with prepared(model), seeded(seed, each.name):
            verdict = each(subject)
        yield verdict
