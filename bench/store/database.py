"""The database: facts go in by transaction, numbers come out by query.

One DuckDB file. Tables hold facts and only grow; every number shown anywhere is a view over them (schema.sql).
DuckDB lets one process write or several read, so a `Store` holds no connection: each operation opens the file,
does one transaction and closes it, and readers get in between. A reader sees all of a chunk or none of it.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, astuple, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import numpy.typing as npt

from bench.errors import BadQuery, BadStore, DiskFull, StoreBusy
from bench.outcomes import COLUMNS, Outcomes
from bench.store import bundle
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow, EpochRow, evaluation_key
from bench.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

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

POLL = 0.05
"""Seconds between two attempts to open a file that is held."""

_GATE = threading.RLock()
# DuckDB shares one instance between the connections of a process and refuses to mix reading with writing there.


def silent(message: str) -> None:
    """Say nothing: the default of `Store.say`."""


@dataclass(frozen=True)
class Store:
    """A database file, as a value: it can be copied, compared and pickled, and holds nothing open.

    Attributes:
        path: the DuckDB file.
        patience: seconds to wait for another process that holds the file.
        say: told once, in one line, when a wait begins.

    Every operation raises BadStore where the file is missing, damaged, foreign, read-only or of a newer schema,
    StoreBusy where it is held for longer than `patience`, and DiskFull where it cannot grow.
    """

    path: Path
    _: KW_ONLY
    patience: float = 10.0
    say: Callable[[str], None] = silent

    def create(self) -> None:
        """Make the file, its folder and its tables where absent; migrate a database of an older schema."""
        with _GATE, explained(self.path):
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _make(self.path)
        with self._writing():
            pass  # opening checks, migrates, and finds out now whether the file can be written

    def add_dataset(self, row: DatasetRow) -> None:
        """Enter a data set; one with the same id is left as it is."""
        with self._writing() as connection:
            _insert(connection, "datasets", row)

    def add_attack(self, row: AttackRow) -> None:
        """Enter an attack; one with the same id is left as it is."""
        with self._writing() as connection:
            _insert(connection, "attacks", row)

    def add_checkpoint(self, row: CheckpointRow, epochs: Sequence[EpochRow] = ()) -> None:
        """Enter a checkpoint and the class vectors of its training; what is already there is left as it is."""
        with self._writing() as connection:
            _insert(connection, "checkpoints", row)
            known = _first(connection, "SELECT 1 FROM epochs WHERE checkpoint_id = ?", [row.checkpoint_id])
            if epochs and known is None:
                connection.register("incoming_epochs", _columns_of(epochs))
                connection.execute(
                    "INSERT INTO epochs SELECT ?, epoch, split, class, n, hits_clean, hits_adv FROM incoming_epochs",
                    [row.checkpoint_id],
                )

    def begin(self, checkpoint_id: str, dataset_id: str, attack_id: str, n: int) -> int:
        """The evaluation of a checkpoint under an attack, entered unless it is already there.

        Args:
            checkpoint_id: of a checkpoint that has been entered.
            dataset_id: of a data set that has been entered.
            attack_id: of an attack that has been entered.
            n: samples planned; the evaluation is complete, and visible to the views, when as many are in.

        Returns:
            evaluation_id, for `add_chunk`.

        Raises:
            BadStore: one of the three has not been entered, or the evaluation was begun with another `n`.
        """
        if n < 1:
            raise BadStore(f"an evaluation of {n} samples cannot begin; at least 1 is wanted")
        key = evaluation_key(checkpoint_id, dataset_id, attack_id)
        with self._writing() as connection:
            found = _first(connection, "SELECT evaluation_id, n FROM evaluations WHERE evaluation_key = ?", [key])
            if found is not None:
                if found[1] != n:
                    raise BadStore(
                        f"evaluation {key} was begun with {found[1]} samples and cannot go on with {n}; "
                        "evaluate the subset it was begun with"
                    )
                return int(found[0])
            self._refuse_unknown(connection, checkpoints=checkpoint_id, datasets=dataset_id, attacks=attack_id)
            made = connection.execute(
                "INSERT INTO evaluations SELECT coalesce(max(evaluation_id), 0) + 1, ?, ?, ?, ?, ? FROM evaluations "
                "RETURNING evaluation_id",
                [key, checkpoint_id, dataset_id, attack_id, n],
            ).fetchall()
            return int(made[0][0])

    def add_chunk(self, evaluation_id: int, outcomes: Outcomes) -> None:
        """Enter some outcomes of an evaluation, all of them or, on any error, none.

        Raises:
            BadStore: a sample is there already or twice among the new ones, more samples came than were planned,
                a class is outside the data set's, or no such evaluation has begun.
        """
        with self._writing() as connection:
            _insert_chunk(connection, evaluation_id, outcomes)

    def add_missing(self, evaluation_id: int, outcomes: Outcomes) -> None:
        """Enter those outcomes that are not in yet, as when another process has judged the same samples meanwhile.

        Raises:
            BadStore: as `add_chunk`, but for samples that are there already.
        """
        with self._writing() as connection:
            there = connection.execute(
                "SELECT sample FROM outcomes WHERE evaluation_id = ?", [evaluation_id]
            ).fetchnumpy()
            fresh = ~np.isin(outcomes.sample, there["sample"])
            if fresh.any():
                _insert_chunk(connection, evaluation_id, outcomes.select(fresh))

    def add_verdicts(
        self, checkpoint_id: str, dataset_id: str, norm: str, eps_exact: str, verdicts: Sequence[Verdict]
    ) -> None:
        """Enter what soundness checks found, all or nothing; an older verdict of the same check is replaced.

        Args:
            checkpoint_id: of a checkpoint that has been entered.
            dataset_id: of a data set that has been entered.
            norm: of the threat the checks were run under; "none" for checks that no threat is part of.
            eps_exact: its radius, such as "8/255"; "0" likewise.
            verdicts: one per check.

        Raises:
            BadStore: the checkpoint or the data set has not been entered.
        """
        with self._writing() as connection:
            self._refuse_unknown(connection, checkpoints=checkpoint_id, datasets=dataset_id)
            for one in verdicts:
                connection.execute(
                    "INSERT OR REPLACE INTO checks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [checkpoint_id, dataset_id, norm, eps_exact, *astuple(one)],
                )

    def verdicts(self, checkpoint_id: str, dataset_id: str, norm: str, eps_exact: str) -> list[Verdict]:
        """What the soundness checks of a checkpoint found on a data set under one threat, by name of the check."""
        names = ", ".join("check_name" if field.name == "name" else field.name for field in fields(Verdict))
        found = self.rows(
            f"SELECT {names} FROM checks WHERE (checkpoint_id, dataset_id, norm, eps_exact) = (?, ?, ?, ?) "
            "ORDER BY check_name",
            [checkpoint_id, dataset_id, norm, eps_exact],
        )
        return [Verdict(*row) for row in found]

    def done(self, checkpoint_id: str, dataset_id: str, attack_id: str) -> npt.NDArray[np.uint32]:
        """(D,) uint32, ascending: the samples whose outcome is already in."""
        key = evaluation_key(checkpoint_id, dataset_id, attack_id)
        with self._reading() as connection:
            columns = connection.execute(
                "SELECT sample FROM outcomes WHERE evaluation_id = "
                "(SELECT evaluation_id FROM evaluations WHERE evaluation_key = ?) ORDER BY sample",
                [key],
            ).fetchnumpy()
        return np.asarray(columns["sample"], dtype=np.uint32)

    def complete(self, checkpoint_id: str, dataset_id: str, attack_id: str) -> bool:
        """Whether every planned sample of an evaluation is in."""
        key = evaluation_key(checkpoint_id, dataset_id, attack_id)
        return bool(self.rows("SELECT 1 FROM complete_evaluations WHERE evaluation_key = ?", [key]))

    def checkpoint_of_run(self, run_id: str) -> tuple[str, str] | None:
        """Checkpoint and recipe that a training run ended in, by their ids; None when it has not been entered."""
        found = self.rows(
            "SELECT checkpoint_id, recipe_id FROM checkpoints WHERE run_id = ? ORDER BY checkpoint_id LIMIT 1", [run_id]
        )
        return (str(found[0][0]), str(found[0][1])) if found else None

    def query(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        """The answer to a SQL query, as a frame. Nothing can be written, and no other file read.

        Args:
            sql: one or more statements, with `?` for parameters; the last one's answer counts.
            params: values for the `?`.

        Raises:
            BadQuery: the SQL is wrong, or asks to write, or to reach beyond this database.
        """
        with self._asking(sql, params) as answer:
            return answer.df()

    def rows(self, sql: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The answer to a SQL query, as tuples; as `query`, but without the cost of importing pandas."""
        with self._asking(sql, params) as answer:
            return answer.fetchall()

    def export(self, folder: Path) -> None:
        """Write every complete evaluation, and all it needs, as Parquet files with a manifest of hashes.

        An earlier export in `folder` is replaced, a folder with anything else in it refused. Two databases with
        the same facts export the same bytes (`bench.store.bundle`).
        """
        with self._reading() as connection, explained(folder):
            bundle.write(connection, folder)

    def merge(self, folder: Path) -> int:
        """Enter what `export` wrote and this database lacks, all or nothing.

        Returns:
            Number of evaluations that were not complete before and are now.

        Raises:
            BadStore: the bundle is damaged (the file is named), incomplete, or of another schema version.
        """
        with self._writing() as connection, explained(folder):
            return bundle.merge(connection, folder)

    def _refuse_unknown(self, connection: duckdb.DuckDBPyConnection, **ids: str) -> None:
        for table, value in ids.items():
            column = f"{table.removesuffix('s')}_id"
            if _first(connection, f"SELECT 1 FROM {table} WHERE {column} = ?", [value]) is None:
                raise BadStore(f"{self.path} holds no {column} {value!r}; enter it before what is found of it")

    @contextmanager
    def _asking(self, sql: str, params: Sequence[object]) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._reading() as connection:
            connection.execute("SET enable_external_access = false; SET python_enable_replacements = false")
            try:
                statements = connection.extract_statements(sql)
                if not statements:
                    raise BadQuery('no SQL statement came; give one, such as "SELECT * FROM leaderboard"')
                yield connection.execute(sql, list(params))
            except duckdb.IOException:
                raise
            except duckdb.Error as error:
                raise _bad_query(error) from None

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with _GATE, explained(self.path):
            connection = self._connect(read_only=True)
            try:
                if _version(connection, self.path) < SCHEMA_VERSION:
                    connection.close()
                    with self._writing():
                        pass  # migrates
                    connection = self._connect(read_only=True)
                yield connection
            finally:
                connection.close()

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with _GATE, explained(self.path):
            connection = self._connect(read_only=False)
            try:
                _migrate(connection, self.path)
                connection.begin()
                try:
                    yield connection
                    connection.commit()
                except BaseException:
                    _roll_back(connection)
                    raise
            finally:
                connection.close()

    def _connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        if not self.path.exists():
            raise BadStore(f"there is no database at {self.path}; 'evenbench demo' makes one, --db names another")
        deadline = time.monotonic() + self.patience
        waiting = False
        while True:
            try:
                return duckdb.connect(str(self.path), read_only=read_only)
            except duckdb.Error as error:
                holder = _holder(error)
                if holder is None:
                    raise
                if time.monotonic() >= deadline:
                    raise StoreBusy(
                        f"{self.path} is still held by {holder} after {self.patience:g} s; wait for it to finish "
                        "or stop it and run again, or name another database with --db"
                    ) from None
                if not waiting:
                    self.say(f"{self.path} is held by {holder}; waiting up to {self.patience:g} s")
                    waiting = True
                time.sleep(POLL)


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
        raise _explain(path, str(error), error.errno) from None
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.Error as error:
        raise _explain(path, str(error), None) from None


def _explain(path: Path, text: str, code: int | None) -> BadStore | DiskFull:
    said = " ".join(text.split("\n\n")[0].split())

    def says(*marks: str) -> bool:
        return any(mark in text for mark in marks)

    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or says(
        "No space left", "quota exceeded", "File too large", "not enough space"
    ):
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


def _bad_query(error: duckdb.Error) -> Exception:
    said = " ".join(str(error).split("\n\nLINE")[0].split())
    if "read-only mode" in said:
        return BadQuery("queries only read; this one would write. Facts enter by 'evaluate', 'run' and 'import'")
    if isinstance(error, duckdb.PermissionException) or "external access" in said:
        return BadQuery("queries reach no file but the database itself; use 'export' and 'import' for files")
    if type(error) is duckdb.Error or isinstance(error, duckdb.FatalException | duckdb.InternalException):
        return error  # damage, not SQL
    return BadQuery(f"the query cannot be answered: {said}")


def _holder(error: duckdb.Error) -> str | None:
    text = str(error)
    if "different configuration" in text:
        return "another connection of this process"
    if "Could not set lock" not in text:
        return None
    pid = re.search(r"PID (\d+)", text)
    return f"another process (PID {pid[1]})" if pid else "another process"


def _schema() -> str:
    return files("bench.store").joinpath("schema.sql").read_text(encoding="utf-8")


def _make(path: Path) -> None:
    """Make a database beside its place and move it there whole, so that a killed process leaves no half of one."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    try:
        connection = duckdb.connect(str(new), config={"default_block_size": BLOCK})
        try:
            connection.execute(_schema())
            connection.execute("INSERT INTO meta VALUES (?)", [SCHEMA_VERSION])
        finally:
            connection.close()
        try:
            os.link(new, path)
        except FileExistsError:
            pass  # another process was faster, and its file is as good
        except OSError:
            new.rename(path)  # a file system without links
    finally:
        new.unlink(missing_ok=True)


def _version(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
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


def _migrate(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    version = _version(connection, path)
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
        _roll_back(connection)
        raise


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # the failure that led here may have ended it, and is the one to report
        connection.rollback()


def _first(connection: duckdb.DuckDBPyConnection, sql: str, params: Sequence[object]) -> tuple[Any, ...] | None:
    # fetchone would leave the rest of the answer waiting, and the connection refuses further work until it is read
    found = connection.execute(f"{sql} LIMIT 1", list(params)).fetchall()
    return found[0] if found else None


def _insert(connection: duckdb.DuckDBPyConnection, table: str, row: DatasetRow | AttackRow | CheckpointRow) -> None:
    names = [field.name for field in fields(row)]
    values = [list(value) if isinstance(value, tuple) else value for value in (getattr(row, name) for name in names)]
    marks = ", ".join("?" * len(names))
    connection.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT DO NOTHING", values)


def _columns_of(epochs: Sequence[EpochRow]) -> dict[str, npt.NDArray[Any]]:
    def counts(values: list[int | None]) -> npt.NDArray[Any]:
        missing = [value is None for value in values]
        return np.ma.masked_array([value or 0 for value in values], mask=missing, dtype=np.int32)

    return {
        "epoch": np.array([row.epoch for row in epochs], dtype=np.int32),
        "split": np.array([row.split for row in epochs], dtype=object),
        "class": np.array([row.class_ for row in epochs], dtype=np.uint16),
        "n": np.array([row.n for row in epochs], dtype=np.int32),
        "hits_clean": counts([row.hits_clean for row in epochs]),
        "hits_adv": counts([row.hits_adv for row in epochs]),
    }


def _insert_chunk(connection: duckdb.DuckDBPyConnection, evaluation_id: int, outcomes: Outcomes) -> None:
    order = np.argsort(outcomes.sample, kind="stable")
    columns = {name: np.ascontiguousarray(getattr(outcomes, name)[order]) for name in ("correct", *COLUMNS)}
    connection.register("incoming", columns)
    _refuse_misfit(connection, evaluation_id, columns)
    connection.execute(
        "INSERT INTO outcomes BY NAME SELECT ?::INTEGER AS evaluation_id, * FROM incoming", [evaluation_id]
    )
    totals = [int(getattr(outcomes, name).sum(dtype=np.int64)) for name in ("forwards", "backwards")]
    connection.execute(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", [evaluation_id, len(outcomes), *totals, outcomes.seconds]
    )


def _refuse_misfit(
    connection: duckdb.DuckDBPyConnection, evaluation_id: int, columns: dict[str, npt.NDArray[Any]]
) -> None:
    found = _first(
        connection,
        "SELECT e.n, len(d.class_names), coalesce((SELECT sum(c.n) FROM chunks c WHERE c.evaluation_id = ?), 0) "
        "FROM evaluations e JOIN datasets d USING (dataset_id) WHERE e.evaluation_id = ?",
        [evaluation_id, evaluation_id],
    )
    if found is None:
        raise BadStore(f"no evaluation {evaluation_id} has begun; call begin first")
    planned, classes, before = (int(value) for value in found)
    sample = columns["sample"]
    if before + len(sample) > planned:
        raise BadStore(
            f"evaluation {evaluation_id} plans {planned} samples and has {before}; {len(sample)} more are too many"
        )
    twice = sample[1:][sample[1:] == sample[:-1]]
    there = _first(
        connection,
        "SELECT sample FROM outcomes SEMI JOIN incoming USING (sample) WHERE evaluation_id = ? ORDER BY sample",
        [evaluation_id],
    )
    if len(twice) or there is not None:
        which = int(twice[0]) if there is None else there[0]
        raise BadStore(f"sample {which} of evaluation {evaluation_id} is already in; send only samples not yet done")
    for name in ("label", "predicted"):
        if len(sample) and columns[name].max() >= classes:
            raise BadStore(
                f"{name} {columns[name].max()} is outside the {classes} classes of the data set; nothing was stored"
            )
