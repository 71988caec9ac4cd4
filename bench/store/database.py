"""The database: facts go in by transaction, numbers come out by query.

One DuckDB file. Tables hold facts and only grow; every number shown anywhere is a view over them (schema.sql).
DuckDB lets one process write or several read, so a `Store` holds no connection: each operation opens the file,
does one transaction and closes it, and readers get in between. A reader sees all of a chunk or none of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import numpy.typing as npt

from bench.duck import confine
from bench.errors import BadStore
from bench.files import beside, sweep
from bench.outcomes import Outcomes
from bench.store import bundle, plain
from bench.store.bounds import refuse_all_but_reading
from bench.store.opening import opened
from bench.store.problems import bad_query, explained
from bench.store.rows import (
    AttackRow,
    CheckpointRow,
    DatasetRow,
    EpochRow,
    columns_of,
    evaluation_key,
    first,
    insert,
    insert_chunk,
)
from bench.store.schema import is_current, make, migrate, roll_back
from bench.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd


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
        say: told in one line that a wait takes long, the more rarely the longer.

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
            if self.path.exists():
                sweep(self.path)
            else:
                make(self.path)
        with self._writing():
            pass  # opening checks, migrates, and finds out now whether the file can be written

    def add_dataset(self, row: DatasetRow) -> None:
        """Enter a data set; one with the same id is left as it is."""
        with self._writing() as connection:
            insert(connection, "datasets", row)

    def add_attack(self, row: AttackRow) -> None:
        """Enter an attack; one with the same id is left as it is."""
        with self._writing() as connection:
            insert(connection, "attacks", row)

    def add_checkpoint(self, row: CheckpointRow, epochs: Sequence[EpochRow] = ()) -> None:
        """Enter a checkpoint and the class vectors of its training; what is already there is left as it is."""
        with self._writing() as connection:
            insert(connection, "checkpoints", row)
            known = first(connection, "SELECT 1 FROM epochs WHERE checkpoint_id = ?", [row.checkpoint_id])
            if epochs and known is None:
                connection.register("incoming_epochs", columns_of(epochs))
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
            found = first(connection, "SELECT evaluation_id, n FROM evaluations WHERE evaluation_key = ?", [key])
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
            insert_chunk(connection, evaluation_id, outcomes)

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
                insert_chunk(connection, evaluation_id, outcomes.select(fresh))

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

    def shown(self, sql: str) -> pd.DataFrame:
        """The answer to a SQL query for a person: as `query`, but with what JSON has no word for as text."""
        with self._asking(sql, ()) as answer:
            return plain.frame(answer, sql)

    def rows(self, sql: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The answer to a SQL query, as tuples; as `query`, but without the cost of importing pandas."""
        with self._asking(sql, params) as answer:
            return answer.fetchall()

    def columns(self, sql: str, params: Sequence[object] = ()) -> dict[str, npt.NDArray[Any]]:
        """The answer to a SQL query, as one array a column; as `query`, for many rows of numbers."""
        with self._asking(sql, params) as answer:
            return {name: np.asarray(column) for name, column in answer.fetchnumpy().items()}

    def export(self, folder: Path) -> None:
        """Write every complete evaluation, and all it needs, as Parquet files with a manifest of hashes.

        An earlier export in `folder` is replaced, a folder with anything else in it refused. Two databases with
        the same facts export the same bytes (`bench.store.bundle`).
        """
        with self._reading(beside(folder)) as connection, explained(folder):
            bundle.write(connection, folder)

    def merge(self, folder: Path) -> int:
        """Enter what `export` wrote and this database lacks, all or nothing.

        Returns:
            Number of evaluations that were not complete before and are now.

        Raises:
            BadStore: the bundle is damaged (the file is named), incomplete, of another schema version, or contradicts
                itself or this database.
        """
        with self._writing(folder) as connection, explained(folder):
            return bundle.merge(connection, folder)

    def _refuse_unknown(self, connection: duckdb.DuckDBPyConnection, **ids: str) -> None:
        for table, value in ids.items():
            column = f"{table.removesuffix('s')}_id"
            if first(connection, f"SELECT 1 FROM {table} WHERE {column} = ?", [value]) is None:
                raise BadStore(f"{self.path} holds no {column} {value!r}; enter it before what is found of it")

    @contextmanager
    def _asking(self, sql: str, params: Sequence[object]) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._reading() as connection:
            connection.execute("SET lock_configuration = true")
            try:
                refuse_all_but_reading(connection, sql)
                yield connection.execute(sql, list(params))
            except duckdb.IOException:
                raise
            except duckdb.Error as error:
                raise bad_query(error) from None

    @contextmanager
    def _reading(self, reach: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        with _GATE, explained(self.path):
            with self._opened(read_only=True, reach=reach) as connection:
                if is_current(connection, self.path):
                    yield connection
                    return
            with self._writing():
                pass  # migrates
            with self._opened(read_only=True, reach=reach) as connection:
                yield connection

    @contextmanager
    def _writing(self, reach: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        with _GATE, explained(self.path), self._opened(read_only=False, reach=reach) as connection:
            migrate(connection, self.path)
            connection.begin()
            try:
                yield connection
                connection.commit()
            except BaseException:
                roll_back(connection)
                raise

    @contextmanager
    def _opened(self, *, read_only: bool, reach: Path | None) -> Iterator[duckdb.DuckDBPyConnection]:
        if not self.path.exists():
            raise BadStore(f"there is no database at {self.path}; 'evenbench demo' makes one, --db names another")
        with opened(self.path, read_only=read_only, patience=self.patience, say=self.say) as connection:
            confine(connection, reach)
            yield connection
