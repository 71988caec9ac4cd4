"""What a query of a user may be: one that only reads, as DuckDB's own parser has it."""

from __future__ import annotations

import re

import duckdb

from bench.errors import BadQuery

_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+|\([^()]*\)\s*)?", re.IGNORECASE)
_ONLY = "queries only read: SELECT, DESCRIBE, SUMMARIZE, or EXPLAIN"


def refuse_all_but_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse statements that do more than read, before one of them runs.

    That a connection is read-only is not enough: COPY can still write the log of its database, which is replayed at
    the next opening, and CALL can end the process. To DuckDB, DESCRIBE and SUMMARIZE are SELECTs, as are FROM, VALUES,
    SHOW and TABLE.

    Raises:
        BadQuery: no statement, or one that is none of these.
        duckdb.Error: it cannot be parsed.
    """
    statements = connection.extract_statements(sql)
    if not statements:
        raise BadQuery('no SQL statement came; give one, such as "SELECT * FROM leaderboard"')
    for statement in statements:
        kind = statement.type
        if kind == duckdb.StatementType.EXPLAIN and (begin := _EXPLAIN.match(statement.query)):
            explained = connection.extract_statements(statement.query[begin.end() :])  # EXPLAIN ANALYZE runs it
            kind = explained[0].type if len(explained) == 1 else kind
        if kind != duckdb.StatementType.SELECT:
            raise BadQuery(
                f"{_ONLY} of these; {kind.name} is none of them. Facts enter by 'evaluate', 'run' and 'import', and "
                "files by 'export'"
            )
