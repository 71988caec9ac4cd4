from __future__ import annotations

import importlib.util
import pickle
import random
import sys
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks import external_names
from bench.attacks.external import ROUNDING, External, Foolbox, Plain, TorchAttacks, without_rounding
from bench.attacks.trial import fitted, plan
from bench.errors import BadBudget, BadModel, BadOption, OutOfBudget, UnknownName
from bench.evaluation.chunk import Chunk
from bench.evaluation.judge import Case, judge
from bench.norms import L2, LINF
from bench.randomness import Streams

needs_torchattacks = pytest.mark.skipif(
    importlib.util.find_spec("torchattacks") is None,
    reason="torchattacks is not installed; it is in the extra external",
)
needs_foolbox = pytest.mark.skipif(
    importlib.util.find_spec("foolbox") is None, reason="foolbox is not installed; it is in the extra external"
)
EPS = Fraction(1, 10)


class Linear(nn.Module):
    """Logits (s, -s, -9, -9) of a linear score s of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.linspace(-1, 1, 75).sin() + 0.01
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x):
        score = x.flatten(1) @ self.weight
        far = torch.full_like(score, -9)
        return torch.stack([score, -score, far, far], 1)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Linear().eval()


@pytest.fixture(scope="module")
def chunk(net) -> Chunk:
    """Eight images of 3x5x5, in the middle of the box, classified as labelled."""
    x = 0.3 + 0.4 * Streams(3, torch.arange(8)).uniform((3, 5, 5))
    return Chunk(x, net(x).argmax(1), np.arange(8, dtype=np.uint32), 4)


def trial(text: str, norm: str = "Linf", eps: Fraction = EPS, **options):
    return fitted(plan([text], norm=norm, eps=eps, batch_size=8, **options), 4)[1]


def found(text: str, net: nn.Module, chunk: Chunk, norm: str = "Linf", eps: Fraction = EPS) -> torch.Tensor:
    kept = {}
    judge(
        Case(net, chunk, trial(text, norm, eps), keep=lambda _, sample, delta: kept.update(sample=sample, delta=delta))
    )
    assert np.array_equal(kept["sample"], chunk.sample)
    return kept["delta"]


def downhill(net: nn.Module, chunk: Chunk) -> torch.Tensor:
    """(B,C,H,W) direction in which the score of the true class falls, by the formula."""
    sign = torch.where(chunk.y == 0, -1.0, 1.0)
    return (sign[:, None] * net.weight).reshape(chunk.x.shape)


@dataclass(frozen=True)
class Fake(External):
    """A library of the tests' own."""

    library = "fake"
    given = frozenset({"eps"})

    def kinds(self):
        def nothing(eps, steps=7):
            return eps

        def failing(eps):
            raise RuntimeError("no luck today\nnor tomorrow")

        return {"Nothing": nothing, "Far": nothing, "Drawing": nothing, "Failing": failing, "Odd": nothing}

    def norms(self):
        return None

    def found(self, model, x, y, *, eps, norm, seed):
        if self.attack == "Failing":
            self._made(eps=eps)
        if self.attack == "Odd":
            return "no tensor"
        if self.attack == "Drawing":
            drawn = torch.rand(1).item() + np.random.rand() + random.random()
            return x + eps * drawn / 4
        return x + eps * (1.001 if self.attack == "Far" else 1)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(external_names, "LIBRARIES", {"fake": Fake})


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(BadOption, match=r"needs the package torchattacks .*pip install 'evenbench\[external\]'"):
        trial("torchattacks:PGD")


def test_the_fingerprint_holds_library_version_and_arguments(fake, monkeypatch):
    monkeypatch.setattr(Fake, "uses", ("numpy",))
    spec = trial("fake:Nothing(steps=3)").spec
    assert spec["attack"]["uses"] == {"numpy": np.__version__}
    assert spec["attack"]["fields"] == {"attack": "Nothing", "arguments": (("steps", 3),)}
    assert spec["batch_size"] == 8
    ids = {
        trial(text).attack_id for text in ("fake:Nothing", "fake:Nothing(steps=3)", "fake:Nothing(steps=4)", "fake:Far")
    }
    assert len(ids) == 4
    assert trial("fake:Nothing( steps=3 )").attack_id == trial("fake:Nothing(steps=3)").attack_id
    again = pickle.loads(pickle.dumps(trial("fake:Nothing(steps=3)")))
    assert again == trial("fake:Nothing(steps=3)")


def test_arguments_are_held_against_what_the_attack_takes(fake):
    with pytest.raises(UnknownName, match="no argument of fake:Nothing is called 'step'; did you mean 'steps'"):
        trial("fake:Nothing(step=3)")
    with pytest.raises(BadOption, match="sets 'eps', which the benchmark gives it"):
        trial("fake:Nothing(eps=0.5)")
    with pytest.raises(UnknownName, match="no attack of fake is called 'Nothin'; did you mean 'Nothing'"):
        trial("fake:Nothin")


def test_passes_are_the_steps_where_it_says_so(fake):
    assert tuple(Fake("Nothing").passes(10)) == (7, 7)
    assert tuple(Fake("Nothing", (("steps", 3),)).passes(10)) == (3, 3)
    assert tuple(Fake("Failing").passes(10)) == (0, 0)


def test_what_leaves_the_ball_is_refused_with_the_librarys_name(fake, net, chunk):
    judge(Case(net, chunk, trial("fake:Nothing")))
    with pytest.raises(OutOfBudget, match=r"attack 'fake:Far' moved sample 0 by 0\.1001"):
        judge(Case(net, chunk, trial("fake:Far")))
    with pytest.raises(OutOfBudget, match="attack 'fake:Odd' returned str"):
        judge(Case(net, chunk, trial("fake:Odd")))
    with pytest.raises(BadOption, match="fake:Failing failed with RuntimeError: no luck today"):
        judge(Case(net, chunk, trial("fake:Failing")))


def test_randomness_is_the_seeds_and_nobody_elses(fake, net, chunk):
    attack = Fake("Drawing")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    calls = [
        attack(net, chunk.x, chunk.y, eps=0.1, norm=LINF, streams=Streams(seed, torch.arange(8)))
        for seed in (5, 5, 6, -1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(calls[0], calls[1])
    assert not torch.equal(calls[0], calls[2])


@pytest.mark.parametrize("norm", [LINF, L2])
def test_rounding_is_brought_back_and_nothing_more(norm):
    x = Streams(1, torch.arange(6)).uniform((3, 4, 4)) * 0.5 + 0.25
    direction = norm.steepest(Streams(2, torch.arange(6)).normal((3, 4, 4)))
    slight = x + (0.1 + 0.8 * ROUNDING) * direction
    back = without_rounding(slight, x, 0.1, norm)
    assert (norm.size(slight.double() - x.double()) > 0.1 + 0.4 * ROUNDING).all()
    assert (norm.size(back.double() - x.double()) <= 0.1 * (1 + 1e-5)).all()
    torch.testing.assert_close(back, slight, atol=2 * ROUNDING, rtol=0)
    far = x + (0.1 + 3 * ROUNDING) * direction
    assert torch.equal(without_rounding(far, x, 0.1, norm), far)
    inside = x + 0.05 * direction
    assert torch.equal(without_rounding(inside, x, 0.1, norm), inside)


def test_rounding_at_the_border_of_the_box():
    x = torch.tensor([0.0, 1.0, 0.5]).reshape(3, 1, 1, 1)
    adv = torch.tensor([-5e-7, 1 + 5e-7, float("nan")]).reshape(3, 1, 1, 1)
    back = without_rounding(adv, x, 0.1, LINF).flatten()
    assert back[:2].tolist() == [0, 1]
    assert back[2].isnan()
    out = torch.tensor([-1e-4, 1 + 1e-4, 0.5]).reshape(3, 1, 1, 1)
    assert torch.equal(without_rounding(out, x, 0.1, LINF), out)


def test_the_wrapped_model_has_a_device_and_gives_contiguous_gradients():
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).eval()
    seen = Plain(nn.Sequential(model, nn.Flatten()).eval(), torch.device("cpu"))
    assert next(Plain(nn.Flatten(), torch.device("cpu")).parameters()).device.type == "cpu"
    assert not seen.training
    x = torch.rand(2, 3, 5, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(seen(x).sum(), x)
    assert grad.is_contiguous()


@needs_torchattacks
def test_torchattacks_fgsm_is_the_formula(net, chunk):
    delta = found("torchattacks:FGSM", net, chunk)
    torch.testing.assert_close(delta, 0.1 * downhill(net, chunk).sign(), atol=1e-6, rtol=0)


@needs_torchattacks
def test_torchattacks_pgd_takes_its_arguments(net, chunk):
    step = found("torchattacks:PGD(steps=1,alpha=0.03,random_start=False)", net, chunk)
    torch.testing.assert_close(step, 0.03 * downhill(net, chunk).sign(), atol=1e-6, rtol=0)
    walk = found("torchattacks:PGD(steps=20,alpha=0.03)", net, chunk)
    torch.testing.assert_close(walk, 0.1 * downhill(net, chunk).sign(), atol=1e-6, rtol=0)


@needs_torchattacks
def test_torchattacks_in_l2_is_the_formula(net, chunk):
    delta = found("torchattacks:PGDL2(steps=30)", net, chunk, "L2", Fraction(1, 4))
    unit = downhill(net, chunk) / net.weight.norm()
    torch.testing.assert_close(delta, 0.25 * unit, atol=1e-3, rtol=0)


@needs_torchattacks
def test_what_takes_no_eps_counts_only_within_the_ball(net, chunk):
    """DeepFool moves an image over the plane s = 0, to a distance of (1 + overshoot) |s| / |w| times 2 / 2."""
    distance = (chunk.x.flatten(1) @ net.weight).abs().double() * 1.02 / net.weight.norm()
    eps = float(distance.sort().values[3:5].mean())
    delta = found("torchattacks:DeepFool", net, chunk, "L2", Fraction(eps))
    moved = delta.flatten(1).norm(dim=1)
    reached = distance <= eps
    assert reached.sum() == 4
    assert moved[~reached].eq(0).all()
    torch.testing.assert_close(moved[reached].double(), distance[reached], atol=1e-4, rtol=1e-3)


@needs_torchattacks
def test_torchattacks_is_refused_where_the_norm_is_not_its_own():
    for text, norm in (("torchattacks:PGD", "L2"), ("torchattacks:PGDL2", "Linf"), ("torchattacks:OnePixel", "Linf")):
        with pytest.raises(BadBudget, match=f"{text} is an attack of L.*, not of {norm}; choose"):
            trial(text, norm)
    assert trial("torchattacks:Square", "L2").attack == TorchAttacks("Square")


@needs_torchattacks
def test_the_number_of_classes_is_given_and_hashed():
    assert trial("torchattacks:APGDT").attack == TorchAttacks("APGDT", (("n_classes", 4),))
    assert trial("torchattacks:APGDT(n_classes=10)").attack == TorchAttacks("APGDT", (("n_classes", 10),))
    assert trial("torchattacks:APGDT").name == "torchattacks:APGDT"


@needs_torchattacks
def test_wrappers_and_attacks_that_lack_an_argument_are_refused():
    with pytest.raises(UnknownName, match="no attack of torchattacks is called 'LGV'"):
        trial("torchattacks:LGV")


@needs_torchattacks
def test_a_model_without_gradient_is_told_as_for_our_own_attacks(chunk):
    class Detached(Linear):
        def forward(self, x):
            return super().forward(x.detach())

    with pytest.raises(BadModel, match="passes no gradient to its pixels, which 'torchattacks:FGSM' needs"):
        judge(Case(Detached().eval(), chunk, trial("torchattacks:FGSM")))


@needs_foolbox
def test_foolbox_fgsm_is_the_formula(net, chunk):
    delta = found("foolbox:LinfFastGradientAttack", net, chunk)
    torch.testing.assert_close(delta, 0.1 * downhill(net, chunk).sign(), atol=1e-6, rtol=0)
    delta = found("foolbox:L2FastGradientAttack", net, chunk, "L2", Fraction(1, 4))
    torch.testing.assert_close(delta, 0.25 * downhill(net, chunk) / net.weight.norm(), atol=1e-6, rtol=0)


@needs_foolbox
def test_a_minimisation_attack_of_foolbox_is_clipped_to_the_ball(net, chunk):
    """In Linf, the plane s = 0 lies |s| / |w|_1 away; DeepFool oversteps it by 2 percent, and by 1e-4 in the logits."""
    distance = (chunk.x.flatten(1) @ net.weight).abs() * 1.02 / net.weight.abs().sum()
    eps = float(distance.median())
    delta = found("foolbox:LinfDeepFoolAttack", net, chunk, "Linf", Fraction(eps))
    torch.testing.assert_close(delta.flatten(1).abs().amax(1), distance.clamp(max=eps), atol=2e-4, rtol=1e-3)


@needs_foolbox
def test_foolbox_is_refused_where_the_norm_is_not_its_own():
    with pytest.raises(BadBudget, match="foolbox:L2DeepFoolAttack is an attack of L2, not of Linf"):
        trial("foolbox:L2DeepFoolAttack")
    with pytest.raises(BadBudget, match="foolbox:L1FMNAttack is an attack of L1, not of Linf"):
        trial("foolbox:L1FMNAttack")
    with pytest.raises(BadBudget, match="foolbox:SpatialAttack is an attack that is held to no norm"):
        trial("foolbox:SpatialAttack")
    for norm in ("Linf", "L2"):
        assert trial("foolbox:InversionAttack", norm).attack == Foolbox("InversionAttack")


@needs_foolbox
def test_foolbox_attacks_that_cannot_be_made_or_run_are_told_in_one_line(net, chunk):
    with pytest.raises(BadOption, match=r"needs a value; write foolbox:VirtualAdversarialAttack\(steps=...\)"):
        trial("foolbox:VirtualAdversarialAttack")
    with pytest.raises(BadOption, match="cannot be made"):
        trial("foolbox:HopSkipJumpAttack(constraint='cube')", "L2")
    with pytest.raises(
        BadOption, match="failed with ValueError: BinarizationRefinementAttack requires starting_points"
    ):
        judge(Case(net, chunk, trial("foolbox:BinarizationRefinementAttack")))
