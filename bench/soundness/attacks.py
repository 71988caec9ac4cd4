"""Checks of the attacks that were run on the model: did they do their work?

The answer is read from their outcomes. Where those do not tell, an attack is run once more on a few images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.pgd import FGSM_ATTACK
from bench.attacks.trial import Trial
from bench.evaluation.attacked import ABSOLUTE_SLACK, RELATIVE_SLACK, attacked
from bench.evaluation.chunk import Chunk
from bench.evaluation.meter import Meter
from bench.norms import Norm, norm
from bench.outcomes import SURVIVED, WRONG_UNATTACKED, Outcomes
from bench.soundness.check import Finding, check
from bench.soundness.measured import NotRun
from bench.soundness.sampling import part
from bench.soundness.strength import TOLERANCE, misordered
from bench.soundness.subject import Subject

OWN = 8
"""An attack is run once more on at most so many images."""
ROUNDING = 1e-5
"""Divergence, in nats, that may come from rounding alone, when the same images are answered in another batch."""
HARDLY = 0.01
"""A move below this share of eps counts as none."""
UNKNOWN = 1000
"""Passes per image that are assumed of an attack that does not say what it costs."""


def judged(subject: Subject) -> list[tuple[Trial, Outcomes]]:
    """The attacks that were judged, with their outcomes.

    Raises:
        NotRun: there are none.
    """
    runs = [
        (trial, run)
        for trial, run in subject.runs.items()
        if trial.attack is not None and isinstance(run, Outcomes) and len(run)
    ]
    if not runs:
        raise NotRun("no attack was run")
    return runs


@check("budget", 0)
def budget(subject: Subject) -> Finding:
    """Did every attack stay within its ball and the box?

    The value counts attacks that did not. Every image that an attack returns is verified before it is judged; this
    check reports how that went.

    Source: AttackBench (Cinà et al. 2025); torchattacks and foolbox users' reports.
    """
    runs = [run for trial, run in subject.runs.items() if trial.attack is not None]
    if not runs:
        raise NotRun("no attack was run")
    n = sum(len(run) for run in runs if isinstance(run, Outcomes))
    stopped = [str(run) for run in runs if not isinstance(run, Outcomes)]
    if stopped:
        return Finding("fail", len(stopped), n, " ".join(stopped[0].split()))
    return Finding("pass", 0, n, f"every image of {len(runs)} attacks lies within its ball and the box")


@check("attack-moves", 0)
def attack_moves(subject: Subject) -> Finding:
    """Did every attack move its images at all?

    The value counts attacks that returned what they were given. An attack has moved its images if a prediction changed,
    or any softmax by more than rounding. If neither happened, it is run once more on a few images to see.

    Source: Pintor et al. 2022 (silent failures of attacks).
    """
    idle, n = [], 0
    for trial, outcomes in judged(subject):
        tried = outcomes.broken_by != WRONG_UNATTACKED
        n += int(tried.sum())
        changed = (outcomes.broken_by[tried] != SURVIVED) | (outcomes.divergence[tried] > ROUNDING)
        if changed.any() or not tried.any():
            continue
        few = part(subject.attacked, torch.arange(min(OWN, len(subject.attacked.y)), device=subject.device))
        moved = norm(trial.norm).size(subject.tried(few, trial).adv - few.x)
        if moved.max() < HARDLY * float(trial.eps):
            idle.append(trial.name)
    if idle:
        return Finding("fail", len(idle), n, f"{', '.join(idle)} returned the images as they were")
    return Finding("pass", 0, n, "every attack moved its images")


@check("attack-strength", TOLERANCE)
def attack_strength(subject: Subject) -> Finding:
    """Did every attack break no fewer images than random noise, or than FGSM?

    The value is the largest share of images that noise or FGSM gains over an attack. It fails if an attack is weaker
    than noise, and warns if one is weaker than FGSM.

    Source: Carlini et al. 2019, section 5.
    """
    findings = []
    for trial, outcomes in judged(subject):
        if not subject.of_threat(trial):
            continue
        _, mine, theirs = np.intersect1d(subject.attacked.sample, outcomes.sample, return_indices=True)
        if not len(mine):
            continue
        rows = torch.from_numpy(mine).to(subject.device)
        broken = torch.from_numpy(~outcomes.correct[theirs]).to(subject.device)
        fgsm = subject.result_of(FGSM_ATTACK).broken
        findings.append(misordered(subject.noise[rows], broken, ("random noise", trial.name)))
        findings.append(misordered(fgsm[rows], broken, ("FGSM", trial.name), otherwise="warn"))
    if not findings:
        raise NotRun("no attack of this threat model was run on the images of the checks")
    return max(findings, key=lambda finding: (("pass", "warn", "fail").index(finding.verdict), finding.value))


@check("silent-success", 0)
def silent_success(subject: Subject) -> Finding:
    """Does every attack return a misclassified image where it has seen one within its budget?

    The value counts images for which it did not. A single one warns: the accuracy under that attack is too high. Every
    attack that is cheap enough is run once more on a few images, one by one, and all that it shows the model is noted.

    Source: Pintor et al. 2022, indicator 3.
    """
    if subject.random:
        raise NotRun("the model's answers are random")
    lost, n, at_fault, passed_over = 0, 0, [], []
    for trial, _ in judged(subject):
        count = min(OWN, len(subject.attacked.y), subject.effort.own // cost(trial, subject.images.classes))
        if not count:
            passed_over.append(trial.name)
        for row in torch.arange(count, device=subject.device)[:, None]:
            image = part(subject.attacked, row)
            watch = Watch(subject.search, image, norm(trial.norm), float(trial.eps))
            adv = attacked(Meter(watch), image, trial).adv
            n += 1
            if watch.succeeded and subject.logits(adv).argmax(1) == image.y:
                lost += 1
                at_fault.append(trial.name)
    if not n:
        raise NotRun(f"too dear to be run once more: {', '.join(passed_over)}")
    if lost:
        return Finding("warn", lost, n, f"{', '.join(dict.fromkeys(at_fault))} saw {lost} of {n} broken in vain")
    dear = f"; too dear to be run once more: {', '.join(passed_over)}" if passed_over else ""
    return Finding("pass", 0, n, f"no success was given away{dear}")


def cost(trial: Trial, classes: int) -> int:
    """Passes that an attack is expected to take for an image."""
    return (trial.attack and sum(trial.attack.passes(classes))) or UNKNOWN


class Watch(nn.Module):
    """A model that notes whether it was shown a misclassified image within the budget.

    Attributes:
        succeeded: whether it was.
    """

    def __init__(self, model: nn.Module, image: Chunk, geometry: Norm, eps: float) -> None:
        """Watch what an attack asks `model` about one image."""
        super().__init__()
        self.model, self.image, self.geometry, self.eps = model, image, geometry, eps
        self.succeeded = False
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) the model's answer to versions of the image."""
        logits: Tensor = self.model(x)
        seen = x.detach()
        size = self.geometry.size(seen - self.image.x)
        boxed = ((seen >= -ABSOLUTE_SLACK) & (seen <= 1 + ABSOLUTE_SLACK)).flatten(1).all(1)
        within = (size <= self.eps * (1 + RELATIVE_SLACK) + ABSOLUTE_SLACK) & boxed
        self.succeeded |= bool((within & (logits.argmax(1) != self.image.y)).any())
        return logits
