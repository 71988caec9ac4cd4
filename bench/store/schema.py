"""The tables of a database file: making them, and lifting those of an older version.

The tables themselves are in schema.sql.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import duckdb

from bench.duck import connect
from bench.errors import BadStore
from bench.files import whole_unless_there

SCHEMA_VERSION = 3
"""Version of schema.sql, as kept in the table `meta`."""


MIGRATIONS: dict[int, str] = {
    1: """
        ALTER TABLE outcomes ADD COLUMN divergence FLOAT;
        ALTER TABLE outcomes ADD COLUMN forwards UINTEGER;
        ALTER TABLE outcomes ADD COLUMN backwards UINTEGER;
        DROP TABLE checks;  -- nothing ever wrote to it
        CREATE TABLE checks (
            checkpoint_id VARCHAR NOT NULL,
            dataset_id    VARCHAR NOT NULL,
            norm          VARCHAR NOT NULL,
            eps_exact     VARCHAR NOT NULL,
            check_name    VARCHAR NOT NULL,
            value         DOUBLE,
            threshold     DOUBLE,
            verdict       VARCHAR NOT NULL CHECK (verdict IN ('pass', 'warn', 'fail', 'not-run')),
            n             INTEGER NOT NULL,
            detail        VARCHAR NOT NULL,
            version       INTEGER NOT NULL,
            PRIMARY KEY (checkpoint_id, dataset_id, norm, eps_exact, check_name)
        );
    """,
    2: "",  # the tables stay: views call macros
}
"""SQL that lifts the tables of a version to the next one; views and macros are made anew after the last step."""


BLOCK = 32_768
"""Bytes of a block of a new database. Chunks are small: in DuckDB's default of 262,144 most of a block stays empty."""


def _schema() -> str:
    return files("bench.store").joinpath("schema.sql").read_text(encoding="utf-8")


def make(path: Path) -> None:
    """Make a database whole, so that a killed process leaves no half of one; another process may be faster."""
    with whole_unless_there(path) as new:
        connection = connect(new, block=BLOCK)
        try:
            connection.execute(_schema())
            connection.execute("INSERT INTO meta VALUES (?)", [SCHEMA_VERSION])
        finally:
            connection.close()


def version_of(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Version of the tables.

    Raises:
        BadStore: they are not ours, or newer than this version knows.
    """
    try:
        found = connection.execute("SELECT schema_version FROM meta").fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        found = []
    if len(found) != 1 or not isinstance(found[0][0], int):
        raise BadStore(f"{path} is a DuckDB database, but not one of evenbench's; name another file with --db")
    version = int(found[0][0])
    if version > SCHEMA_VERSION:
        raise BadStore(
            f"{path} was made by a newer evenbench (schema {version}, this one knows {SCHEMA_VERSION}); "
            "upgrade evenbench, or name another file with --db"
        )
    return version


def is_current(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Whether the tables need no lifting.

    Raises:
        BadStore: see `version_of`.
    """
    return version_of(connection, path) == SCHEMA_VERSION


def migrate(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Lift the tables of an older version, all or nothing.

    Raises:
        BadStore: they are of no version that is known.
    """
    version = version_of(connection, path)
    if version == SCHEMA_VERSION:
        return
    steps = range(version, SCHEMA_VERSION)
    if any(step not in MIGRATIONS for step in steps):
        raise BadStore(f"{path} has schema {version}, which this evenbench cannot migrate; use an earlier one first")
    connection.begin()
    try:
        for step in steps:
            connection.execute(MIGRATIONS[step])
        for statement in connection.extract_statements(_schema()):
            if "CREATE OR REPLACE" in statement.query:  # a view or a macro
                connection.execute(statement)
        connection.execute("UPDATE meta SET schema_version = ?", [SCHEMA_VERSION])
        connection.commit()
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """Take a transaction back."""
    with suppress(duckdb.Error):  # the failure that led here may have ended it, and is the one to report
        connection.rollback()
