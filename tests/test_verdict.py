"""Verdicts: values that can be stored and shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.verdict import Verdict

GOOD = Verdict("logit-scale", 0.4, 0.5, "pass", 100, "the loss falls by 40 %")


def test_a_verdict_may_lack_its_numbers() -> None:
    assert replace(GOOD, value=None, threshold=None, verdict="not-run", n=0).version == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"verdict": "maybe"}, "'logit-scale' says 'maybe'; wanted one of .*'not-run'"),
        ({"value": float("nan")}, "measured nan"),
        ({"threshold": float("inf")}, "against inf"),
        ({"detail": "two\nlines"}, "more than one line"),
    ],
)
def test_what_cannot_be_stored_or_shown_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(GOOD, **change)
