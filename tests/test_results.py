"""What is committed under results/ regenerates from its Parquet, byte for byte, and agrees with itself."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.cli import run
from bench.report.regression import check
from bench.store.database import Store

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "results" / "digits"


def script(name):
    """A script of results/ as a module."""
    spec = importlib.util.spec_from_file_location(f"results_{name}", ROOT / "results" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "bench.duckdb"
    assert run(["import", str(DIGITS / "outcomes"), "--db", str(path)]) == 0
    return path


@pytest.mark.parametrize("form", ["md", "html"])
def test_the_board_comes_out_again(database, tmp_path, form):
    out = tmp_path / f"leaderboard.{form}"
    assert run(["leaderboard", "--db", str(database), "--format", form, "--out", str(out)]) == 0
    assert out.read_bytes() == (DIGITS / out.name).read_bytes()


def test_the_page_of_claims_comes_out_again(database, tmp_path):
    claims = script("claims")
    claims.main(database, tmp_path / "claims.md")
    assert (tmp_path / "claims.md").read_bytes() == (DIGITS / "claims.md").read_bytes()


def test_the_study_is_whole(database):
    rows = Store(database).rows("SELECT method, variant, count(DISTINCT seed) FROM summary GROUP BY ALL")
    assert len(rows) >= 24
    assert {seeds for _, _, seeds in rows} == {5}


@pytest.mark.parametrize(
    ("candidate", "baseline", "figure", "words"),
    [
        ("adr", "pgd-at", "accuracy", {"inconclusive"}),  # the page of claims has it not seen
        ("adr+wa", "wa", "accuracy", {"inconclusive"}),
        ("frl", "trades", "class 8", {"worse"}),
        ("frl", "absld[targets.as_released=true]", "worst class", {"worse"}),
        ("pgd-at#0,1", "pgd-at#2,3", "accuracy", {"inconclusive", "not worse"}),
    ],
)
def test_what_a_check_says_of_the_study(database, candidate, baseline, figure, words):
    made = check(Store(database), candidate, baseline, attack="autoattack")
    (said,) = [one.verdict for _, one in made.findings if one.name == figure]
    assert said in words
    assert (made.verdict == "worse") or words != {"worse"}


def test_seeds_of_one_method_are_never_worse_than_each_other(database):
    for candidate, baseline in (("pgd-at#0,1", "pgd-at#2,3"), ("pgd-at#2,3", "pgd-at#0,1")):
        assert check(Store(database), candidate, baseline).verdict in ("inconclusive", "not worse")


def test_a_row_of_the_calibration_comes_out_again():
    calibration = script("calibration")
    page = (ROOT / "results" / "calibration-of-statistics.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(calibration.single_row(719, 'one class far below'))} |" in page


def test_the_calibration_keeps_what_it_promises():
    page = (ROOT / "results" / "calibration-of-statistics.md").read_text(encoding="utf-8")
    assert float(re.search(r"say worse \(([0-9.]+) %\)", page)[1]) <= 5
    (null,) = re.findall(r"## How often a check says worse, where nothing is.*?(?=\n## )", page, re.DOTALL)
    rows = re.findall(r"^\| \d+ \| \d+ \| [^|]+ \| (\d+) \| ([0-9.]+) \|", null, re.MULTILINE)
    assert len(rows) > 10
    assert all(float(share) <= 5 + 300 * (0.05 * 0.95 / int(draws)) ** 0.5 for draws, share in rows)


def test_an_interval_by_hand():
    claims = script("claims")
    mean, low, high = claims.interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 / 3**0.5  # t(0.975, 2) times the standard deviation 1 over the root of 3
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half), abs=1e-5)
    verdicts = [claims.verdict(*ends) for ends in ((1, 2, 1), (1, 2, -1), (-1, 2, 1), (-2, -1, 0), (-1, 1, 0))]
    assert verdicts == ["seen", "the opposite", "not seen", "lower", "no difference seen"]
