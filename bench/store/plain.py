"""Answers to queries in values that JSON has: what it has no word for becomes text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    import pandas as pd

_PLAIN = re.compile(r"\"?(BOOLEAN|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\([^)]*\)|VARCHAR|NULL)\"?")
"""Types whose columns pandas has a type for. Of others DuckDB makes frames with zeros for NULL, or none at all."""


def frame(answer: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """What a query answered, as a frame of numbers, texts, lists and dictionaries by text."""
    if all(_PLAIN.fullmatch(str(column[1])) for column in answer.description or ()):
        return answer.df()
    import pandas as pd

    names = [str(column[0]) for column in answer.description or ()]
    rows = [[_value(value) for value in row] for row in answer.fetchall()]
    columns = {(name if name not in names[:at] else f"{name}_{at}"): at for at, name in enumerate(names)}
    return pd.DataFrame({name: pd.Series([row[at] for row in rows], dtype=object) for name, at in columns.items()})


def _value(value: Any) -> Any:
    """A value of DuckDB's as JSON has it: times and identifiers as ISO text, bytes in hexadecimal."""
    match value:
        case None | bool() | str() | float():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else float(value)
        case bytes():
            return value.hex()
        case list() | tuple():
            return [_value(one) for one in value]
        case dict():
            return {str(key): _value(one) for key, one in value.items()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return float(value) if hasattr(value, "as_integer_ratio") else str(value)
