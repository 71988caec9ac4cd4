"""Trials: what is evaluated. An attack with all that changes its results, made from its name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

from bench.attacks.suite import ATTACKS, SUITES
from bench.budget import check_radius, parse_eps
from bench.errors import BadBudget, BadOption, UnknownName
from bench.fingerprint import canonical, fingerprint

if TYPE_CHECKING:
    from bench.attacks.base import Attack

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Trial:
    """An attack with all that changes its result, except the model and the data.

    Attributes:
        name: what boards call it; no part of the fingerprint.
        attack: None for the unperturbed images.
        norm: name of the geometry; "none" without an attack.
        eps: exact radius in the unit of the pixels; 0 without an attack.
        seed: names the randomness.
        precision: in which the attack sees the model; it is judged in fp32 in any case.
        batch_size: images per batch if the result depends on it, else None.
        eot: on a random model the attack sees the mean of so many answers; 1 for other models.
        votes: on a random model so many answers vote on the class, in the clean trial too; 1 for other models.
    """

    name: str
    attack: Attack | None = None
    norm: str = "none"
    eps: Fraction = Fraction(0)
    seed: int = 0
    precision: Precision = "fp32"
    batch_size: int | None = None
    eot: int = 1
    votes: int = 1

    @property
    def lineup(self) -> tuple[str, ...]:
        """The names that `broken_by` numbers from 2 on: those of the line-up, or its own."""
        if self.attack is None:
            return ()
        return self.attack.lineup or (self.name,)

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """Everything that changes the result, as JSON values."""
        if self.attack is None:
            return {"attack": None} | self._random
        return {
            "attack": described(self.attack),
            "norm": self.norm,
            "eps": f"{self.eps.numerator}/{self.eps.denominator}",
            "seed": self.seed,
            "precision": self.precision,
            **({"batch_size": self.batch_size} if self.attack.batch_dependent else {}),
        } | self._random

    @property
    def _random(self) -> dict[str, Any]:
        """What is asked of a random model, whose results depend on the batch too; nothing for other models."""
        if self.eot == self.votes == 1:
            return {}
        return {"eot": self.eot, "votes": self.votes, "batch_size": self.batch_size}

    @cached_property
    def attack_id(self) -> str:
        """Fingerprint: results with different ones never share a column."""
        return fingerprint(self.spec)


CLEAN = Trial("clean")
"""The trial of the unperturbed images."""


def described(attack: Attack) -> dict[str, Any]:
    """An attack as JSON values: what it is, the version of its code and of what it uses, and its fields.

    Attacks among its fields are described likewise. The package is named but not the file, so that moving a class
    leaves its results valid.
    """
    kind = type(attack)
    about: dict[str, Any] = {"is": f"{kind.__module__.partition('.')[0]}:{kind.__qualname__}", "version": kind.version}
    if kind.uses:
        about["uses"] = {distribution: version(distribution) for distribution in kind.uses}
    values = {f.name: getattr(attack, f.name) for f in fields(attack)}  # type: ignore[arg-type]  # a dataclass
    parts = {name: described(cast("Attack", value)) for name, value in values.items() if is_dataclass(value)}
    return about | {"fields": values | parts}


class Order(NamedTuple):
    """An attack as it is asked for, `pgd-sat` or `pgd-sat@L2:1/2`; without a budget it takes that of the rest."""

    name: str
    norm: str | None = None
    eps: Fraction | None = None

    @classmethod
    def parse(cls, text: str) -> Order:
        """What `text` asks for.

        Raises:
            UnknownName: no attack is called so.
            BadBudget: what follows the @ is no norm and radius.
        """
        name, at, budget = text.partition("@")
        known = ATTACKS.names()
        if ":" in name:
            from bench.attacks import external_names  # here, because it imports torch

            name = str(external_names.parse(name))
        elif name not in known and name != CLEAN.name:
            raise UnknownName.among("attack", name, [*known, CLEAN.name], ATTACKS.see)
        if not at:
            return cls(name)
        norm, colon, eps = budget.partition(":")
        if not (norm and colon):
            raise BadBudget(f"{text!r} names no budget after the @; write attack@norm:eps, such as autoattack@L2:1/2")
        return cls(name, norm, parse_eps(eps))


def orders_of(wanted: str | Sequence[str]) -> tuple[Order, ...]:
    """Attacks from the name of a suite, or from attacks as they are asked for, each once and without `clean`.

    Raises:
        UnknownName: no suite, or no attack, is called so.
        BadBudget: an attack is asked for with a budget that is none.
        BadOption: no name at all.
    """
    if isinstance(wanted, str):
        if wanted not in SUITES:
            raise UnknownName.among("suite", wanted, SUITES, "'evenbench list suites'")
        wanted = SUITES[wanted]
    if not wanted:
        raise BadOption("no attack was named; name some, such as pgd-sat,cw, or a suite")
    return tuple(order for order in dict.fromkeys(map(Order.parse, wanted)) if order.name != CLEAN.name)


def plan(
    wanted: str | Sequence[str],
    *,
    norm: str = "Linf",
    eps: Fraction,
    seed: int = 0,
    precision: str = "fp32",
    batch_size: int,
) -> tuple[Trial, ...]:
    """The trials that a suite or a list of attacks stands for, the clean one first.

    Args:
        wanted: name of a suite, or attacks as they are asked for (`Order`).
        norm: name of the geometry of the ball, where an attack does not name its own.
        eps: exact radius, larger than 0, likewise.
        seed: names the randomness.
        precision: "fp32" or "bf16", in which the attacks see the model.
        batch_size: images per batch; part of a trial only where the result depends on it.

    Raises:
        UnknownName: no suite or attack is called so.
        BadBudget: a radius or geometry that is none.
        BadOption: an unknown precision, or a batch size below 1.
        BenchError: an attack's package cannot be imported.
    """
    from bench.norms import norm as norm_called  # here, because it imports torch

    orders = orders_of(wanted)
    for geometry in (norm, *(order.norm for order in orders if order.norm)):
        norm_called(geometry)
    if eps <= 0:
        raise BadBudget(f"eps is {eps}; a budget must be larger than 0, such as 8/255")
    for order in orders:
        check_radius(order.eps or eps, order.norm or norm)
    if precision not in get_args(Precision):
        raise BadOption(f"precision {precision!r} is not supported; choose fp32 or bf16")
    if batch_size < 1:
        raise BadOption(f"batch size {batch_size} is too small; at least 1 image is needed")
    seen: Precision = "bf16" if precision == "bf16" else "fp32"
    suffix = "" if seen == "fp32" else f"-{seen}"  # on every board beside its name, not only in its fingerprint

    def trial(order: Order) -> Trial:
        attack = checked(order.name, attack_called(order.name, order.norm or norm))
        return Trial(
            order.name + suffix,
            attack,
            order.norm or norm,
            order.eps or eps,
            seed,
            seen,
            batch_size if attack.batch_dependent else None,
        )

    return CLEAN, *dict.fromkeys(map(trial, orders))


def attack_called(name: str, norm: str) -> Attack:
    """A registered attack, or `library:Name` of another library, which must be able to work in that norm."""
    if ":" not in name:
        return ATTACKS.get(name)
    from bench.attacks import external_names

    return external_names.parse(name).held_to(norm)


def for_random_model(trials: Sequence[Trial], *, eot: int, votes: int, batch_size: int) -> tuple[Trial, ...]:
    """The trials with attacks that see the mean of `eot` answers, judged by the majority of `votes`; both are named.

    Raises:
        BadOption: a count below 1.
    """
    if min(eot, votes) < 1:
        raise BadOption(f"{eot} answers and {votes} votes of a random model: at least 1 of each is needed")
    suffix = f"-eot{eot}" * (eot > 1) + f"-votes{votes}" * (votes > 1)

    def asked(trial: Trial) -> Trial:
        name = trial.name + suffix if trial.attack else trial.name
        return replace(trial, name=name, batch_size=batch_size, eot=eot, votes=votes)

    return tuple(map(asked, trials)) if suffix else tuple(trials)


def fitted(trials: Sequence[Trial], classes: int) -> tuple[Trial, ...]:
    """The trials as they are run on K classes, before any work.

    Raises:
        BadOption: an attack cannot work on so few.
    """
    for trial in trials:
        if trial.attack is not None and classes < trial.attack.min_classes:
            raise BadOption(
                f"attack {trial.name!r} needs at least {trial.attack.min_classes} classes, the data have {classes}; "
                "name other attacks, such as pgd-sat and cw"
            )
    return tuple(replace(trial, attack=trial.attack and trial.attack.fitted(classes)) for trial in trials)


def checked(name: str, attack: Attack) -> Attack:
    """The attack, if it can be fingerprinted.

    Raises:
        BadOption: what is registered is not a frozen dataclass of numbers, strings and the like.
    """
    frozen = is_dataclass(attack) and not isinstance(attack, type) and type(attack).__dataclass_params__.frozen
    try:
        if not frozen:
            raise TypeError(f"it is {attack!r}")
        canonical(described(attack))
    except (TypeError, ValueError, AttributeError) as problem:
        raise BadOption(
            f"attack {name!r} cannot be fingerprinted ({problem}); register an instance of a frozen dataclass that "
            "inherits from bench.attacks.base.Attack and whose fields are numbers, strings or booleans"
        ) from problem
    return attack
