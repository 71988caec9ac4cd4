"""Bundles with tables that were changed by someone who also knew to write the manifest anew."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, strategies as st

from .attempt import attempt, copied, tries

VALUES = st.sampled_from(
    [
        *("NULL", "''", "'\u202e'", "chr(27) || '[31m'", "repeat('a', 1000)", "'<script>'", "'=1+1'", "'NaN'", "'{}'"),
        *("'../../x'", "-1", "0", "1", "2", "9", "255", "65535", "4294967295", "2147483647", "1e308", "'inf'::DOUBLE"),
        *("'nan'::DOUBLE", "'8/255'", "'x/y'", "true", "[]", "['a']", "['a', 'a']", "[NULL]", "'natural'", "'pgd-sat'"),
    ]
)


def written_anew(folder: Path, table: str, query: str) -> None:
    """Write a table as a query over it has it, and the manifest with it."""
    path = folder / f"{table}.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE was AS SELECT * FROM '{path}'")
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
        (rows,) = connection.execute(f"SELECT count(*) FROM '{path}'").fetchone() or (0,)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = {"rows": rows, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def columns(folder: Path, table: str) -> list[str]:
    """Names of a table's columns."""
    with duckdb.connect() as connection:
        return [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM '{folder / table}.parquet'").fetchall()]


TABLES = ("datasets", "attacks", "checkpoints", "epochs", "evaluations", "outcomes", "checks", "published")


@st.composite
def changes(draw: st.DrawFn, folder: Path) -> tuple[str, str]:
    """A table, and a query that makes it another one."""
    table = draw(st.sampled_from(TABLES))
    column = draw(st.sampled_from(columns(folder, table)))
    match draw(st.sampled_from(["set", "set", "set", "some", "drop", "rename", "twice", "fewer", "none", "more"])):
        case "set":
            return table, f"SELECT * REPLACE ({draw(VALUES)} AS {column}) FROM was"
        case "some":
            one = f"CASE WHEN rowid = 0 THEN TRY_CAST({draw(VALUES)} AS VARCHAR) ELSE {column}::VARCHAR END"
            return table, f"SELECT * REPLACE (TRY_CAST({one} AS typeof({column})) AS {column}) FROM was"
        case "drop":
            return table, f"SELECT * EXCLUDE ({column}) FROM was"
        case "rename":
            return table, f"SELECT * RENAME ({column} AS other) FROM was"
        case "twice":
            return table, "SELECT * FROM was UNION ALL SELECT * FROM was"
        case "fewer":
            return table, "SELECT * FROM was WHERE rowid > 0"
        case "none":
            return table, "SELECT * FROM was WHERE false"
    return table, "SELECT *, 1 AS more FROM was"


@tries(70)
@given(data=st.data(), into=st.sampled_from(["b.duckdb", "new.duckdb"]))
def test_a_changed_bundle_is_refused_or_leaves_boards_that_can_be_read(
    data: st.DataObject, into: str, sound: Path, tmp_path: Path
) -> None:
    table, query = data.draw(changes(sound / "bundle"))
    with copied(sound, tmp_path) as here:
        try:
            written_anew(here / "bundle", table, query)
        except duckdb.Error:
            return  # no such table can be written
        came = attempt(["import", "bundle", "--db", into], here, written=[into])
        if came.code == 0:
            for verb in (["leaderboard"], ["compare", "natural", "natural"], ["export", "again"]):
                read = attempt([*verb, "--db", into], here, written=[into])
                assert read.code == 0 or verb[0] == "compare", read
        elif into == "b.duckdb":
            assert attempt(["leaderboard", "--db", into], here, written=[into]).code == 0


@tries(30)
@given(data=st.data())
def test_changed_bytes_are_refused_in_a_line(data: st.DataObject, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        path = data.draw(st.sampled_from(sorted((here / "bundle").iterdir())))
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content[: data.draw(st.sampled_from([len(content), place]))])
        came = attempt(["import", "bundle", "--db", "new.duckdb"], here)
        assert came.code == 2 or path.name == "manifest.json"


@pytest.mark.parametrize("lost", ["manifest.json", "outcomes.parquet", "datasets.parquet", "attacks.parquet"])
def test_a_bundle_without_one_of_its_files_is_refused_in_a_line(lost: str, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        (here / "bundle" / lost).unlink()
        attempt(["import", "bundle", "--db", "new.duckdb"], here, refused=True)
