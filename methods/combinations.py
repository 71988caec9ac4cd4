"""What parts of a name change when they are combined: the one table of it.

In company a method is run as its companions' paper ran it. Of the rows whose parts are all named, a part takes the one
with the most companions, the first listed of equals; where there is none, its preset is that of the method alone.

    adr + awp, trades + adr        Wu et al., ICLR 2024 (ADR); yuyuwu5/ADR @ 515da0e
    trades + awp                   Wu et al., NeurIPS 2020 (AWP); csdongxian/AWP @ a7acf5d
    faal + awp                     Zhang et al., CVPR 2024 (FAAL); TrustAI/FAAL @ b20ee9d
    trades, fat + cfa or fawa      Wei et al., CVPR 2023 (CFA); PKU-ML/CFA @ 071f333
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from bench.api import Preset, Schedule, Span
from methods.settings import DIGITS, FAIR, LONG, SHORT


class Combination(NamedTuple):
    """A schedule and, by part that takes it, the fields of the part's slot that are other than when it is alone."""

    schedule: Schedule
    changes: Mapping[str, Mapping[str, Any]]


OF_ADR = replace(LONG, nesterov=True, normalize=True)
OF_ADR_AWP = replace(LONG, normalize=True)
WITH_TRADES = {"cfa": {"margin": 0.3, "beta": 6}}
WITH_FAT = {"cfa": {"margin": 0.7}}

COMBINATIONS: Mapping[str, Mapping[str, Combination]] = {
    "cifar10/paper": {
        "adr+awp": Combination(
            OF_ADR_AWP,
            {"adr": {"temperature": Span(2.5, 1.5), "trust": Span(0.70, 0.85)}, "awp": {"gamma": 0.005}},
        ),
        "trades+awp": Combination(LONG, {"trades": {}, "awp": {"gamma": 0.005, "begin": 10}}),
        "faal+awp": Combination(LONG, {"awp": {"gamma": 0.005}}),
        "trades+cfa": Combination(FAIR, {"trades": {}, **WITH_TRADES}),
        "trades+fawa": Combination(FAIR, {"trades": {}}),
        "fat+cfa": Combination(FAIR, {"fat": {}, **WITH_FAT}),
        "fat+fawa": Combination(FAIR, {"fat": {}}),
        "trades+adr": Combination(OF_ADR, {"trades": {}}),
        "trades+adr+awp": Combination(OF_ADR_AWP, {"trades": {}}),
    },
    "cifar100/paper": {
        "trades+adr": Combination(
            OF_ADR, {"trades": {}, "adr": {"temperature": Span(1.5, 1.0), "trust": Span(0.70, 0.95)}}
        ),
        "adr+awp": Combination(
            OF_ADR_AWP,
            {"adr": {"temperature": Span(2.0, 1.0), "trust": Span(0.70, 0.85)}, "awp": {"gamma": 0.005}},
        ),
        "trades+adr+awp": Combination(OF_ADR_AWP, {"trades": {}}),
    },
    "tiny-imagenet/paper": {
        "trades+adr": Combination(replace(OF_ADR, epochs=80), {"trades": {}}),
        "adr+awp": Combination(
            replace(OF_ADR_AWP, epochs=80),
            {"adr": {"temperature": Span(2.0, 1.5), "trust": Span(0.30, 0.90)}, "awp": {"gamma": 0.001}},
        ),
        "trades+adr+awp": Combination(
            replace(OF_ADR_AWP, epochs=80),
            {"trades": {}, "adr": {"temperature": Span(2.0, 1.5), "trust": Span(0.50, 0.90)}},
        ),
    },
    "*/short": {"trades+cfa": Combination(SHORT, WITH_TRADES), "fat+cfa": Combination(SHORT, WITH_FAT)},
    "digits/digits": {"trades+cfa": Combination(DIGITS, WITH_TRADES), "fat+cfa": Combination(DIGITS, WITH_FAT)},
}
"""By preset and combination."""


def in_company(part: str, **alone: Any) -> dict[str, Preset]:
    """The presets of a part when others are named too, by "dataset/preset+companions".

    Args:
        part: its name.
        alone: by its name the slot that changes, as it is when the part is alone.
    """
    presets = {}
    for preset, rows in COMBINATIONS.items():
        for name, (schedule, changes) in rows.items():
            if part in changes:
                companions = sorted({*name.split("+")} - {part})
                slots = {slot: replace(filling, **changes[part]) for slot, filling in alone.items()}
                presets["+".join([preset, *companions])] = Preset(schedule, slots)
    return presets
