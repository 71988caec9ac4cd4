"""Databases that are none, or were changed by another program."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from hypothesis import given, strategies as st

from .attempt import attempt, copied, tries

READ = {
    "leaderboard": ["leaderboard"],
    "plot": ["plot", "classes", "--out", "new"],
    "compare": ["compare", "natural", "natural"],
    "check": ["check", "natural", "--against", "natural"],
    "export": ["export", "new"],
    "sql": ["sql", "SELECT count(*) FROM outcomes"],
    "import": ["import", "bundle"],
    "run": ["run", "study.toml", "--dry-run"],
}


@tries(30)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused_in_a_line(data: st.DataObject, sound: Path, tmp_path: Path) -> None:
    content = bytearray((sound / "b.duckdb").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 20_000))
        content[place] ^= data.draw(st.integers(1, 255))
    with copied(sound, tmp_path) as here:
        (here / "other.duckdb").write_bytes(content[: data.draw(st.sampled_from([len(content), place]))])
        attempt(
            [*READ[data.draw(st.sampled_from(sorted(READ)))], "--db", "other.duckdb"], here, written=["other.duckdb"]
        )


@pytest.mark.parametrize("verb", sorted(READ))
@pytest.mark.parametrize("content", [b"SQLite format 3\0" * 100, b"\0" * 5000, b"PK\x03\x04text", b"name,value\n1,2\n"])
def test_what_is_no_database_is_refused_in_a_line(verb: str, content: bytes, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        (here / "other.duckdb").write_bytes(content)
        attempt([*READ[verb], "--db", "other.duckdb"], here, refused=True)


@pytest.mark.parametrize("verb", sorted(READ))
@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE outcomes CASCADE",
        "DROP TABLE meta",
        "DELETE FROM meta",
        "UPDATE meta SET schema_version = 999",
        "UPDATE meta SET schema_version = -1",
        "ALTER TABLE attacks RENAME eps TO epsilon",
    ],
)
def test_a_database_of_another_shape_is_refused_in_a_line(verb: str, change: str, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        with duckdb.connect(str(here / "b.duckdb")) as connection:
            try:
                connection.execute(change)
            except duckdb.Error as problem:
                pytest.skip(f"DuckDB refuses the change itself: {problem}")
        attempt([*READ[verb], "--db", "b.duckdb"], here)


@tries(60)
@given(
    query=st.sampled_from(
        [
            *("COPY outcomes TO 'x.csv'", "ATTACH 'x.duckdb'", "INSTALL httpfs", "LOAD httpfs", "PRAGMA database_list"),
            *("SET memory_limit = '1MB'", "CREATE TABLE x (y INT)", "DELETE FROM outcomes", "DROP TABLE outcomes"),
            *("CALL enable_logging()", "CALL pragma_version()", "SELECT * FROM 'at.safetensors'", "VACUUM", "BEGIN"),
            *("SELECT * FROM read_text('study.toml')", "SELECT * FROM glob('*')", "EXPORT DATABASE 'x'", "CHECKPOINT"),
            *(
                "SELECT 1; DELETE FROM outcomes",
                "SELECT 1;;",
                ";",
                "--",
                "SELECT",
                "SELECT * FROM nowhere",
                "USE memory",
            ),
            *("EXPLAIN ANALYZE DELETE FROM outcomes", "PREPARE x AS SELECT 1", "SELECT getenv('HOME')", "SELECT 1 / 0"),
        ]
    )
    | st.text(max_size=30),
    as_json=st.booleans(),
)
def test_sql_reads_the_database_and_nothing_else(query: str, as_json: bool, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        attempt(["sql", query, "--db", "b.duckdb", *["--json"] * as_json], here)
        assert {path.name for path in here.iterdir()} == {path.name for path in sound.iterdir()}
