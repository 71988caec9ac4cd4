from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from bench.soundness import gradients
from bench.soundness.run import run_checks

from .impostors import Around


def asked(check, model, images, *, norm="Linf", eps=Fraction(1, 10)):
    (verdict,) = run_checks(model, images, norm=norm, eps=eps, seed=0, checks=[check])
    return verdict


@pytest.mark.parametrize(
    ("count", "verdict"), [(0, "pass"), (1, "pass"), (2, "warn"), (3, "warn"), (4, "fail"), (64, "fail")]
)
def test_a_share_of_useless_gradients(count, verdict):
    found = gradients.useless(torch.arange(64) < count, "zero")
    assert (found.verdict, found.value, found.n) == (verdict, count / 64, 64)


def test_gradients_of_both_losses_and_both_places_count(honest, images):
    """Logits in the thousands: the cross-entropy alone has none. Clamped pixels: none at the image, some near it."""
    saturated = asked(gradients.zero_gradient, Around(honest("natural"), after=lambda z: 1e4 * z), images)
    assert saturated.verdict == "fail"
    square = Around(honest("natural"), before=lambda x: x.where(x > 1.5, x.detach()))
    assert asked(gradients.zero_gradient, square, images).verdict == "fail"
    assert asked(gradients.nan_gradient, square, images).verdict == "pass"


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_model_is_foretold_exactly(images, norm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(10).repeat_interleave(7, 1)[:, :64])
    found = asked(gradients.finite_difference, net, images, norm=norm)
    assert found.verdict == "pass"
    assert found.value == pytest.approx(1, abs=1e-3)


def test_a_gradient_of_the_wrong_sign_is_no_gradient(honest, images):
    turned = Around(honest("natural"), before=lambda x: 2 * x.detach() - x)
    found = asked(gradients.finite_difference, turned, images)
    assert found.verdict == "fail"
    assert found.value < -0.9
    missing = asked(gradients.finite_difference, Around(honest("natural"), before=torch.Tensor.detach), images)
    assert (missing.verdict, missing.value) == ("fail", 0)
    assert "no gradient" in missing.detail
