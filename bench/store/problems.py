"""What DuckDB and the operating system report, in one line for a person."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from bench.errors import BadQuery, BadStore, DiskFull
from bench.files import is_full


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what DuckDB and the operating system report about `path` into one line for a person.

    Raises:
        DiskFull: no space left.
        BadStore: everything else.
    """
    try:
        yield
    except OSError as error:
        raise _explain(path, error, error.errno) from None
    except (duckdb.InterruptException, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "interrupted" not in str(error):
            raise
        raise KeyboardInterrupt from None  # DuckDB has made either of it
    except duckdb.Error as error:
        raise _explain(path, error, None) from None


def _explain(path: Path, error: Exception, code: int | None) -> BadStore | DiskFull:
    text = str(error)
    said = " ".join(text.split("\n\n")[0].split())

    def says(*marks: str) -> bool:
        return any(mark in text for mark in marks)

    if is_full(error):
        return DiskFull(f"{path} could not be written: no space left; free some and run again, nothing stored is lost")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS) or says(
        "Permission denied", "Read-only file system", "Operation not permitted"
    ):
        return BadStore(f"{path} cannot be written or read ({said}); change its permissions, or name another file")
    if says("not a valid DuckDB database"):
        return BadStore(f"{path} is not a DuckDB database; move it away, or name another file with --db")
    if says("database file with version number", "storage version"):
        return BadStore(f"{path} was written by another version of DuckDB ({said}); install that one")
    if code is None and says("Could not read enough bytes", "orrupt", "checksum", "INTERNAL", "Serialization", "WAL"):
        return BadStore(f"{path} is damaged ({said}); move it away and 'evenbench import' an export into a new one")
    return BadStore(f"{path} cannot be used: {said}")


def bad_query(error: duckdb.Error) -> Exception:
    """What is wrong with a query; the error itself where it is not the query that is wrong."""
    said = " ".join(str(error).split("\n\nLINE")[0].split())
    if "read-only mode" in said:
        return BadQuery("queries only read; this one would write. Facts enter by 'evaluate', 'run' and 'import'")
    if isinstance(error, duckdb.PermissionException) or "external access" in said:
        return BadQuery("queries reach no file but the database itself; use 'export' and 'import' for files")
    if type(error) is duckdb.Error or isinstance(error, duckdb.FatalException | duckdb.InternalException):
        return error  # damage, not SQL
    return BadQuery(f"the query cannot be answered: {said}")


def holder(error: duckdb.Error) -> str | None:
    """Who holds the file, where that is why it cannot be opened."""
    text = str(error)
    if "different configuration" in text:
        return "another connection of this process"
    if "Could not set lock" not in text:
        return None
    pid = re.search(r"PID (\d+)", text)
    return f"another process (PID {pid[1]})" if pid else "another process"
