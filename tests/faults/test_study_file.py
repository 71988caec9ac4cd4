"""Study files with any of their values, or none, or others."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given, strategies as st

from .attempt import attempt, copied, tries
from .conftest import STUDY

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        *("", " ", "natural", "rslad", "nonsense", "../x", "/dev/zero", "~nosuchuser", "a" * 300, "\u202ex", "\x1b[0m"),
        *("1e9999999999", "8", "8/0", "1/3", "nan", "wrn-34-1000000", "convnet-2", "digits", "cifar10", "standard"),
        *(0, -1, 1, 2, 10**30, True, False, 0.5, -0.5, float("nan"), float("inf"), 1e300),
        *([], [0], [[]], [0, 0], [-1], ["fgsm"], ["fgsm", "fgsm"], [1.5], {}, {"a": {}}, {"objective": 1}),
        *({"teacher": "rslad"}, {"method": "natural"}, {"seeds": [1]}, {"set": {"objective.natural": "x"}}),
    ]
) | st.recursive(
    st.none().map(lambda _: 1) | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
KEYS = (
    *("name", "dataset", "split", "n", "n_seed", "train_n", "model", "preset", "eps", "norm", "suite", "attacks"),
    *("seeds", "epochs", "batch_size", "precision", "device", "checks", "set", "timeout", "revision", "nonsense"),
)
OF_ENTRY = ("method", "teacher", "model", "preset", "seeds", "evaluate", "set", "nonsense")


def inline(value: Any) -> str:
    """A value on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {inline(part)}" for key, part in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(inline, value)) + "]"
        case float():
            return repr(value)
        case _:
            return json.dumps(value)


@st.composite
def studies(draw: st.DrawFn) -> str:
    """A sound study with one or two keys set to anything."""
    study = tomllib.loads(STUDY)
    for _ in range(draw(st.integers(1, 2))):
        match draw(st.sampled_from(["study", "entry", "entries", "drop"])):
            case "study":
                study[draw(st.sampled_from(KEYS))] = draw(VALUES)
            case "entry":
                entries = study["entries"]
                entry = entries.get(draw(st.sampled_from(sorted(entries)))) if isinstance(entries, dict) else None
                if isinstance(entry, dict):
                    entry[draw(st.sampled_from(OF_ENTRY))] = draw(VALUES)
            case "entries":
                study["entries"] = draw(VALUES | st.dictionaries(st.text(max_size=20), VALUES, max_size=2))
            case "drop":
                study.pop(draw(st.sampled_from(sorted(study))))
        study.setdefault("entries", {})
    return "\n".join(f"{key} = {inline(value)}" for key, value in study.items())


@tries(130)
@given(text=studies())
def test_a_wrong_study_is_refused_in_a_line(text: str, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        (here / "other.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
        attempt(["run", "other.toml", "--db", "new.duckdb", "--dry-run"], here)


@tries(20)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_what_is_no_study_is_refused_in_a_line(content: bytes, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        (here / "other.toml").write_bytes(content)
        attempt(["run", "other.toml", "--db", "new.duckdb", "--dry-run"], here, refused=True)


@tries(4)
@given(depth=st.sampled_from([10, 1000, 20_000, 200_000]))
def test_brackets_in_brackets_are_refused_in_a_line(depth: int, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        (here / "other.toml").write_text(STUDY + "\n[entries.x]\nset = " + "[" * depth + "]" * depth)
        attempt(["run", "other.toml", "--db", "new.duckdb", "--dry-run"], here, refused=True)
