"""The table of what parts change when they are combined is what the parts register."""

from __future__ import annotations

import pytest

from bench.api import METHODS
from methods.combinations import COMBINATIONS

ROWS = [(preset, name, *row) for preset, rows in COMBINATIONS.items() for name, row in rows.items()]


@pytest.mark.parametrize(("preset", "name", "schedule", "changes"), ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_every_row_is_a_preset_of_each_part_that_it_changes(preset, name, schedule, changes):
    parts = name.split("+")
    assert {*changes} <= {*parts}
    for part in parts:
        method = METHODS.get(part)
        key = "+".join([preset, *sorted({*parts} - {part})])
        assert (key in method.presets) == (part in changes)
        if part in changes:
            found = method.presets[key]
            assert found.schedule == schedule
            fields = {field: value for slot in found.slots.values() for field, value in vars(slot).items()}
            assert changes[part].items() <= fields.items()
            alone = {field: value for slot in found.slots for field, value in vars(method.slots[slot]).items()}
            assert {f: v for f, v in fields.items() if v != alone[f]}.items() <= changes[part].items()


def test_no_other_place_knows_of_company():
    in_table = {
        (part, "+".join([preset, *sorted({*name.split("+")} - {part})]))
        for preset, name, _, changes in ROWS
        for part in changes
    }
    registered = {(name, key) for name in METHODS.names() for key in METHODS.get(name).presets if "+" in key}
    assert registered == in_table
