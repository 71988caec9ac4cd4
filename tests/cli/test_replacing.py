"""Files that are in the way: what a verb wrote is replaced, what it did not is kept without --force."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli import run

BOARD = ["leaderboard", "--db", "b.duckdb", "--format", "md", "--out"]


@pytest.mark.parametrize(
    "content",
    [b"# Notes\n", b"\x00\x01DUCK", b"# Leaderboard\n\nof our club", b"<!doctype html><title>Mine</title>", b"[]"],
)
def test_a_file_of_somebody_else_is_kept_and_told_before_any_work(content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where no database is: the work would fail
    Path("mine").write_bytes(content)
    assert run([*BOARD, "mine"]) == 2
    said = capsys.readouterr().err
    assert "mine holds what this command did not write" in said
    assert "--force" in said
    assert Path("mine").read_bytes() == content


@pytest.mark.parametrize("out", ["folder", "file/board.md", "x" * 300])
def test_a_place_that_cannot_be_written_is_told_before_any_work(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("mine")
    assert run([*BOARD, out]) == 2
    assert "no database" not in capsys.readouterr().err


def test_a_folder_that_cannot_hold_figures_is_told_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    assert run(["plot", "--db", "b.duckdb", "--out", "file"]) == 2
    assert "no database" not in capsys.readouterr().err


def test_own_boards_in_every_format_are_replaced(db, capsys):
    for form in ("md", "csv", "json", "html", "md"):
        assert run(["leaderboard", "--db", db, "--format", form, "--out", "board"]) == 0
    Path("board").write_text("mine")
    assert run(["leaderboard", "--db", db, "--format", "md", "--out", "board"]) == 2
    assert run(["leaderboard", "--db", db, "--format", "md", "--out", "board", "--force"]) == 0
    assert Path("board").read_text().startswith("# Leaderboard")


def test_a_figure_replaces_figures_only(db, capsys):
    name = Path("figures/bars-digits-test-linf-0.15.png")
    draw = ["plot", "bars", "--db", db, "--out", "figures"]
    name.parent.mkdir()
    name.write_text("mine")
    assert run(draw) == 2
    assert "--force" in capsys.readouterr().err
    assert name.read_text() == "mine"
    assert run([*draw, "--force"]) == 0
    assert run(draw) == 0


@pytest.mark.parametrize("manifest", ["{}", "no JSON", '{"format": "web-app"}'])
def test_an_export_replaces_exports_only(db, capsys, manifest):
    Path("folder").mkdir()
    Path("folder/manifest.json").write_text(manifest)
    assert run(["export", "folder", "--db", db]) == 2
    assert Path("folder/manifest.json").read_text() == manifest
