"""Answers that JSON has no word for become text; those it has are as they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from bench.store.database import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("plain") / "bench.duckdb")
    made.create()
    return made


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("'a6b2f1c0-0000-4000-8000-000000000000'::UUID", "a6b2f1c0-0000-4000-8000-000000000000"),
        ("'101'::BIT", "101"),
        ("'x\\xAA'::BLOB", "78aa"),
        ("INTERVAL 3 DAY", "3 days, 0:00:00"),
        ("TIMESTAMP '2020-01-01 10:00:00'", "2020-01-01T10:00:00"),
        ("DATE '2020-01-01'", "2020-01-01"),
        ("TIME '10:00'", "10:00:00"),
        ("{'at': TIMESTAMPTZ 'infinity'}", "{'at': infinity}"),
        ("['a6b2f1c0-0000-4000-8000-000000000000'::UUID, NULL]", ["a6b2f1c0-0000-4000-8000-000000000000", None]),
        ("[1.5, NULL, 'nan'::DOUBLE]", [1.5, None, None]),
        ("[1.50::DECIMAL(5, 2)]", [1.5]),
        ("{'x': 1, 'y': ['z']}", {"x": 1, "y": ["z"]}),
        ("MAP {1: '101'::BIT}", {"1": "101"}),
        ("[170141183460469231731687303715884105727::HUGEINT]", [1.701411835e38]),
        ("'a'::ENUM('a', 'b')", "a"),
        ("true", True),
        ("1.25", 1.25),
        ("NULL", None),
    ],
)
def test_an_answer_as_json(store: Store, sql: str, wanted: object) -> None:
    told = store.shown(f"SELECT {sql} AS a").to_json(orient="records")
    assert json.loads(told) == [{"a": wanted}]


@pytest.mark.parametrize("end", ["", ";", " -- so far", ";\n-- so far\n;"])
def test_times_with_a_zone_beside_other_columns(store: Store, end: str) -> None:
    at = "TIMESTAMPTZ '2020-01-01 10:00:00+00' + to_days(x::INTEGER)"
    told = store.shown(f'SELECT 1; SELECT x AS "a""b", {at} AS at FROM range(2) t(x) ORDER BY x DESC{end}')
    rows = json.loads(told.to_json(orient="records"))
    assert [row['a"b'] for row in rows] == [1, 0]
    read = [datetime.fromisoformat(row["at"]) for row in rows]  # in the zone of this machine
    assert read == [datetime(2020, 1, day, 10, tzinfo=UTC) for day in (2, 1)]


def test_two_columns_of_one_name(store: Store) -> None:
    assert list(store.shown("SELECT 1 AS a, [2] AS a").columns) == ["a", "a_1"]


def test_numbers_and_texts_are_the_frame_of_a_query(store: Store) -> None:
    sql = "SELECT 1 AS n, 0.5::DOUBLE AS share, 'x' AS name, sum(x) AS total FROM range(5) t(x)"
    assert store.shown(sql).equals(store.query(sql))
