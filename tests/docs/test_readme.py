"""What the documents say exists: verbs, options, files, packages."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

from bench.cli.command import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group of verbs
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(blocks: list[str]) -> list[str]:
    """Every `evenbench ...` among some texts, without remarks."""
    parts = [part.partition("#")[0].strip() for block in blocks for part in block.split("&&")]
    return [part for part in dict.fromkeys(parts) if re.match(r"evenbench [a-z]", part)]


def shown(name: str) -> list[str]:
    """Commands in indented blocks, to be typed as they stand."""
    return commands(re.findall(r"^(?:    |\$ )(.*)$", text(name), re.MULTILINE))


def mentioned(name: str) -> list[str]:
    """Commands in backticks, which may leave something out."""
    return commands(re.findall(r"(?<!`)`([^`]+)`(?!`)", text(name)))


COMMANDS = [(name, line) for name in DOCUMENTS for line in (*shown(name), *mentioned(name))]


def test_the_documents_show_commands():
    verbs = {line.split()[1] for _, line in COMMANDS}
    assert {"demo", "run", "compare", "check", "train", "evaluate", "list", "show", "leaderboard"} <= verbs


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_every_command_in_the_documents_can_be_given(document, line):
    words = shlex.split(line.replace("|", " "))[1:]
    assert words[0] in VERBS, f"{document}: no verb {words[0]!r}"
    verb = VERBS[words[0]]
    known = {name: parameter for parameter in verb.params for name in getattr(parameter, "opts", [])}
    for option in (word for word in words if word.startswith("--")):
        assert option.partition("=")[0] in known, f"{document}: {words[0]} has no {option}"
    if line in shown(document) and "|" not in line:
        verb.make_context(words[0], words[1:])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document):
    named = re.findall(r"`((?:bench|methods|results|tests|docs|\.ci)/[\w./-]*)`", text(document))
    named += [path for path in re.findall(r"\]\(([^)#]+)\)", text(document)) if "://" not in path]
    if document == "README.md":
        table = re.findall(r"^\| (`bench.*?) \|", text(document), re.MULTILINE)
        assert len(table) > 5
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing


def test_the_study_and_slots_that_the_readme_shows_exist():
    from bench.training.recipe import SLOTS

    described = re.findall(r"^    (.*)$", text("README.md"), re.MULTILINE)
    words = " ".join(described)
    assert all(re.search(rf"\b{slot}\b", words) for slot in SLOTS)


def test_every_dependency_is_explained_and_no_other():
    table = text("README.md").partition("| dependency | for |")[2].partition("\n\n")[0]
    explained = {name.strip() for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in row.split(",")}
    required = {re.split(r"[<>=~! ;\[]", line)[0] for line in PROJECT["dependencies"]}
    assert explained - {"---"} == required
    pinned = {line.split("==")[0].lower() for line in text("constraints.txt").splitlines() if "==" in line}
    assert {name.lower().replace("_", "-") for name in required} <= {name.replace("_", "-") for name in pinned}


def test_the_extras_and_environments_that_are_named_exist():
    environments = set(re.findall(r"\[testenv:(\w+)\]", text("tox.ini")))
    for document in DOCUMENTS:
        for extras in re.findall(r"-e \.\[([\w,]+)\]", text(document)):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
        for environment in re.findall(r"tox -e (\w+)", text(document)):
            assert environment in environments


def test_methods_attacks_and_views_that_are_named_exist():
    from bench.attacks.suite import ATTACKS
    from bench.training.method import METHODS

    schema = text("bench/store/schema.sql")
    for view in re.findall(r"`(class_accuracy|summary|leaderboard)`", text("README.md")):
        assert f"VIEW {view} AS" in schema
    for document in DOCUMENTS:
        for name in re.findall(r"evenbench (?:train|show) ([\w+-]+)", text(document)):
            assert all(part in METHODS.names() for part in name.split("+")) or "doubtful" in name
    assert "autoattack" in ATTACKS.names()


def test_examples_in_the_help_can_be_given():
    for name, verb in VERBS.items():
        (example,) = re.findall(r"Example: evenbench (.*)", verb.help or "")
        words = shlex.split(example)
        assert words[0] == name
        verb.make_context(name, words[1:])
