"""Attacks by name, line-ups of them by name, and the trials that are made of them.

Importing this file imports no torch: names can be listed at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from functools import cached_property
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench.errors import BadBudget, BadOption, UnknownName
from bench.identity import canonical, fingerprint
from bench.registry import Registry

if TYPE_CHECKING:
    from bench.attacks.attack import Attack

Precision = Literal["fp32", "bf16"]

ATTACKS: Registry[Attack] = Registry(
    "attack",
    "evenbench.attacks",
    "'evenbench list attacks'",
    MappingProxyType(
        {
            "fgsm": "bench.attacks.first_order:FGSM_ATTACK",
            "pgd-sat": "bench.attacks.first_order:PGD_SAT",
            "pgd-trades": "bench.attacks.first_order:PGD_TRADES",
            "cw": "bench.attacks.first_order:CW",
            "pgd-100": "bench.attacks.first_order:PGD_100",
            "autoattack": "bench.attacks.autoattack:AUTOATTACK",
        }
    ),
)

_STANDARD = ("fgsm", "pgd-sat", "pgd-trades", "cw", "autoattack")
SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"smoke": ("fgsm", "pgd-sat"), "standard": _STANDARD, "full": (*_STANDARD, "pgd-100")}
)
"""Line-ups by name, from the cheapest to the dearest attack."""


@dataclass(frozen=True)
class Trial:
    """An attack with all that changes its result, but for model and data.

    Attributes:
        name: as the attack is called on boards; no part of the fingerprint.
        attack: None for the unperturbed images.
        norm: name of the geometry; "none" without an attack.
        eps: exact radius in the unit of the pixels; 0 without an attack.
        seed: names the randomness.
        precision: in which the attack sees the model; it is judged in fp32 in any case.
        batch_size: images per batch if the result depends on it, else None.
    """

    name: str
    attack: Attack | None = None
    norm: str = "none"
    eps: Fraction = Fraction(0)
    seed: int = 0
    precision: Precision = "fp32"
    batch_size: int | None = None

    @property
    def lineup(self) -> tuple[str, ...]:
        """Names that `broken_by` counts, from 2 on: those of the line-up, or its own."""
        if self.attack is None:
            return ()
        return self.attack.lineup or (self.name,)

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """Everything that changes the result, as JSON values."""
        if self.attack is None:
            return {"attack": None}
        return {
            "attack": described(self.attack),
            "norm": self.norm,
            "eps": f"{self.eps.numerator}/{self.eps.denominator}",
            "seed": self.seed,
            "precision": self.precision,
            **({"batch_size": self.batch_size} if self.attack.batch_dependent else {}),
        }

    @cached_property
    def attack_id(self) -> str:
        """Fingerprint: results with different ones never share a column."""
        return fingerprint(self.spec)


CLEAN = Trial("clean")
"""The trial of the unperturbed images."""


def described(attack: Attack) -> dict[str, Any]:
    """An attack as JSON values: what it is, the version of its code and of what it uses, and its fields.

    The package is named but not the file, so that moving a class leaves its results valid.
    """
    kind = type(attack)
    about: dict[str, Any] = {"is": f"{kind.__module__.partition('.')[0]}:{kind.__qualname__}", "version": kind.version}
    if kind.uses:
        about["uses"] = {distribution: version(distribution) for distribution in kind.uses}
    return about | {"fields": {f.name: getattr(attack, f.name) for f in fields(attack)}}  # type: ignore[arg-type]


def lineup_of(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Names of attacks from the name of a suite, or from names of attacks, each once and without `clean`.

    Raises:
        UnknownName: no suite, or no attack, is called so.
        BadOption: no name at all.
    """
    if isinstance(wanted, str):
        if wanted not in SUITES:
            raise UnknownName.among("suite", wanted, SUITES, "'evenbench list suites'")
        return SUITES[wanted]
    if not wanted:
        raise BadOption("no attack was named; name some, such as pgd-sat,cw, or a suite")
    known = ATTACKS.names()
    for name in wanted:
        if name not in known and name != CLEAN.name:
            raise UnknownName.among("attack", name, [*known, CLEAN.name], ATTACKS.see)
    return tuple(name for name in dict.fromkeys(wanted) if name != CLEAN.name)


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
        wanted: name of a suite, or names of attacks.
        norm: name of the geometry of the ball.
        eps: exact radius, larger than 0.
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

    names = lineup_of(wanted)
    norm_called(norm)
    if eps <= 0:
        raise BadBudget(f"eps is {eps}; a budget must be larger than 0, such as 8/255")
    if precision not in get_args(Precision):
        raise BadOption(f"precision {precision!r} is not supported; choose fp32 or bf16")
    if batch_size < 1:
        raise BadOption(f"batch size {batch_size} is too small; at least 1 image is needed")
    seen: Precision = "bf16" if precision == "bf16" else "fp32"
    suffix = "" if seen == "fp32" else f"-{seen}"  # on every board beside its name, not only in its fingerprint
    attacks = {name: checked(name, ATTACKS.get(name)) for name in names}
    return CLEAN, *(
        Trial(name + suffix, attack, norm, eps, seed, seen, batch_size if attack.batch_dependent else None)
        for name, attack in attacks.items()
    )


def check_classes(trials: Sequence[Trial], classes: int) -> None:
    """Refuse attacks that cannot work on so few classes, before any work.

    Raises:
        BadOption: one needs more.
    """
    for trial in trials:
        if trial.attack is not None and classes < trial.attack.min_classes:
            raise BadOption(
                f"attack {trial.name!r} needs at least {trial.attack.min_classes} classes, the data have {classes}; "
                "name other attacks, such as pgd-sat and cw"
            )


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
            "inherits from bench.attacks.attack.Attack and whose fields are numbers, strings or booleans"
        ) from problem
    return attack
