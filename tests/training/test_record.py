"""A record with the right hash that no training wrote is refused, with what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

from bench.data.digits import load_digits
from bench.errors import BadCheckpoint, BenchError
from bench.evaluation.network import parent_of, resolve
from bench.models.architecture import Architecture, build
from bench.training.checkpoint import read_trained, weights_id

WEIGHTS = {f"model/{name}": tensor for name, tensor in build(Architecture("convnet-2", 10, 1)).state_dict().items()}
TEACHER = {"teacher": {"checkpoint_id": "a", "recipe_id": "b"}}
GOOD: dict[str, Any] = {
    "format": 1,
    "checkpoint_id": "x",
    "architecture": {"name": "convnet-2", "classes": 10, "channels": 1, "mean": [], "std": []},
    "judged": "model",
    "run": {
        "method": "natural",
        "preset": "digits",
        "variant": "",
        "recipe": {},
        "schedule": {"epochs": 1, "selection": "last", "eps": "3/20"},
        "data": {"name": "digits", "dataset_id": "d"},
        "seed": 0,
        "teachers": TEACHER,
    },
    "history": [{"epoch": 1, "split": "train", "n": [1] * 10, "hits_clean": None, "hits_adv": [1] * 10}],
    "epoch": 1,
    "step": 0,
    "versions": {},
}


def put(path, record, weights=WEIGHTS):
    """A file whose digest is right, whatever it says."""
    save_file(weights, path, {"evenbench": json.dumps({**record, "digest": weights_id(weights, record)})})
    return path


def changed(record: Any, address: str, value: Any) -> Any:
    key, _, rest = address.partition(".")
    if isinstance(record, list):
        return [changed(record[0], rest, value) if rest else value]
    return {**record, key: changed(record[key], rest, value) if rest else value}


def test_a_good_one_is_read(tmp_path):
    path = put(tmp_path / "good.safetensors", GOOD)
    assert read_trained(path).run == GOOD["run"]
    assert resolve(str(path), load_digits("test")).row.teacher_id == "a"


FOREIGN = [
    ("judged", "teacher", "it judges 'teacher', of which it holds no weights"),
    ("judged", "averaged", "it judges 'averaged', of which it holds no weights"),
    ("epoch", -1, "its 'epoch' is below 0"),
    ("epoch", True, "its 'epoch' is True, not a whole number"),
    ("history", {}, "its 'history' is {}, not a list"),
    ("architecture.name", 3, "its 'name' is 3, not a text"),
    ("architecture.classes", "10", "its 'classes' is '10', not a whole number"),
    ("architecture.mean", ["a"], "its 'mean' holds something else than numbers"),
    ("architecture", {}, "it lacks 'name'"),
    ("run", [], "its 'run' is [], not a table"),
    ("run.method", None, "its 'method' is None, not a text"),
    ("run.schedule", {}, "it lacks 'epochs'"),
    ("run.schedule.epochs", 0, "its 'epochs' is below 1"),
    ("run.schedule.selection", "best", "its 'selection' is 'best', which is no rule"),
    ("run.schedule.eps", "1e9999999999", "too large or too small"),
    ("run.data", {}, "it lacks 'name'"),
    ("run.teachers", {"teacher": "x"}, "it lacks 'checkpoint_id'"),
    ("history.0", 3, "it lacks 'epoch'"),
    ("history.0.split", "test", "its history has epoch 1 of 'test'"),
    ("history.0.n", [1], "its history has [1] as 'n', not a count of each of 10 classes"),
    ("history.0.hits_adv", [2] * 10, "more 'hits_adv' than images"),
]


@pytest.mark.parametrize(("address", "value", "said"), FOREIGN)
def test_foreign_content_under_a_valid_digest(tmp_path, address, value, said):
    path = put(tmp_path / "c.safetensors", changed(GOOD, address, value))
    images = load_digits("test")
    for use in (read_trained, lambda path: resolve(str(path), images), lambda path: parent_of(str(path), images)):
        with pytest.raises(BadCheckpoint) as refused:
            use(path)
        assert said in str(refused.value)
        assert str(refused.value).endswith("restore or retrain it")


def test_tensors_of_no_part(tmp_path):
    with pytest.raises(BadCheckpoint, match="it has tensors called 'odd'"):
        read_trained(put(tmp_path / "c", GOOD, {**WEIGHTS, "odd/x": WEIGHTS["model/conv1.weight"].clone()}))


def test_a_record_that_is_nested_too_deeply(tmp_path):
    save_file(WEIGHTS, tmp_path / "c", {"evenbench": "[" * 100_000 + "]" * 100_000})
    with pytest.raises(BadCheckpoint, match="record that cannot be read"):
        read_trained(tmp_path / "c")


def addresses(record: Any, at: str = "") -> list[str]:
    here = [at] if at else []
    if isinstance(record, dict):
        return here + [a for key, value in record.items() for a in addresses(value, f"{at}.{key}" if at else key)]
    return here + (addresses(record[0], f"{at}.0") if isinstance(record, list) and record else [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(address=st.sampled_from(addresses(GOOD)), value=JSON)
def test_whatever_a_record_says_it_is_taken_or_refused_in_a_line(tmp_path_factory, address, value):
    path = put(tmp_path_factory.getbasetemp() / "fuzzed.safetensors", changed(GOOD, address, value))
    said = ""
    try:
        resolve(str(path), load_digits("test"))
    except BenchError as problem:
        said = str(problem)
    assert "\n" not in said
    assert len(said) < 1000
