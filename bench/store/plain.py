"""Answers to queries in values that JSON has: what it has no word for becomes text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    import pandas as pd

_PLAIN = re.compile(r"\"?(BOOLEAN|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\([^)]*\)|VARCHAR|NULL)\"?")
"""Types whose columns pandas has a type for. Of others DuckDB makes frames with zeros for NULL, or none at all."""
_ZONED = "TIMESTAMP WITH TIME ZONE"


def frame(answer: duckdb.DuckDBPyConnection, sql: str) -> pd.DataFrame:
    """What a query answered, as a frame of numbers, texts, lists and dictionaries by text.

    Args:
        answer: the connection that has executed it.
        sql: the query, which is asked again where DuckDB itself has to write its times as text.
    """
    if any(_ZONED in str(column[1]) for column in answer.description or ()):
        answer = _without_zones(answer, sql)
    if all(_PLAIN.fullmatch(str(column[1])) for column in answer.description or ()):
        return answer.df()
    import pandas as pd

    names = [str(column[0]) for column in answer.description or ()]
    rows = [[_value(value) for value in row] for row in answer.fetchall()]
    columns = {(name if name not in names[:at] else f"{name}_{at}"): at for at, name in enumerate(names)}
    return pd.DataFrame({name: pd.Series([row[at] for row in rows], dtype=object) for name, at in columns.items()})


def _without_zones(answer: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    """The answer with DuckDB's own text for times that have a zone: for their values it wants a package (pytz)."""
    columns = []
    for number, (name, kind, *_) in enumerate(answer.description or (), 1):
        quoted = str(name).replace('"', '""')
        columns.append(f'#{number}{"::VARCHAR" if _ZONED in str(kind) else ""} AS "{quoted}"')
    asked = answer.extract_statements(sql)[-1].query.replace("'", "''")
    return answer.execute(f"SELECT {', '.join(columns)} FROM query('{asked}')")


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
