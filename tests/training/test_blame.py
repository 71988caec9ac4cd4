"""A slot that fails, or gives something else than it should, is named with the module it comes from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch

from bench.data.digits import load_digits
from bench.errors import BadRecipe
from bench.training.loop import train
from bench.training.method import compose
from bench.training.recipe import Descend, Last, OneHot, Recipe, Uniform
from bench.training.run import prepare
from methods.natural import Natural


def fail(*given: Any) -> Any:
    raise ZeroDivisionError("so it is")


def leave(*given: Any) -> Any:
    raise SystemExit(0)


def none(*given: Any) -> Any:
    return None


def column(*given: Any) -> Any:
    return torch.zeros(3, 1)


def made(base: type, method: str, does: Any) -> Any:
    """A slot whose method does that."""
    body = {method: lambda self, *given: does(*given), "__annotations__": {}, "__module__": __name__}
    return dataclass(frozen=True)(type("Odd", (base,), body))()


def reduced(*given: Any) -> Any:
    losses = Natural().losses(*given)
    return losses._replace(fit=losses.fit.mean())


def wide(*given: Any) -> Any:
    reach = Uniform().reach(*given)
    return reach._replace(eps=reach.eps[:, None])


def few(*given: Any) -> Any:
    targets = OneHot()(*given)
    return targets._replace(clean=targets.clean[:, :3])


CASES = [
    ("objective", Natural, "perturb", fail, "Odd fails with ZeroDivisionError: so it is; mend it"),
    ("objective", Natural, "perturb", none, "Odd perturbs images of (50, 1, 8, 8) to NoneType"),
    ("objective", Natural, "perturb", column, "to (3, 1); their shape must stay"),
    ("objective", Natural, "losses", leave, "Odd fails with SystemExit: 0"),
    ("objective", Natural, "losses", none, "Odd gives NoneType; it must give Losses"),
    ("objective", Natural, "losses", reduced, "Odd gives Losses with fit of (); it must be of (50,)"),
    ("targets", OneHot, "init", lambda ctx: [1], "Odd keeps list as its state; it must be None, a tensor or a"),
    ("targets", OneHot, "__call__", fail, "the targets "),
    ("targets", OneHot, "__call__", few, "Odd gives Targets with clean of (50, 3); it must be of (50, 10)"),
    ("targets", OneHot, "end_step", fail, "fails with ZeroDivisionError"),
    ("targets", OneHot, "end_epoch", fail, "fails with ZeroDivisionError"),
    ("budget", Uniform, "reach", wide, "Odd gives Reach with eps of (50, 1); it must be of (50,)"),
    ("budget", Uniform, "weigh", none, "Odd gives NoneType; it must give Weights"),
    ("step", Descend, "__call__", fail, "the step "),
    ("step", Descend, "__call__", none, "fails with TypeError"),
    ("average", Last, "end_step", fail, "the average "),
]


@pytest.mark.parametrize(("slot", "base", "method", "does", "said"), CASES)
def test_who_fails_is_named(slot, base, method, does, said):
    plan = compose("natural", dataset="digits", settings={"schedule.epochs": 1, "schedule.batch_size": 50})
    filled = {f.name: getattr(plan.recipe, f.name) for f in fields(Recipe)} | {slot: made(base, method, does)}
    plan = replace(plan, recipe=Recipe(**filled))
    images = load_digits("train").take(60, 0)
    with pytest.raises(BadRecipe) as refused:
        list(train(prepare(plan, images, "convnet-2", 0, {})))
    assert said in str(refused.value)
    assert f"{slot} {__name__}:Odd" in str(refused.value)
