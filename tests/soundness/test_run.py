from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from bench.attacks.trial import for_random_model, plan
from bench.data.images import images_from_arrays
from bench.errors import BadBudget, BadOption
from bench.evaluation.evaluate import evaluate
from bench.soundness.run import ALLOWED, CHECKS, run_checks

from .conftest import EPS
from .impostors import MODELS, noisy

HONEST = ("natural", "pgd-at", "trades", "rslad", "absld", "adr+wa", "trades+awp", "untrained")
NAMED = {check.name: check for check in CHECKS}


def verdicts(model, images, *, eps=EPS, norm="Linf", **options):
    return {v.name: v for v in run_checks(model, images, norm=norm, eps=eps, seed=0, **options)}


def recorded(checkpoint):
    """Hits and number of images of the clean accuracy that training noted last."""
    row = checkpoint.history[-1]
    return sum(row["hits_clean"]), sum(row["n"])


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_fails_no_check(honest, trained, images, name):
    net, trainee = honest(name), name != "untrained"
    runs = dict(evaluate(net, images, plan("smoke", eps=EPS, batch_size=240)))
    found = verdicts(net, images, runs=runs, recorded_clean=recorded(trained(name)) if trainee else None)
    assert list(found) == list(NAMED)
    assert [v for v in found.values() if v.verdict == "fail"] == []
    excused = {"black-box", "rounding"} if trainee else {"black-box", "rounding", "clean-accuracy"}
    assert {v.name for v in found.values() if v.verdict == "not-run"} <= excused
    assert found["cost"].value < ALLOWED


@pytest.mark.parametrize(("impostor", "caught_by"), MODELS.items(), ids=[made.__name__ for made in MODELS])
def test_an_impostor_is_caught(honest, images, impostor, caught_by):
    found = verdicts(impostor(honest("natural")), images, checks=[NAMED[name] for name in caught_by])
    assert {v.name: v.verdict for v in found.values()} == dict.fromkeys(caught_by, "fail")


@pytest.mark.parametrize("name", ["detached", "blinding", "noisy"])
def test_what_cannot_be_asked_of_an_impostor_is_not_run_and_says_why(honest, images, name):
    (impostor,) = (made for made in MODELS if made.__name__ == name)
    found = verdicts(impostor(honest("natural")), images)
    assert list(found) == list(NAMED)
    silent = [v for v in found.values() if v.verdict == "not-run" and not v.detail]
    assert silent == []


def test_a_random_model_is_examined_in_expectation_and_by_vote(honest, images):
    net = noisy(honest("natural"))
    without = verdicts(net, images)
    assert without["determinism"].verdict == "fail"
    assert without["fgsm-vs-pgd"].verdict == "not-run"
    trials = for_random_model(plan(["fgsm"], eps=EPS, batch_size=240), eot=3, votes=5, batch_size=240)
    runs = dict(evaluate(net, images, trials))
    checks = [NAMED[name] for name in ("determinism", "fgsm-vs-pgd", "random-noise", "attack-strength", "cost")]
    averaged = verdicts(net, images, runs=runs, checks=checks)
    assert averaged["determinism"].verdict == "warn"
    assert "expectation over 3" in averaged["determinism"].detail
    assert "fail" not in {v.verdict for v in averaged.values()}
    assert averaged["fgsm-vs-pgd"].verdict == "pass"


def test_verdicts_are_the_same_again_and_leave_the_model_and_all_randomness_alone(honest, images):
    net = noisy(honest("pgd-at"))
    net.net.bn1.train()
    net.net.linear.bias.requires_grad_(False)
    checks = [NAMED[name] for name in ("eval-mode", "determinism", "logits", "batch-invariance")]

    def state():
        return [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]

    as_it_was, first = state(), []
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    for verdict in run_checks(net, images, norm="Linf", eps=EPS, seed=0, checks=checks):
        first.append(verdict)
        assert state() == as_it_was
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert list(run_checks(net, images, norm="Linf", eps=EPS, seed=0, checks=checks)) == first


class Seen(nn.Module):
    """Remembers all that it is asked about."""

    def __init__(self, net):
        super().__init__()
        self.net, self.asked = net, []

    def forward(self, x):
        self.asked.append(x.detach().clone())
        return self.net(x)


def test_the_seed_chooses_the_images(honest, images):
    pixels, labels = images.batch(slice(None))

    def drawn(seed):
        net = Seen(honest("untrained"))
        (verdict,) = run_checks(net, images, norm="L2", eps=EPS, seed=seed, checks=[NAMED["logits"]])
        assert verdict.n == 4 * len(images) // 5
        return (pixels.flatten(1)[:, None] == torch.cat(net.asked).flatten(1)).all(2).any(1)

    one, two = drawn(0), drawn(1)
    assert one.sum() == two.sum() == 4 * len(images) // 5
    assert len(labels[one].bincount()) == len(labels[two].bincount()) == 10
    assert torch.equal(drawn(0), one)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_gains_nothing_over_pgd_within_l2_either(honest, images, seed):
    checks = [NAMED["random-noise"]]
    (verdict,) = run_checks(honest("pgd-at"), images, norm="L2", eps=EPS, seed=seed, checks=checks)
    assert verdict.verdict == "pass"


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("classes", "n"), [(2, 30), (3, 30), (2, 2)])
def test_few_classes_and_few_images_are_no_trouble(norm, classes, n):
    labels = torch.arange(n).remainder(classes)
    pixels = torch.zeros(n, 1, 4, 4)
    pixels[torch.arange(n), 0, labels] = 0.8
    data = images_from_arrays("rows", "test", pixels.numpy(), labels.numpy(), "abc"[:classes])
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes, bias=False))
    with torch.no_grad():
        net[1].weight.zero_()
        for k in range(classes):
            net[1].weight[k, 4 * k : 4 * k + 4] = 1.0
    found = verdicts(net, data, norm=norm, eps=Fraction(1, 10))
    assert [v for v in found.values() if v.verdict == "fail"] == []


def test_a_model_that_is_never_right_is_not_attacked(images):
    class Wrong(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 10) + 0 * x.mean((1, 2, 3))[:, None] + torch.arange(10)

    data = images.select(images.labels.argsort()[:40])
    found = verdicts(Wrong(), data)
    assert found["fgsm-vs-pgd"].verdict == "not-run"
    assert "none of" in found["fgsm-vs-pgd"].detail
    assert found["logits"].verdict == "pass"


def test_a_model_that_does_not_answer_raises_nothing(images):
    class Mute(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), torch.nan)

    found = verdicts(Mute(), images)
    assert found["logits"].verdict == "not-run"
    assert "NaN" in found["logits"].detail


def test_want_of_memory_is_a_reason_not_a_crash(images):
    class Large(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError

    found = verdicts(Large(), images, checks=[NAMED["logits"]])
    assert (found["logits"].verdict, "memory" in found["logits"].detail) == ("not-run", True)


def test_more_images_are_asked_for_with_all(honest, images):
    only = [NAMED["fgsm-vs-pgd"]]
    default = verdicts(honest("pgd-at"), images, checks=only)["fgsm-vs-pgd"]
    everything = verdicts(honest("pgd-at"), images, checks=only, which="all")["fgsm-vs-pgd"]
    assert default.n < 48 < everything.n <= 240


def test_wrong_options_are_refused(honest, images):
    with pytest.raises(BadOption, match="none, default or all"):
        verdicts(honest("untrained"), images, which="some")
    with pytest.raises(BadBudget, match="choose one of Linf, L2"):
        verdicts(honest("untrained"), images, norm="L7")


def test_every_check_has_a_name_a_question_and_a_source():
    assert len(NAMED) == len(CHECKS)
    for check in CHECKS:
        assert check.asks.endswith("?")
        assert "Source:" in (check.find.__doc__ or "")
