"""Attacks by name, and line-ups of them by name. Importing this file imports no torch: names can be listed at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from bench.registry import Registry

if TYPE_CHECKING:
    from bench.attacks.base import Attack


ATTACKS: Registry[Attack] = Registry(
    "attack",
    "evenbench.attacks",
    "'evenbench list attacks'",
    MappingProxyType(
        {
            "fgsm": "bench.attacks.pgd:FGSM_ATTACK",
            "pgd-sat": "bench.attacks.pgd:PGD_SAT",
            "pgd-trades": "bench.attacks.pgd:PGD_TRADES",
            "cw": "bench.attacks.pgd:CW",
            "pgd-100": "bench.attacks.pgd:PGD_100",
            "apgd-ce": "bench.attacks.apgd:APGD_CE",
            "apgd-dlr": "bench.attacks.apgd:APGD_DLR",
            "apgd-dlr-5": "bench.attacks.apgd:APGD_DLR_5",
            "apgd-t": "bench.attacks.apgd:APGD_T",
            "fab": "bench.attacks.fab:FAB_UNTARGETED",
            "fab-t": "bench.attacks.fab:FAB_T",
            "square": "bench.attacks.square:SQUARE",
            "quick": "bench.attacks.quick:QUICK",
            "autoattack": "bench.attacks.autoattack:AUTOATTACK",
            "autoattack-reference": "bench.attacks.reference:REFERENCE",
        }
    ),
)


_STANDARD = ("fgsm", "pgd-sat", "pgd-trades", "cw", "autoattack")


SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "smoke": ("fgsm", "pgd-sat"),
        "quick": ("quick",),
        "screen": ("pgd-sat",),
        "autoattack": ("autoattack",),
        "standard": _STANDARD,
        "full": (*_STANDARD, "pgd-100", "apgd-dlr-5", "autoattack@L2:128/255", "pgd-sat@Linf:1"),
    }
)
"""Line-ups by name, from the cheapest to the dearest attack. `full` adds restarts, the L2 threat model that is
customary for 32x32 images, and an unbounded check: within the whole box nothing should survive."""
