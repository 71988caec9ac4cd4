"""Files of a few bytes that unpack to many are refused by their sizes, before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch

from bench import unpacking
from bench.data.digits import load_digits
from bench.data.load import load
from bench.errors import BadCheckpoint, BadData
from bench.evaluation.evidence import evidence_in
from bench.models.foreign import read_foreign

SIZE = 20_000_000


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(unpacking, "LARGE", SIZE // 2)
    monkeypatch.setenv("EVENBENCH_CACHE", str(tmp_path / "cache"))


def deflated(path: Path, one: Path) -> None:
    """The same zip file, its entries packed."""
    with zipfile.ZipFile(one) as held, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in held.infolist():
            packed.writestr(entry.filename, held.read(entry))


def test_weights(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(SIZE // 4)}, tmp_path / "whole.pt")
    deflated(tmp_path / "bomb.pt", tmp_path / "whole.pt")
    with pytest.raises(BadCheckpoint, match="bytes and would unpack to 20,"):
        read_foreign(tmp_path / "bomb.pt")
    assert read_foreign(tmp_path / "whole.pt")["w"].numel() == SIZE // 4


@pytest.mark.parametrize("kind", ["npz", "pt", "view"])
def test_evidence(tmp_path: Path, kind: str) -> None:
    images = load_digits("test").take(20, 0)
    bomb = tmp_path / ("bomb.npz" if kind == "npz" else "bomb.pt")
    if kind == "npz":
        np.savez_compressed(bomb, images=np.zeros((SIZE // 256, 1, 8, 8), np.float32))
    elif kind == "view":
        torch.save(torch.zeros(1, 1, 8, 8).expand(SIZE // 256, 1, 8, 8), bomb)
    else:
        torch.save(torch.zeros(SIZE // 256, 1, 8, 8), tmp_path / "whole.pt")
        deflated(bomb, tmp_path / "whole.pt")
    with pytest.raises(BadData, match=r"bomb\.(npz|pt) has .* bytes and would unpack to"):
        evidence_in(bomb, images)


@pytest.mark.parametrize("rows", [1, 20])
def test_images(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "bomb.parquet"
    image = f"{{'bytes': repeat('a', {SIZE // rows})::BLOB, 'path': ''}}"
    duckdb.sql(
        f"COPY (SELECT {image} AS image, 0 AS label FROM range({rows})) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"
    )
    with pytest.raises(BadData, match=r"bomb\.parquet has .* bytes and would unpack to"):
        load(str(path))


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*given: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied", "w.pt")

    monkeypatch.setattr(torch, "load", denied)
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(BadCheckpoint, match=r"cannot be read \(Permission denied\); mend its permissions"):
        read_foreign(tmp_path / "w.pt")
    with pytest.raises(BadData, match=r"cannot be read \(Permission denied\); mend its permissions"):
        evidence_in(tmp_path / "w.pt", load_digits("test"))


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.pt"])
def test_nobody_is_advised_to_load_what_is_not_safe(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"junk" * 100)
    with pytest.raises(BadData, match="must hold arrays of numbers and nothing else") as refused:
        evidence_in(tmp_path / name, load_digits("test"))
    assert "pickle" not in str(refused.value)
