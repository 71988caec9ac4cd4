"""Attacks of other libraries by name, as an optional extra: `torchattacks:PGD(steps=50)`, `foolbox:LinfDeepFoolAttack`.

They are treated like our own: they get images that are classified correctly, and the evaluator checks the budget of
what comes back and classifies it again. A library's own defaults hold where no argument is given; its step sizes may be
absolute.
"""

from __future__ import annotations

import inspect
import random
import re
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks.base import Attack, Passes
from bench.attacks.prepare import own_randomness
from bench.errors import BadBudget, BadOption, BenchError, UnknownName
from bench.norms import Norm, per_image
from bench.randomness import Streams

ROUNDING = 1e-6
"""How far, in the unit of the pixels, an image may lie outside its ball or the box and still be brought back."""

Value = int | float | str | bool | None | tuple["Value", ...]


@dataclass(frozen=True)
class External(Attack):
    """An attack of another library.

    What the library returns is taken as it is, but for rounding: what lies up to 1e-6 outside the ball or the box is
    projected back, in float64. Anything further outside is left for the evaluator to refuse. The trial's seed seeds its
    randomness, which is drawn per batch, so that a result depends on the batch.

    Attributes:
        attack: name of the class in its library.
        arguments: what its constructor is given beside model, radius, norm and seed, sorted by name.
    """

    batch_dependent: ClassVar[bool] = True
    library: ClassVar[str]
    given: ClassVar[frozenset[str]]
    """Arguments that the benchmark itself gives, and the user must not."""

    attack: str
    arguments: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        """As the user writes it, and as boards show it."""
        brackets = ",".join(f"{name}={value!r}".replace(" ", "") for name, value in self.arguments)
        return f"{self.library}:{self.attack}" + (f"({brackets})" if brackets else "")

    @abstractmethod
    def kinds(self) -> Mapping[str, Callable[..., Any]]:
        """The library's attacks by name; imports it."""

    @abstractmethod
    def norms(self) -> tuple[str, ...] | None:
        """The norms that the attack can be held to; None where the library does not say."""

    @abstractmethod
    def found(self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, seed: int) -> Tensor:
        """The adversarial images that the library returns."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams) -> Tensor:
        """Adversarial images.

        Raises:
            BadOption: the library fails.
        """
        seed = streams.seed % 2**32  # as much as numpy takes
        with own_randomness(), _quiet():
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            try:
                adv = self.found(Plain(model, x.device), x.contiguous(), y, eps=eps, norm=norm, seed=seed)
            except (BenchError, torch.OutOfMemoryError):
                raise
            except Exception as problem:  # whatever the library raises
                if "does not require grad" in str(problem):
                    raise  # the evaluator says it better
                raise BadOption(
                    f"{self} failed with {type(problem).__name__}: {problem}; change its arguments or leave it out"
                ) from problem
        return adv if not isinstance(adv, Tensor) or adv.shape != x.shape else without_rounding(adv, x, eps, norm)

    def held_to(self, norm: str) -> Self:
        """The attack itself, once it is sure that it exists, takes these arguments and can work in this norm.

        Raises:
            BadOption: the library is not installed, or arguments that the attack does not take, or lacks.
            UnknownName: no such attack.
            BadBudget: it is an attack of another norm.
        """
        try:
            with _quiet():
                kinds = self.kinds()
        except ImportError as problem:
            raise BadOption(
                f"attack '{self}' needs the package {self.library} ({problem}); pip install 'evenbench[external]'"
            ) from None
        if self.attack not in kinds:
            raise UnknownName.among(f"attack of {self.library}", self.attack, kinds)
        if reserved := self.given & dict(self.arguments).keys():
            raise BadOption(
                f"attack '{self}' sets {min(reserved)!r}, which the benchmark gives it; leave it out of the brackets "
                "and use the options --eps, --norm and --seed"
            )
        takes = self._parameters()
        for name, _ in self.arguments:
            if name not in takes:
                raise UnknownName.among(f"argument of {self.library}:{self.attack}", name, set(takes) - self.given)
        free = [name for name, parameter in takes.items() if parameter.default is parameter.empty]
        if missing := [name for name in free if name not in dict(self.arguments) and name not in self.given]:
            raise BadOption(f"attack '{self}' needs a value; write {self.library}:{self.attack}({missing[0]}=...)")
        known = self.norms()
        if known is not None and norm not in known:
            wanted = f"of {', '.join(known)}" if known else "that is held to no norm"
            raise BadBudget(f"{self} is an attack {wanted}, not of {norm}; choose another attack or --norm")
        return self

    def fitted(self, classes: int) -> Self:
        """With the number of classes among its arguments, where it takes one."""
        if "n_classes" not in self._parameters() or "n_classes" in dict(self.arguments):
            return self
        return replace(self, arguments=tuple(sorted((*self.arguments, ("n_classes", classes)))))

    def passes(self, classes: int) -> Passes:
        """One of each per step, if it has an argument called steps."""
        steps = self._parameters().get("steps")
        count = dict(self.arguments).get("steps", steps and steps.default)
        return Passes(count, count) if isinstance(count, int) else Passes(0, 0)

    def _parameters(self) -> dict[str, inspect.Parameter]:
        with _quiet():
            signature = inspect.signature(self.kinds()[self.attack])
        variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return {name: value for name, value in signature.parameters.items() if value.kind not in variadic}

    def _made(self, *positional: Any, **offered: Any) -> Any:
        """The library's object, with those of the offered arguments that it takes."""
        takes = self._parameters()
        chosen = {name: value for name, value in offered.items() if name in takes}
        return self.kinds()[self.attack](*positional, **chosen, **dict(self.arguments))


@dataclass(frozen=True)
class TorchAttacks(External):
    """An attack of torchattacks; `eps` and `norm` go to its constructor.

    One that takes no eps, such as DeepFool, looks for the nearest error however far away. An error outside the ball
    counts as not found, and the unperturbed image comes back.

    Source: Kim 2020, "Torchattacks: a PyTorch repository for adversarial attacks".
    """

    uses: ClassVar[tuple[str, ...]] = ("torchattacks",)
    library: ClassVar[str] = "torchattacks"
    given: ClassVar[frozenset[str]] = frozenset({"model", "eps", "norm", "seed"})

    def kinds(self) -> Mapping[str, Callable[..., Any]]:
        """All of them but the wrappers around other attacks."""
        import torchattacks

        return {name: getattr(torchattacks, name) for name in set(torchattacks.__all__) - set(torchattacks.__wrapper__)}

    def norms(self) -> tuple[str, ...] | None:
        """Read from the attack's docstring, the only place where they are written."""
        stated = re.search(r"Distance Measure *: *([\w, ]+)", self.kinds()[self.attack].__doc__ or "")
        return tuple(re.split(r"\W+", stated[1].strip())) if stated else None

    def found(self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, seed: int) -> Tensor:
        """See the base class."""
        adv: Tensor = self._made(model, eps=eps, norm=norm.name, seed=seed)(x, y)
        if "eps" in self._parameters():
            return adv
        inside = norm.size(adv.double() - x.double()) <= eps
        return adv.where(per_image(inside, adv), x)


@dataclass(frozen=True)
class Foolbox(External):
    """An attack of Foolbox; `eps` goes to the call, which clips to the ball what an attack without a radius finds.

    Source: Rauber et al. 2020, "Foolbox Native: fast adversarial attacks to benchmark the robustness of machine
    learning models in PyTorch, TensorFlow, and JAX".
    """

    uses: ClassVar[tuple[str, ...]] = ("foolbox",)
    library: ClassVar[str] = "foolbox"
    given: ClassVar[frozenset[str]] = frozenset({"distance"})

    def kinds(self) -> Mapping[str, Callable[..., Any]]:
        """All that are not abstract."""
        from foolbox import attacks

        named = vars(attacks).items()
        return {
            name: kind
            for name, kind in named
            if inspect.isclass(kind) and issubclass(kind, attacks.Attack) and not inspect.isabstract(kind)
        }

    def norms(self) -> tuple[str, ...] | None:
        """The norm in which the attack measures distances; both where that can be chosen."""
        if "distance" in self._parameters():
            return ("Linf", "L2")
        try:
            order = self._made().distance.p
        except AttributeError:
            return ()
        except Exception as problem:
            raise BadOption(
                f"attack '{self}' cannot be made ({type(problem).__name__}: {problem}); change its arguments or leave "
                "it out"
            ) from problem
        return ({np.inf: "Linf"}.get(order, f"L{order}"),)

    def found(self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, seed: int) -> Tensor:
        """See the base class."""
        import foolbox

        distance = {"Linf": foolbox.distances.linf, "L2": foolbox.distances.l2}[norm.name]
        seen = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        _, (clipped,), _ = self._made(distance=distance)(seen, x, y, epsilons=[eps])
        adv: Tensor = clipped
        return adv


class Plain(nn.Module):
    """A model as any library can take it: with a parameter, from which the library learns the device.

    Images pass through a flat view, so that their gradient is contiguous even if the model works in channels_last.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """Wrap a model on that device."""
        super().__init__()
        self.device = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) logits of (B,C,H,W) pixels."""
        answer: Tensor = self.model(x.flatten(1).reshape(x.shape))
        return answer


def without_rounding(adv: Tensor, x: Tensor, eps: float, norm: Norm) -> Tensor:
    """The images; those that lie at most ROUNDING outside their ball or the box are brought back into it."""
    delta, clean = adv.detach().double() - x.double(), x.double()
    size = norm.size(delta)
    slight = (size > eps) & (size <= eps + ROUNDING)
    near = clean + delta.where(~per_image(slight, delta), norm.project(delta, torch.full_like(size, eps)))
    boxed = near.clamp(0, 1)
    return near.where((near - boxed).abs() > ROUNDING, boxed).to(x.dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings: what libraries say about their own dependencies does not concern the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
