"""A bundle: the facts of a database as a folder of Parquet files, to commit, to send and to merge.

One file per table and `manifest.json` with the SHA-256 and the row count of each. Only complete evaluations are
written, with the checkpoints (and their teachers), data sets, attacks and epochs that they need, and all verdicts of
soundness checks on these checkpoints.

Two databases with the same facts give the same bytes: rows are sorted by content, evaluations are numbered by the
order of their keys, chunks are summed per evaluation, and wall times, which no two machines share, are left out. An
imported evaluation therefore has its forward and backward counts, and NULL for `seconds`.

Where an evaluation is in the database already, the database's own outcomes stay; where it is there in part, the part is
replaced by the bundle's whole, since two runs may have cut their chunks differently. A verdict of the database stays
too, unless the bundle's is of a newer version of the check.

A bundle of an earlier version is read as well; what it lacks is NULL.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb

from bench.errors import BadStore
from bench.files import whole_folder
from bench.store.claims import refuse_contradictions

FORMAT = "evenbench-bundle"
VERSION = 2
"""Of what a bundle holds: raised when a table or a column of `_TABLES` changes, whatever else the database changes."""
MANIFEST = "manifest.json"

_WANTED = """
CREATE TEMP TABLE wanted AS
    SELECT evaluation_id, row_number() OVER (ORDER BY evaluation_key)::INTEGER AS number FROM complete_evaluations;
CREATE TEMP TABLE line AS
    WITH RECURSIVE line AS (
        SELECT checkpoint_id FROM complete_evaluations
        UNION
        SELECT k.teacher_id FROM line JOIN checkpoints k USING (checkpoint_id) WHERE k.teacher_id IS NOT NULL
    ) SELECT checkpoint_id FROM line;
"""
"""The evaluations to write, with their new numbers, and the checkpoints behind them, teachers of teachers included."""

_TABLES = {
    "datasets": (
        "SELECT * FROM datasets WHERE dataset_id IN (SELECT dataset_id FROM complete_evaluations) "
        "OR dataset_id IN (SELECT dataset_id FROM checks SEMI JOIN line USING (checkpoint_id)) ORDER BY dataset_id"
    ),
    "attacks": "SELECT * FROM attacks SEMI JOIN complete_evaluations USING (attack_id) ORDER BY attack_id",
    "checkpoints": "SELECT * FROM checkpoints SEMI JOIN line USING (checkpoint_id) ORDER BY checkpoint_id",
    "epochs": "SELECT * FROM epochs SEMI JOIN line USING (checkpoint_id) ORDER BY checkpoint_id, epoch, split, class",
    "evaluations": (
        "SELECT w.number AS evaluation_id, e.evaluation_key, e.checkpoint_id, e.dataset_id, e.attack_id, e.n, "
        "e.forwards, e.backwards FROM complete_evaluations e JOIN wanted w USING (evaluation_id) ORDER BY w.number"
    ),
    "outcomes": (
        "SELECT w.number AS evaluation_id, o.* EXCLUDE (evaluation_id) "
        "FROM outcomes o JOIN wanted w USING (evaluation_id) ORDER BY w.number, o.sample"
    ),
    "checks": "SELECT * FROM checks SEMI JOIN line USING (checkpoint_id) ORDER BY ALL",
    "published": "SELECT * FROM published ORDER BY ALL",
}

_LATER = {
    "outcomes": {"divergence", "forwards", "backwards"},
    "checks": {"dataset_id", "norm", "eps_exact", "detail", "version"},  # of the first version this table is empty
}
"""The columns that a bundle of the first version lacks."""
_SUMS = {"evaluations": {"forwards": "BIGINT", "backwards": "BIGINT"}}
"""The columns of a bundle that are in another table of the database."""

_ARRIVING = """
CREATE TEMP TABLE arriving AS
    SELECT n.*, m.evaluation_id AS mine,
           coalesce(m.evaluation_id,
                    (SELECT coalesce(max(evaluation_id), 0) FROM evaluations)
                    + row_number() OVER (PARTITION BY m.evaluation_id IS NULL ORDER BY n.evaluation_key))::INTEGER AS id
    FROM new_evaluations n
    LEFT JOIN evaluations m USING (evaluation_key)
    WHERE n.evaluation_key NOT IN (SELECT evaluation_key FROM complete_evaluations);
"""

_ENTER = """
INSERT INTO datasets BY NAME SELECT * FROM new_datasets ON CONFLICT DO NOTHING;
INSERT INTO attacks BY NAME SELECT * FROM new_attacks ON CONFLICT DO NOTHING;
INSERT INTO epochs BY NAME SELECT * FROM new_epochs ANTI JOIN epochs USING (checkpoint_id);
INSERT INTO checkpoints BY NAME SELECT * FROM new_checkpoints ON CONFLICT DO NOTHING;
INSERT INTO checks BY NAME SELECT * FROM new_checks
    ON CONFLICT DO UPDATE SET value = excluded.value, threshold = excluded.threshold, verdict = excluded.verdict,
        n = excluded.n, detail = excluded.detail, version = excluded.version
    WHERE excluded.version > version;
INSERT INTO published BY NAME (SELECT * FROM new_published EXCEPT SELECT * FROM published);
DELETE FROM outcomes WHERE evaluation_id IN (SELECT mine FROM arriving WHERE mine IS NOT NULL);
DELETE FROM chunks WHERE evaluation_id IN (SELECT mine FROM arriving WHERE mine IS NOT NULL);
INSERT INTO evaluations BY NAME
    SELECT id AS evaluation_id, evaluation_key, checkpoint_id, dataset_id, attack_id, n
    FROM arriving WHERE mine IS NULL;
INSERT INTO chunks BY NAME SELECT id AS evaluation_id, n, forwards, backwards, NULL::DOUBLE AS seconds FROM arriving;
INSERT INTO outcomes BY NAME
    SELECT a.id AS evaluation_id, o.* EXCLUDE (evaluation_id)
    FROM new_outcomes o JOIN arriving a USING (evaluation_id) ORDER BY a.id, o.sample;
"""


def write(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the complete evaluations of an open database to `folder`, replacing an earlier bundle there.

    Raises:
        BadStore: `folder` holds something that is no part of a bundle; it is left as it is.
    """
    folder = folder.resolve()
    _refuse_foreign(folder)
    with whole_folder(folder) as new:
        connection.execute("SET threads = 1")  # the order of row groups is otherwise left to chance
        connection.execute(_WANTED)
        contents = {}
        for table, select in _TABLES.items():
            file = new / f"{table}.parquet"
            connection.execute(f"COPY ({select}) TO {_quoted(str(file))} (FORMAT parquet, COMPRESSION zstd)")
            rows = connection.execute(f"SELECT count(*) FROM {_parquet(file)}").fetchall()[0][0]
            contents[file.name] = {"rows": rows, "sha256": _hash(file)}
        manifest = {"format": FORMAT, "schema_version": VERSION, "files": contents}
        (new / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge(connection: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """Enter what a bundle holds and the open database lacks, within the transaction that is under way.

    Returns:
        Number of evaluations completed.

    Raises:
        BadStore: a file is missing or differs from the manifest, or the facts contradict each other.
    """
    contents = _manifest(folder)
    for table in _TABLES:
        file = folder / f"{table}.parquet"
        claimed = contents.get(file.name)
        if not isinstance(claimed, dict) or not file.is_file():
            raise BadStore(f"the bundle {folder} lacks {file.name}; export it again")
        if claimed.get("sha256") != _hash(file):
            raise BadStore(f"{file} is damaged: its hash is not the one in {MANIFEST}; export it again")
        _view(connection, table, file, claimed.get("rows"))
    refuse_contradictions(connection, folder)
    connection.execute(_ARRIVING)
    connection.execute(_ENTER)
    return int(connection.execute("SELECT count(*) FROM arriving").fetchall()[0][0])


def _view(connection: duckdb.DuckDBPyConnection, table: str, file: Path, rows: object) -> None:
    """Let `new_TABLE` be what a file holds, with every column that the table has.

    Raises:
        BadStore: a column is missing, unknown or of another type, or the manifest counts other rows.
    """
    there = _columns(connection, _parquet(file))
    wanted = _columns(connection, table) | _SUMS.get(table, {})
    for name in sorted({*there, *wanted}):
        if there.get(name) != wanted.get(name) and not (name not in there and name in _LATER.get(table, ())):
            raise BadStore(
                f"{file} has a column {name[:40]!r} of type {there.get(name, 'none')[:40]}, "
                f"wanted {wanted.get(name, 'none')}; export it again"
            )
    columns = (f'"{name}"' if name in there else f'NULL::{kind} AS "{name}"' for name, kind in wanted.items())
    connection.execute(f"CREATE TEMP VIEW new_{table} AS SELECT {', '.join(columns)} FROM {_parquet(file)}")
    found = connection.execute(f"SELECT count(*) FROM {_parquet(file)}").fetchall()[0][0]
    if rows != found:
        raise BadStore(f"{file} has {found} rows, but {str(rows)[:40]} in {MANIFEST}; export it again")


def _columns(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """The types of the columns of a table or of a file, by name."""
    return {str(row[0]): str(row[1]) for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        raise BadStore(f"{folder} is no bundle: it holds no {MANIFEST}; give a folder that 'evenbench export' wrote")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        manifest = None
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or not isinstance(manifest.get("files"), dict)
    ):
        raise BadStore(f"{file} is damaged or not of a bundle; export it again")
    if manifest.get("schema_version") not in range(1, VERSION + 1):
        raise BadStore(
            f"the bundle {folder} has schema {manifest.get('schema_version')}, this evenbench reads {VERSION} "
            "and earlier; export it again with this version"
        )
    files: dict[str, Any] = manifest["files"]
    return files


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadStore(f"{folder} is a file; an export needs a folder")
    names = {entry.name for entry in folder.iterdir()}
    foreign = names - {MANIFEST} - {f"{table}.parquet" for table in _TABLES}
    if foreign or (names and not _is_ours(folder / MANIFEST)):
        raise BadStore(
            f"{folder} holds files that are not of an export ({', '.join(sorted(foreign or names)[:3])}); "
            "give an empty folder, a new one, or that of an earlier export"
        )


def _is_ours(manifest: Path) -> bool:
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and facts.get("format") == FORMAT


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _parquet(file: Path) -> str:
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(file))
    return f"read_parquet({_quoted(literal)})"
