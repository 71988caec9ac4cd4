from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from bench.errors import BenchError, UnknownName
from bench.registry import Registry

GROUP = "evenbench.test_things"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution with one module and its entry points on the path."""

    def put(distribution: str, code: str, entries: dict[str, str]) -> None:
        site = tmp_path / distribution
        about = site / f"{distribution}-1.0.dist-info"
        about.mkdir(parents=True)
        (site / f"{distribution}.py").write_text(dedent(code))
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (about / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
        monkeypatch.syspath_prepend(str(site))

    before = set(sys.modules)
    yield put
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def registry(**own: str) -> Registry[object]:
    return Registry("thing", GROUP, "'evenbench list things'", own)


def test_own_and_foreign_entries_register_alike(install):
    install("plug_a", "THING = 'from a'", {"there": "plug_a:THING"})
    things = registry(here="fractions:Fraction")
    assert things.names() == ["here", "there"]
    assert things.get("there") == "from a"
    assert things.get("here").__name__ == "Fraction"
    assert things.failures() == {}


def test_names_are_listed_without_importing(install):
    install("plug_lazy", "THING = 1", {"lazy": "plug_lazy:THING"})
    things = registry()
    assert things.names() == ["lazy"]
    assert "plug_lazy" not in sys.modules
    things.get("lazy")
    assert "plug_lazy" in sys.modules


def test_an_entry_is_imported_once(install):
    install("plug_once", "THING = object()", {"one": "plug_once:THING"})
    things = registry()
    assert things.get("one") is things.get("one")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("OTHER = 1", "AttributeError"),
        ("def", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_named_and_the_rest_works(install, code, reason):
    install("plug_broken", code, {"broken": "plug_broken:THING"})
    things = registry(here="fractions:Fraction")
    assert things.get("here").__name__ == "Fraction"
    assert things.names() == ["broken", "here"]
    assert list(things.failures()) == ["broken"]
    with pytest.raises(BenchError) as caught:
        things.get("broken")
    line = str(caught.value)
    assert line.startswith("thing 'broken' of plug_broken cannot be imported from plug_broken:THING: ")
    assert reason in line
    assert things.failures()["broken"] == line
    assert "\n" not in line


def test_a_name_claimed_twice_is_an_error_naming_both(install):
    install("plug_one", "THING = 1", {"same": "plug_one:THING", "fine": "plug_one:THING"})
    install("plug_two", "THING = 2", {"same": "plug_two:THING"})
    things = registry()
    with pytest.raises(BenchError, match=r"thing 'same' is registered twice") as caught:
        things.get("same")
    assert "plug_one:THING (plug_one)" in str(caught.value)
    assert "plug_two:THING (plug_two)" in str(caught.value)
    assert things.get("fine") == 1
    assert list(things.failures()) == ["same"]


def test_a_plugin_cannot_take_a_name_of_ours(install):
    install("plug_thief", "THING = 1", {"here": "plug_thief:THING"})
    with pytest.raises(BenchError, match=r"fractions:Fraction \(evenbench\) and plug_thief:THING \(plug_thief\)"):
        registry(here="fractions:Fraction").get("here")


def test_an_unknown_name_is_told_with_the_nearest_one():
    with pytest.raises(
        UnknownName, match=r"no thing is called 'hear'; did you mean 'here'. 'evenbench list things' sho"
    ):
        registry(here="fractions:Fraction").get("hear")
