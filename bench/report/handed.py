"""What a check hands to other programs: JUnit's XML for a CI that lists tests, Markdown for a page of it."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.report.formats import inline, markdown
from bench.report.regression import Decision, Finding, Judged


def junit(decision: Decision) -> str:
    """JUnit's XML: a suite for every data set and attack, a case for the accuracy, worst class, NSD and every class.

    A case fails where its figure is worse. Where none does but the check fails (inconclusive and strict, a failed
    soundness check, incomparable), a suite of its own has one failing case that says why.
    """
    root = ElementTree.Element("testsuites", name=f"{decision.candidate.spelled} against {decision.baseline.spelled}")
    for each in decision.judged:
        worse = sum(one.verdict == "worse" for one in each.findings)
        suite = _suite(root, each.trials.setting.title, len(each.findings), worse)
        for one in each.findings:
            _case(suite, each, one)
    if decision.exit_code and decision.verdict != "worse":
        suite = _suite(root, "verdict", 1, 1)
        case = ElementTree.SubElement(suite, "testcase", classname="verdict", name=decision.verdict)
        ElementTree.SubElement(case, "failure", message=decision.sentence)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def page(decision: Decision) -> str:
    """Markdown: the verdict, what it is about, a table for every data set and attack, and the notes."""
    parts = [f"# {inline(decision.sentence)}", inline(decision.heading)]
    for table in decision.tables():
        parts += [f"## {inline(table.title)}", markdown(table)]
    return "\n\n".join([*parts, *map(inline, decision.notes())]) + "\n"


def _suite(root: ElementTree.Element, name: str, tests: int, failures: int) -> ElementTree.Element:
    return ElementTree.SubElement(root, "testsuite", name=name, tests=str(tests), failures=str(failures))


def _case(suite: ElementTree.Element, each: Judged, one: Finding) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=each.trials.setting.title, name=one.name)
    _, baseline, candidate, difference, interval, margin, _ = one.row
    said = f"{one.verdict}: {baseline} to {candidate}, {difference} ({interval}), margin {margin}"
    if one.verdict == "worse":
        ElementTree.SubElement(case, "failure", message=said)
    else:
        ElementTree.SubElement(case, "system-out").text = said
