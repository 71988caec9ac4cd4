from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import pytest
import torch

from bench.attacks.ascent import ascend
from bench.attacks.base import Attack
from bench.attacks.pgd import FGSM, PGD
from bench.attacks.suite import ATTACKS
from bench.conformance.attacks import ATTACK_CHECKS
from bench.norms import per_image

ce = partial(torch.nn.functional.cross_entropy, reduction="none")


@pytest.mark.parametrize("check", ATTACK_CHECKS.values(), ids=ATTACK_CHECKS.keys())
@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_registered_attack_conforms(name, check):
    check(ATTACKS.get(name))


@dataclass(frozen=True)
class Lazy(Attack):
    """Returns its input."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        model(x)
        return x


@dataclass(frozen=True)
class Overshooting(Attack):
    """Takes eps for a little more than it is."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        return PGD()(model, x, y, eps=1.01 * eps, norm=norm, streams=streams)


@dataclass(frozen=True)
class Unboxed(Attack):
    """Forgets that pixels lie in [0, 1]."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        adv = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(ce(model(adv), y).sum(), adv)
        return x + eps * norm.steepest(grad)


@dataclass(frozen=True)
class ClampingInTheGraph(Attack):
    """Climbs in the perturbation and clamps on the way to the model, where the gradient of a clamp is 0 outside."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        radius = torch.full(y.shape, eps)
        delta = norm.noise(streams.fork("start"), x, radius)
        for _ in range(20):
            delta.requires_grad_()
            (grad,) = torch.autograd.grad(ce(model((x + delta).clamp(0, 1)), y).sum(), delta)
            delta = norm.project(delta.detach() + 0.25 * per_image(radius, x) * norm.steepest(grad), radius)
        return (x + delta).clamp(0, 1)


@dataclass(frozen=True)
class DrawingPerBatch(Attack):
    """Draws its start for the batch as a whole."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(streams.seed))
        radius = torch.full(y.shape, eps)
        return ascend(
            lambda adv: ce(model(adv), y), x, radius, radius / 20, steps=10, start=(2 * noise - 1) * eps, norm=norm
        )


@dataclass(frozen=True)
class DrawingGlobally(Attack):
    """Starts from torch's global randomness."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        radius = torch.full(y.shape, eps)
        start = (2 * torch.rand_like(x) - 1) * eps
        return ascend(lambda adv: ce(model(adv), y), x, radius, radius / 20, steps=10, start=start, norm=norm)


@dataclass(frozen=True)
class SwitchingToTrainMode(Attack):
    """Attacks in train mode and does not put it back."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        model.train()
        return FGSM()(model, x, y, eps=eps, norm=norm, streams=streams)


@dataclass(frozen=True)
class TrainingWhileItWorks(Attack):
    """Attacks in train mode and puts the mode, but not the statistics, back."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        model.train()
        adv = FGSM()(model, x, y, eps=eps, norm=norm, streams=streams)
        model.eval()
        return adv


@dataclass(frozen=True)
class PollutingGradients(Attack):
    """Calls backward, which leaves gradients in the parameters."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        adv = x.clone().requires_grad_()
        ce(model(adv), y).sum().backward()
        return (x + eps * norm.steepest(adv.grad)).clamp(0, 1)


@dataclass(frozen=True)
class WorkingInPlace(Attack):
    """Moves the images it was given."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        adv = FGSM()(model, x, y, eps=eps, norm=norm, streams=streams)
        return x.copy_(adv)


@dataclass(frozen=True)
class CarryingTheGraph(Attack):
    """Returns images that still require a gradient."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        return FGSM()(model, x, y, eps=eps, norm=norm, streams=streams).requires_grad_()


@dataclass(frozen=True)
class Boasting(Attack):
    """Claims every image."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        return PGD()(model, x, y, eps=eps, norm=norm, streams=streams)._replace(by=torch.zeros_like(y))


@dataclass(frozen=True)
class Undercounting(Attack):
    """Looks once more than it says."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        model(x)
        return PGD()(model, x, y, eps=eps, norm=norm, streams=streams)


@dataclass(frozen=True)
class Misattributing(Attack):
    """Credits a second attack, but is only one."""

    def __call__(self, model, x, y, *, eps, norm, streams):
        answer = PGD()(model, x, y, eps=2 * eps, norm=norm, streams=streams)
        return answer._replace(by=2 * answer.by + 1)


class Changeable:
    """No dataclass at all."""

    version = 1


@dataclass(frozen=True)
class Unprintable(FGSM):
    """Has a field that cannot be written down."""

    model: object = field(default_factory=object)


IMPOSTORS = {
    Lazy(): "breaks_what_can_be_broken",
    Overshooting(): "keeps_to_the_budget",
    Unboxed(): "keeps_to_the_budget",
    ClampingInTheGraph(): "breaks_what_can_be_broken",
    Boasting(): "tells_the_truth",
    Undercounting(): "tells_the_truth",
    Misattributing(): "tells_the_truth",
    DrawingPerBatch(): "an_image_does_not_depend_on_its_batch",
    DrawingGlobally(): "can_be_repeated",
    SwitchingToTrainMode(): "leaves_the_model_alone",
    TrainingWhileItWorks(): "leaves_the_model_alone",
    PollutingGradients(): "leaves_the_model_alone",
    WorkingInPlace(): "leaves_the_model_alone",
    CarryingTheGraph(): "keeps_to_the_budget",
    Unprintable(): "is_a_value",
    Changeable(): "is_a_value",
}


@pytest.mark.parametrize("impostor", IMPOSTORS, ids=lambda impostor: type(impostor).__name__)
def test_every_impostor_is_caught_by_its_check(impostor):
    with pytest.raises(AssertionError, match=type(impostor).__name__):
        ATTACK_CHECKS[IMPOSTORS[impostor]](impostor)
