"""Checks by attacks of rising strength: a stronger attack must break more images, and a large enough budget all.

Two attacks are compared on the same images. The weaker one is said to break more only if it gains more images over the
other than chance would give it (`check.outweighs`), and more than the threshold as a share of all.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import reduce

import torch
from torch import Tensor

from bench.attacks.apgd import APGD_CE, APGD_DLR
from bench.attacks.pgd import FGSM_ATTACK, PGD_SAT
from bench.attacks.square import Square
from bench.attacks.trial import Trial
from bench.losses import margin
from bench.outcomes import FIRST_OF_LINEUP, WRONG_UNATTACKED, Outcomes
from bench.soundness.check import Finding, beyond, check, judgement, outweighs
from bench.soundness.measured import NotRun
from bench.soundness.sampling import part
from bench.soundness.subject import WALK, Subject
from bench.verdict import Judgement

TOLERANCE = 0.005
"""Share of images by which a figure may be off without being remarked on."""
GROSS = 0.05
"""Share of images from which on a figure is too far off to be believed."""
RESTARTS = 5
FACTORS = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))
"""Radii tried, as multiples of eps."""
BLACK_BOX = "square"
"""The attack that needs no gradient, as line-ups call it."""


def misordered(weak: Tensor, strong: Tensor, names: tuple[str, str], otherwise: Judgement = "fail") -> Finding:
    """Judge two attacks by the images they broke: `weak` (B,) and, by the one that should be stronger, `strong` (B,).

    The value is by how many images the weaker one broke more, as a share of all.
    """
    more, less, n = int((weak & ~strong).sum()), int((strong & ~weak).sum()), len(weak)
    bad = (more - less) / n > TOLERANCE and outweighs(more, less)
    detail = f"of {n} images {more} are broken by {names[0]} alone, {less} by {names[1]} alone"
    return Finding(otherwise if bad else "pass", (more - less) / n, n, detail)


@check("fgsm-vs-pgd", TOLERANCE)
def fgsm_vs_pgd(subject: Subject) -> Finding:
    """Does PGD with 20 steps break no fewer images than one step does?

    Source: Athalye et al. 2018, section 3.1; Carlini et al. 2019, section 5.
    """
    return misordered(subject.result_of(FGSM_ATTACK).broken, subject.result_of(PGD_SAT).broken, ("FGSM", "PGD-20"))


@check("pgd-vs-apgd", TOLERANCE)
def pgd_vs_apgd(subject: Subject) -> Finding:
    """Does APGD with 100 steps break no fewer images than PGD with 20?

    Source: Carlini et al. 2019, section 5; Croce and Hein 2020, section 3.
    """
    return misordered(subject.result_of(PGD_SAT).broken, subject.result_of(APGD_CE).broken, ("PGD-20", "APGD-CE"))


@check("steps-doubled", TOLERANCE)
def steps_doubled(subject: Subject) -> Finding:
    """Does PGD break hardly more with 40 steps than with 20?

    The value is the share of images that only the second half of the steps breaks. It warns if that is more than the
    threshold, and more than chance would give: PGD has not converged, and longer attacks are needed.

    Source: Carlini et al. 2019, section 5.
    """
    broken = subject.course.broken
    n, late = broken.shape[1], int((~broken[: WALK // 2 + 1].any(0) & broken.any(0)).sum())
    detail = f"{late} of {n} images are broken by the second half of {WALK} steps"
    return Finding(judgement(warn=beyond(late, n, TOLERANCE)), late / n, n, detail)


@check("incomplete-optimisation", 0.1)
def incomplete_optimisation(subject: Subject) -> Finding:
    """Has the loss of PGD stopped rising after 40 steps?

    The best loss so far of each image is scaled to go from 0 to 1 over the walk. The value is the share of images for
    which it rises by more than 0.05 in the last 10 steps. It warns if that is more than the threshold, and more than
    chance would give.

    Source: Pintor et al. 2022, indicator 5.
    """
    best = subject.course.loss.cummax(0).values
    whole = (best[-1] - best[0]).clamp(min=1e-12)
    rising = int(((best[-1] - best[-11]) / whole > 0.05).sum())
    n = best.shape[1]
    detail = f"the loss of {rising} of {n} images still rises in the last 10 of {WALK} steps"
    return Finding(judgement(warn=beyond(rising, n, 0.1)), rising / n, n, detail)


@check("restarts", TOLERANCE)
def restarts(subject: Subject) -> Finding:
    """Does PGD break hardly more from five starts than from one?

    The value is the share of images that only the further starts break. It warns if that is more than the threshold,
    and more than chance would give.

    Source: Carlini et al. 2019, section 5.
    """
    one = subject.result_of(PGD_SAT).broken
    late = int((subject.result_of(replace(PGD_SAT, restarts=RESTARTS)).broken & ~one).sum())
    detail = f"{late} of {len(one)} images are broken by {RESTARTS} starts but not by one"
    return Finding(judgement(warn=beyond(late, len(one), TOLERANCE)), late / len(one), len(one), detail)


@check("black-box", 0.002)
def black_box(subject: Subject) -> Finding:
    """Does an attack without gradients break hardly any image that those with gradients leave?

    The value is the share of images that Square breaks and the other attacks of its line-up do not; if no such line-up
    was run, the others are PGD and two APGD. It warns above the threshold and fails above 5 %, each if that is more
    than chance would give: the gradient is masked.

    Source: AutoAttack's flag (checks.py); Athalye et al. 2018, section 3.1; Carlini et al. 2019, section 5.
    """
    for trial, outcomes in subject.runs.items():
        if isinstance(outcomes, Outcomes) and BLACK_BOX in trial.lineup[1:] and subject.of_threat(trial):
            at = FIRST_OF_LINEUP + trial.lineup.index(BLACK_BOX)
            n = int((outcomes.broken_by != WRONG_UNATTACKED).sum())
            if n:
                return masked(int((outcomes.broken_by == at).sum()), n, f"the rest of {trial.name}")
    white = reduce(torch.logical_or, (subject.result_of(attack).broken for attack in (PGD_SAT, APGD_CE, APGD_DLR)))
    left = (~white).nonzero()[:, 0]
    if not len(left):
        raise NotRun("no image is left by PGD and APGD")
    square = Square(queries=subject.effort.queries)
    trial = Trial(BLACK_BOX, square, subject.norm.name, subject.eps, subject.seed)
    only = int(subject.tried(part(subject.attacked, left), trial).broken.sum())
    return masked(only, len(white), "PGD and APGD")


def masked(only: int, n: int, others: str) -> Finding:
    """Judge that `only` of n images were broken by the black box but not by the other attacks."""
    verdict = judgement(fail=beyond(only, n, GROSS), warn=beyond(only, n, 0.002))
    return Finding(verdict, only / n, n, f"{only} of {n} images are broken by {BLACK_BOX} but not by {others}")


@check("unbounded", 0.0)
def unbounded(subject: Subject) -> Finding:
    """Does PGD break every image when it may change it at will?

    The value is the accuracy that is left when every pixel may take any value. It warns if any is left, and fails if
    it is as much as guessing would give: the attack cannot see where to go.

    Source: Athalye et al. 2018, section 3.1; Carlini et al. 2019, section 5.
    """
    survive = ~subject.result_of(PGD_SAT, eps=diagonal(subject)).broken
    n, left = len(survive), int(survive.sum())
    verdict = judgement(fail=left > 0 and left * subject.images.classes >= n, warn=left > 0)
    return Finding(verdict, left / n, n, f"{left} of {n} images survive an attack that may change them at will")


def diagonal(subject: Subject) -> Fraction:
    """The radius of a ball that holds the whole box of pixels."""
    return Fraction(float(subject.norm.size(torch.ones_like(subject.attacked.x[:1]))))


@check("eps-monotone", TOLERANCE)
def eps_monotone(subject: Subject) -> Finding:
    """Does PGD break no fewer images the larger the radius is?

    Five radii from eps/4 to 4 eps are tried. The value is the largest share of images that a radius gains over the next
    larger one.

    Source: Athalye et al. 2018, section 3.1; Carlini et al. 2019, section 5.
    """
    limit = diagonal(subject)
    radii = list(dict.fromkeys(min(factor * subject.eps, limit) for factor in FACTORS))
    broken = [subject.result_of(PGD_SAT, eps=radius).broken for radius in radii]
    pairs = zip(broken, broken[1:], radii, radii[1:], strict=False)
    findings = [
        misordered(a, b, (f"eps {float(small):.3g}", f"eps {float(large):.3g}")) for a, b, small, large in pairs
    ]
    return max(findings, key=lambda finding: (finding.verdict == "fail", finding.value or 0.0))


@check("random-noise", TOLERANCE)
def random_noise(subject: Subject) -> Finding:
    """Does PGD break no fewer images than random perturbations of the same size?

    Source: Athalye et al. 2018, section 3.1; Carlini et al. 2019, section 5.
    """
    points = f"{subject.effort.points} random points"
    return misordered(subject.noise, subject.result_of(PGD_SAT).broken, (points, "PGD-20"))


@check("loss-choice", 0.03)
def loss_choice(subject: Subject) -> Finding:
    """Do APGD on the cross-entropy and APGD on the DLR break about as many images?

    The value is the difference in accuracy. It warns if that is more than the threshold, and more than chance would
    give: the accuracy under an attack that uses one loss alone is then too high.

    Source: Croce and Hein 2020, section 4.
    """
    ce, dlr = subject.result_of(APGD_CE).broken, subject.result_of(APGD_DLR).broken
    more, less, n = int((ce & ~dlr).sum()), int((dlr & ~ce).sum()), len(ce)
    gap = abs(more - less) / n
    detail = f"of {n} images {more} are broken by the cross-entropy alone, {less} by the other loss alone"
    bad = gap > 0.03 and outweighs(max(more, less), min(more, less))
    return Finding(judgement(warn=bad), gap, n, detail)


@check("logit-scale", TOLERANCE)
def logit_scale(subject: Subject) -> Finding:
    """Does PGD break hardly more when the logits are divided so that the mean margin is 1?

    The value is the share of images that this gains. It warns if that is more than the threshold, and more than chance
    would give; it fails above 5 % if those gained also outweigh those lost: the cross-entropy then vanishes, and
    attacks that follow it see nothing.

    Source: Carlini and Wagner 2017, section IV; Croce and Hein 2020, section 4.
    """
    right = (subject.clean.argmax(1) == subject.shown.y).nonzero()[:, 0]
    mean = float(-margin(subject.clean[right], subject.shown.y[right]).mean())
    plain = subject.result_of(PGD_SAT).broken
    scaled = subject.result_of(PGD_SAT, temperature=max(mean, 1e-6)).broken
    more, less, n = int((scaled & ~plain).sum()), int((plain & ~scaled).sum()), len(plain)
    gain, certain = (more - less) / n, outweighs(more, less)
    verdict = judgement(fail=certain and gain > GROSS, warn=beyond(more - less, n, TOLERANCE))
    detail = f"mean margin {mean:.3g}; scaled to 1, {more} of {n} more images are broken and {less} fewer"
    return Finding(verdict, gain, n, detail)


@check("re-prediction", 0.001)
def re_prediction(subject: Subject) -> Finding:
    """Are adversarial images classified the same in batches of another size?

    The value is the share of predictions that flip. It warns if that is more than the threshold, and more than chance
    would give.

    Source: RobustBench issue 7.
    """
    if subject.random:
        raise NotRun("the model's answers are random")
    found = subject.result_of(PGD_SAT)
    flips = int((subject.logits(found.adv, batch_size=7).argmax(1) != found.logits.argmax(1)).sum())
    n = len(found.adv)
    return Finding(
        judgement(warn=beyond(flips, n, 0.001)), flips / n, n, f"{flips} of {n} predictions flip in batches of 7"
    )


@check("rounding")
def rounding(subject: Subject) -> Finding:
    """How many adversarial images are classified correctly again when their pixels are rounded to 8 bits?

    Only reported: the threat model is one of real numbers, the pictures in the world are not.

    Source: users' reports.
    """
    found = subject.result_of(PGD_SAT)
    n = int(found.broken.sum())
    if not n:
        raise NotRun("PGD breaks no image")
    rounded = (found.adv * 255).round() / 255
    healed = int((subject.logits(rounded).argmax(1) == subject.attacked.y)[found.broken].sum())
    return Finding("pass", healed / n, n, f"{healed} of {n} broken images are right again after rounding to 8 bits")
