"""The one place that opens DuckDB: it fetches and loads no extension, whatever a path or a query looks like.

DuckDB takes a path such as `md:x` for an address, a foreign file for the work of an extension, and an unknown function
for one; each it would look up, download and run.
"""

from __future__ import annotations

from glob import escape
from pathlib import Path

import duckdb

from bench.errors import BadStore

ALONE = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
BLOCK = "default_block_size"


def connect(
    path: Path | None = None, *, read_only: bool = False, block: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection to a database file, or to one in memory.

    Args:
        path: of the file; made where it is not.
        read_only: whether nothing can be written to it.
        block: bytes of a block, for a file that is made.

    Raises:
        BadStore: there is something else than a file at the path.
        OSError: the system does not know such a path.
    """
    if path is not None and path.exists() and not path.is_file():  # opening a pipe may never end
        raise BadStore(f"{path} is no file, so it is no database; name another with --db")
    name = str(path.absolute()) if path else ":memory:"  # a path that begins with / is no address
    config: dict[str, str | bool | int | float | list[str]] = {**ALONE} if block is None else {**ALONE, BLOCK: block}
    return duckdb.connect(name, read_only=read_only, config=config)


def confine(connection: duckdb.DuckDBPyConnection, reach: Path | None = None) -> None:
    """Let what a connection does reach no file but its database and those in the folder `reach`, for good.

    A database of somebody else may hold views over any file, where tables are expected.
    """
    if reach is not None:
        folders = [str(reach.absolute()), escape(str(reach.absolute()))]  # DuckDB compares patterns as they are written
        listed = ", ".join("'" + folder.replace("'", "''") + "'" for folder in folders)
        connection.execute(f"SET allowed_directories = [{listed}]")
    connection.execute("SET enable_external_access = false; SET python_enable_replacements = false")
