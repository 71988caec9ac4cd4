from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field, replace
from inspect import getmembers, isclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import bench
import methods
from bench.conformance.description import LONGEST
from bench.conformance.methods import METHOD_CHECKS, RECIPE_CHECKS
from bench.losses import cross_entropy
from bench.training.inner import Inner, switched
from bench.training.method import METHODS, Method, compose
from bench.training.recipe import OneHot, Recipe, Stateless, Uniform, blend
from bench.training.schedule import Schedule
from bench.training.values import Reach, Targets, Weights, constant
from methods.pgd_at import PGDAT

COMBINATIONS = [
    "trades+adr",
    "adr+wa+awp",
    "trades+dafa+adr+awp",
    "trades+cfa",
    "fat+cfa+awp",
    "mart+wat+wa",
    "bat+adr+fawa",
    "faal+trades",
    "frl+awp",
    "fgsm-rs+adr",
    "rslad+awp+wa",
    "absld+trades",
    "absld+fair-rslad",
    "mtard+swa",
    "adaad+dafa",
]


def recipe(name: str) -> Recipe:
    return compose(name, dataset="digits").recipe


@pytest.mark.parametrize("check", RECIPE_CHECKS.values(), ids=RECIPE_CHECKS.keys())
@pytest.mark.parametrize("name", [*METHODS.names(), *COMBINATIONS])
def test_every_registered_method_and_some_combinations_conform(name, check):
    check(recipe(name))


@pytest.mark.parametrize(
    "settings",
    [
        {"targets.as_released": True},
        {"objective.scale": 0.25, "targets.rate": 0},
        {"objective.inner.mode": "train", "objective.inner.start": "uniform"},
    ],
)
@pytest.mark.parametrize("check", RECIPE_CHECKS.values(), ids=RECIPE_CHECKS.keys())
def test_switches_conform(settings, check):
    check(compose("absld", dataset="digits", settings=settings).recipe)


@pytest.mark.parametrize("check", METHOD_CHECKS.values(), ids=METHOD_CHECKS.keys())
@pytest.mark.parametrize("name", METHODS.names())
def test_every_registration_conforms(name, check):
    check(METHODS.get(name))


@dataclass(frozen=True)
class Overshooting(PGDAT):
    """Takes eps for a little more than it is."""

    def perturb(self, ctx, batch, targets, reach):
        """Too far."""
        return super().perturb(ctx, batch, targets, Reach(1.05 * reach.eps, reach.step))


@dataclass(frozen=True)
class IgnoringTheReach(PGDAT):
    """Moves every image by the threat model's radius."""

    def perturb(self, ctx, batch, targets, reach):
        """By ctx.eps."""
        return super().perturb(ctx, batch, targets, Uniform().reach(ctx, batch, None))


@dataclass(frozen=True)
class Unboxed(PGDAT):
    """Forgets that pixels lie in [0, 1]."""

    def perturb(self, ctx, batch, targets, reach):
        """One step to any side."""
        return batch.x + reach.eps[:, None, None, None] * ctx.streams.normal((2, 8, 8)).sign()


@dataclass(frozen=True)
class PollutingGradients(PGDAT):
    """Calls backward, which leaves gradients in the parameters."""

    def perturb(self, ctx, batch, targets, reach):
        """One step by backward."""
        adv = batch.x.clone().requires_grad_()
        cross_entropy(ctx.model(adv), targets.clean).sum().backward()
        return (batch.x + reach.eps[:, None, None, None] * adv.grad.sign()).clamp(0, 1)


@dataclass(frozen=True)
class LeavingTheModeChanged(PGDAT):
    """Attacks in eval mode and forgets to go back."""

    def perturb(self, ctx, batch, targets, reach):
        """In eval mode."""
        ctx.model.eval()
        return batch.x


@dataclass(frozen=True)
class TrainingWhileItPerturbs(PGDAT):
    """Moves the weights before the step."""

    def perturb(self, ctx, batch, targets, reach):
        """Decays the weights."""
        with torch.no_grad():
            for weight in ctx.model.parameters():
                weight.mul_(0.9)
        return batch.x


@dataclass(frozen=True)
class Reduced(PGDAT):
    """Reduces the loss to one number."""

    def losses(self, ctx, batch, adv, targets):
        """The mean."""
        losses = super().losses(ctx, batch, adv, targets)
        return losses._replace(fit=losses.fit.mean(), smooth=losses.smooth.mean())


@dataclass(frozen=True)
class Detached(PGDAT):
    """Loses the graph."""

    def losses(self, ctx, batch, adv, targets):
        """Without a graph."""
        losses = super().losses(ctx, batch, adv, targets)
        return losses._replace(fit=losses.fit.detach())


@dataclass(frozen=True)
class Backwards(PGDAT):
    """Has the sign wrong."""

    def losses(self, ctx, batch, adv, targets):
        """The right value with the gradient turned round."""
        losses = super().losses(ctx, batch, adv, targets)
        return losses._replace(fit=2 * losses.fit.detach() - losses.fit)


@dataclass(frozen=True)
class SofteningInPlace(PGDAT):
    """Edits the targets it was given."""

    def losses(self, ctx, batch, adv, targets):
        """Label smoothing, in place."""
        targets.clean.mul_(0.9).add_(0.1 / targets.clean.shape[1])
        return super().losses(ctx, batch, adv, targets)


@dataclass(frozen=True)
class DrawingGlobally(PGDAT):
    """Starts from torch's global randomness."""

    def perturb(self, ctx, batch, targets, reach):
        """From global randomness."""
        noise = 2 * torch.rand_like(batch.x) - 1
        return (batch.x + noise * reach.eps[:, None, None, None]).clamp(0, 1)


class Pair(NamedTuple):
    """Two vectors of temperatures."""

    clean: Tensor
    adv: Tensor


@dataclass(frozen=True)
class SharingStorage(Stateless):
    """Tempers two views of one storage in place, as a release does: the second edit hits the first target too."""

    def __call__(self, ctx, batch, state):
        """Both targets are views of one tensor; asking for the second edits the first."""
        soft = ctx.teacher()(batch.x).softmax(1)

        def at(adv):
            return soft.detach().pow_(0.5).div_(soft.sum(1, keepdim=True))

        return Targets(soft.detach(), at)


@dataclass(frozen=True)
class EditingItsState(Stateless):
    """Changes its state where nobody looks."""

    def init(self, ctx):
        """Ones."""
        return Pair(torch.ones(ctx.classes), torch.ones(ctx.classes))

    def __call__(self, ctx, batch, state):
        """Sharper with every call."""
        state.clean.mul_(1.1)
        soft = (ctx.teacher()(batch.x) * state.clean).softmax(1)
        return Targets(soft, constant(soft))


@dataclass(frozen=True)
class Remembering(Stateless):
    """Keeps a counter outside its state."""

    seen: list[int] = field(default_factory=list, compare=False)

    def __call__(self, ctx, batch, state):
        """Softer with every call."""
        self.seen.append(1)
        soft = (ctx.teacher()(batch.x) / len(self.seen)).softmax(1)
        return Targets(soft, constant(soft))


@dataclass(frozen=True)
class TeachingTheTeacher(Stateless):
    """Asks the teacher in train mode, which moves its BatchNorm statistics."""

    def __call__(self, ctx, batch, state):
        """In train mode for a moment."""
        with switched(ctx.teacher(), "train"):
            soft = ctx.teacher()(batch.x).softmax(1)
        return Targets(soft, constant(soft))


@dataclass(frozen=True)
class MovingTheAverage(Stateless):
    """Averages the weights where it needs them."""

    def __call__(self, ctx, batch, state):
        """Moves the average, then asks it."""
        blend(ctx.averaged, ctx.model, 0.5)
        soft = ctx.averaged(batch.x).softmax(1)
        return Targets(soft, constant(soft))


@dataclass(frozen=True)
class Logits(Stateless):
    """Hands out logits for distributions."""

    def __call__(self, ctx, batch, state):
        """Logits."""
        logits = ctx.teacher()(batch.x)
        return Targets(logits, constant(logits))


@dataclass(frozen=True)
class HoldingTheGraph(Stateless):
    """Forgets no_grad."""

    def __call__(self, ctx, batch, state):
        """With a graph."""
        soft = ctx.model(batch.x).softmax(1)
        return Targets(soft, constant(soft))


@dataclass(frozen=True)
class Scalar(Uniform):
    """One radius for all."""

    def reach(self, ctx, batch, state):
        """No vector."""
        return Reach(torch.tensor(ctx.eps), torch.tensor(ctx.eps / 4))


@dataclass(frozen=True)
class Negative(Uniform):
    """Rewards what it should punish."""

    def weigh(self, ctx, batch, losses, state):
        """Below 0."""
        one = torch.ones_like(losses.fit)
        return Weights(one, -one)


@dataclass(frozen=True)
class Stranger:
    """Inherits from nothing."""

    perturb, losses = PGDAT.perturb, PGDAT.losses


@dataclass(frozen=True)
class Undocumented(PGDAT):
    def perturb(self, ctx, batch, targets, reach):
        return batch.x


AT = PGDAT(inner=Inner(steps=2))


@dataclass(frozen=True)
class DividingByNothing(Uniform):
    """Weighs by the class risks of the last epoch, of which one may not exist."""

    def init(self, ctx):
        """Equal weights."""
        return torch.ones(ctx.classes)

    def weigh(self, ctx, batch, losses, state):
        """By the true class."""
        return Weights(state[batch.y], state[batch.y])

    def end_epoch(self, ctx, state, tally):
        """Mean risk per class; 0/0 for a class without images."""
        return tally.ce_adv / tally.count_adv


IMPOSTORS = [
    (Recipe(Stranger()), "foretells_its_attack"),
    (Recipe(Overshooting()), "perturbs_within_reach"),
    (Recipe(IgnoringTheReach()), "perturbs_within_reach"),
    (Recipe(Unboxed()), "perturbs_within_reach"),
    (Recipe(PollutingGradients()), "perturbing_changes_nothing_else"),
    (Recipe(LeavingTheModeChanged()), "perturbing_changes_nothing_else"),
    (Recipe(TrainingWhileItPerturbs()), "perturbing_changes_nothing_else"),
    (Recipe(Reduced()), "losses_are_vectors"),
    (Recipe(Detached()), "losses_are_vectors"),
    (Recipe(Backwards()), "lowers_the_loss"),
    (Recipe(SofteningInPlace()), "changes_nothing_in_place"),
    (Recipe(DrawingGlobally()), "leaves_global_randomness_alone"),
    (Recipe(AT, SharingStorage()), "changes_nothing_in_place"),
    (Recipe(AT, EditingItsState()), "changes_nothing_in_place"),
    (Recipe(AT, Remembering()), "goes_on_from_its_state"),
    (Recipe(AT, TeachingTheTeacher()), "leaves_teachers_alone"),
    (Recipe(AT, MovingTheAverage()), "leaves_teachers_alone"),
    (Recipe(AT, Logits()), "targets_are_distributions"),
    (Recipe(AT, HoldingTheGraph()), "targets_are_distributions"),
    (Recipe(AT, budget=Scalar()), "budget_is_a_vector"),
    (Recipe(AT, budget=Negative()), "budget_is_a_vector"),
    (Recipe(AT, budget=DividingByNothing()), "copes_with_odd_batches"),
    (Recipe(Undocumented()), "is_documented"),
]


def name_of(impostor: Recipe) -> str:
    slots = (impostor.budget, impostor.targets, impostor.objective)
    return next(type(slot).__name__ for slot in slots if slot not in (AT, OneHot(), Uniform()))


@pytest.mark.parametrize(
    ("impostor", "check"),
    IMPOSTORS,
    ids=[name_of(impostor) for impostor, _ in IMPOSTORS],
)
def test_every_impostor_is_caught_by_its_check(impostor, check):
    with pytest.raises(AssertionError, match=name_of(impostor)):
        RECIPE_CHECKS[check](impostor)


def test_the_honest_parts_of_the_impostors_pass():
    for check in RECIPE_CHECKS.values():
        check(Recipe(AT))


@pytest.mark.parametrize(
    ("method", "check", "complaint"),
    [
        (Method({"objective": PGDAT()}, "json"), "page", "the head of json lacks 'Paper:'"),
        (Method({"objective": PGDAT()}, "bench.conformance.methods"), "page", "lacks 'Paper:'"),
        (Method({}, "methods.pgd_at", on="pgd-at"), "slots", "fills no slot"),
        (Method({"step": AT}, "methods.pgd_at"), "slots", "needs an objective"),
        (Method({"aim": AT}, "methods.pgd_at", on="pgd-at"), "slots", "'aim'"),
        (Method({"objective": "pgd"}, "methods.pgd_at"), "slots", "slot 'objective' holds 'pgd'"),
        (
            replace(METHODS.get("pgd-at"), presets={"cifar10": METHODS.get("pgd-at").presets["*/short"]}),
            "slots",
            "preset 'cifar10' should be called",
        ),
    ],
)
def test_wrong_registrations_are_caught(method, check, complaint):
    with pytest.raises(AssertionError, match=complaint):
        METHOD_CHECKS[check](method)


def test_a_long_file_is_warned_of_and_does_not_fail(tmp_path, monkeypatch):
    page = '"""Long: a method.\n\nPaper:   none\nCode:    none\nClaim:   none\nDeparts: nowhere\n"""\n'
    imports = "from math import (\n" + "    pi,\n" * 30 + ")\n"
    monkeypatch.syspath_prepend(tmp_path)
    for name, lines in (("fits_method", LONGEST - 7), ("long_method", LONGEST - 6)):
        (tmp_path / f"{name}.py").write_text(page + imports + "pi\n" * lines)
    METHOD_CHECKS["page"](Method({"objective": PGDAT()}, "fits_method"))
    said = f"long_method has {LONGEST + 1} lines besides its imports; a method reads well in {LONGEST}"
    with pytest.warns(UserWarning, match=said):
        METHOD_CHECKS["page"](Method({"objective": PGDAT()}, "long_method"))


def sources() -> dict[str, str]:
    roots = [Path(package.__path__[0]) for package in (bench, methods)]
    return {str(path.relative_to(root.parent)): path.read_text() for root in roots for path in root.rglob("*.py")}


def test_the_trainer_holds_no_method_s_name():
    names = set(METHODS.names())
    for name in METHODS.names():
        module = importlib.import_module(METHODS.get(name).module)
        names |= {kind for kind, value in getmembers(module, isclass) if value.__module__ == module.__name__}
    text = sources()["bench/training/loop.py"]
    assert names >= {"trades", "TRADES", "EMA", "AWP", "BalancedTeacher", "ADR"}
    assert [name for name in sorted(names) if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)] == []
    assert "if method" not in text


def test_gradients_are_taken_in_a_handful_of_files():
    allowed = {"bench/attacks/ascent.py", "methods/awp.py"}
    taking = {name for name, text in sources().items() if "autograd.grad(" in text}
    assert taking == allowed


def test_bench_never_imports_methods():
    pattern = re.compile(r"^\s*(from|import) methods\b", re.MULTILINE)
    assert [name for name, text in sources().items() if name.startswith("bench/") and pattern.search(text)] == []


def test_every_preset_names_a_known_selection_and_can_be_composed():
    for name in METHODS.names():
        for key, preset in METHODS.get(name).presets.items():
            dataset, _, rest = key.partition("/")
            wanted, *company = rest.split("+")
            assert isinstance(preset.schedule, Schedule)
            plan = compose("+".join([name, *company]), dataset="svhn" if dataset == "*" else dataset, preset=wanted)
            assert plan.preset == wanted
