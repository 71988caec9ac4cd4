"""What a check writes for other programs."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from bench.outcomes import Outcomes
from bench.report.handed import junit, page
from bench.report.regression import check
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow

N = 200


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("handed") / "bench.duckdb")
    made.create()
    made.add_dataset(DatasetRow("da7a", "digits", "test", "", N, ("<ape>", "bee")))
    made.add_attack(AttackRow("9d900000", "pgd", "Linf", "8/255", 8 / 255, (), "{}"))
    label = np.arange(N) % 2
    for name, right in (("good", 180), ("bad", 90)):
        row = (f"id-{name}", name, "", "p", "m", "digits", 0, None, name, 1, 1, "", None, "{}", "{}", "{}")
        made.add_checkpoint(CheckpointRow(*row))
        predicted = np.where(np.arange(N) < right, label, 1 - label)
        broken = np.where(predicted == label, 0, 1)
        evaluation = made.begin(f"id-{name}", "da7a", "9d900000", N)
        made.add_chunk(evaluation, Outcomes(np.arange(N), label, predicted, np.full(N, 0.9), broken))
    return made


def test_junit_has_a_case_for_every_figure_and_fails_what_is_worse(store):
    (suite,) = ElementTree.fromstring(junit(check(store, "bad", "good")))
    assert suite.attrib["name"] == "pgd Linf 8/255 on digits test"
    names = [case.attrib["name"] for case in suite]
    assert names == ["accuracy", "worst class", "NSD", "class <ape>", "class bee"]
    failed = {case.attrib["name"] for case in suite if case.find("failure") is not None}
    assert {"accuracy", "class <ape>", "class bee"} <= failed
    assert int(suite.attrib["failures"]) == len(failed)
    assert suite[0].find("failure").attrib["message"].startswith("worse: 90.0 to 45.0, -45.0 (")


def test_junit_fails_where_the_check_does_for_another_reason(store):
    assert len(ElementTree.fromstring(junit(check(store, "good", "good")))) == 1
    *_, last = ElementTree.fromstring(junit(check(store, "good", "good", strict=True)))
    assert (last.attrib["name"], last.attrib["failures"]) == ("verdict", "1")
    assert last[0].find("failure").attrib["message"].startswith("inconclusive: good@m#0 against good@m#0")


def test_the_page_says_verdict_question_tables_and_notes(store):
    text = page(check(store, "bad", "good"))
    assert text.startswith("# worse: bad@m#0 against good@m#0")
    assert "About these checkpoints only" in text
    assert "## pgd Linf 8/255 on digits test, 200 images" in text
    assert "class &lt;ape>" in text
    assert "The smallest loss that would have been called worse" in text
