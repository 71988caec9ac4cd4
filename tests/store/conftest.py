"""A database and its export, once a session; a copy of the export for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.store.database import Store

from .given import PAIRS, filled


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("source") / "bench.duckdb", PAIRS)


@pytest.fixture(scope="session")
def exported(source: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "an [odd] *name's"
    source.export(folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    copy.mkdir()
    for file in exported.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy
