"""The one import of a method's, an attack's or a plug-in's test file."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import bench.api
from bench.api import ATTACK_CHECKS, METHOD_CHECKS, RECIPE_CHECKS, Recipe
from methods.pgd_at import PGDAT

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", CONTRIBUTING.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example of CONTRIBUTING.md that defines a name, as a module of its own."""
    monkeypatch.syspath_prepend(tmp_path)

    def module(defines: str):
        (text,) = (block for block in BLOCKS if f"{defines} = " in block)
        (tmp_path / f"example_{defines.lower()}.py").write_text(text)
        return import_module(f"example_{defines.lower()}")

    return module


def test_every_name_is_there_and_is_explained():
    names = {name for name in vars(bench.api) if not name.startswith("_")} - {"annotations"}
    assert len(names) > 60
    assert names == {*re.findall(r"`(\w+)`", bench.api.__doc__)}


def test_the_examples_need_no_other_import_of_bench():
    imported = re.findall(r"^from (bench\S*)", "\n".join(BLOCKS), re.MULTILINE)
    assert len(imported) >= 3
    assert {*imported} == {"bench.api"}


def test_the_example_of_a_method_conforms(example):
    method = example("METHOD").METHOD
    for check in METHOD_CHECKS.values():
        check(method)
    for check in RECIPE_CHECKS.values():
        check(Recipe(PGDAT(), **method.slots))


def test_the_example_of_an_attack_conforms(example):
    for check in ATTACK_CHECKS.values():
        check(example("STEPS").STEPS)
