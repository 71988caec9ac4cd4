"""What can be evaluated: checkpoints, users' functions and foreign weights, and a clear word on what cannot."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from textwrap import dedent

import numpy as np
import pytest
import torch
from torch import nn

from bench.data.images import images_from_arrays
from bench.data.load import load
from bench.errors import BadCheckpoint, BadModel, UnknownName
from bench.evaluation.network import of_function, resolve, teacher_of
from bench.models.architecture import Architecture, build
from bench.training.checkpoint import read, write
from bench.training.fit import fit
from bench.training.method import compose
from bench.training.run import Parent, prepare, recipe_id

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))

def fixed():
    net = make()
    nn.init.eye_(net[1].weight)
    return net
"""


@pytest.fixture(scope="module")
def images():
    return load("digits", "train").take(60, 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, images):
    plan = compose("pgd-at", dataset="digits", settings={"schedule.epochs": 2, "objective.inner.steps": 1})
    path = tmp_path_factory.mktemp("network") / "at.safetensors"
    fit(prepare(plan, images, "convnet-2", 5, {}), path)
    return path


@pytest.fixture
def file(tmp_path):
    before, path = set(sys.modules), list(sys.path)

    def made(code: str = NETWORK, name: str = "model.py") -> str:
        (tmp_path / name).write_text(dedent(code))
        return str(tmp_path / name)

    yield made
    sys.path[:] = path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_checkpoint_says_all_that_is_known_of_it(checkpoint, images):
    network_, held = resolve(str(checkpoint), images), read(checkpoint)
    row = network_.row
    assert (row.checkpoint_id, row.run_id, row.recipe_id) == (held.checkpoint_id, held.run_id, recipe_id(held.run))
    assert (row.method, row.preset, row.model, row.trained_on, row.seed) == (
        "pgd-at",
        "digits",
        "convnet-2",
        "digits",
        5,
    )
    assert (row.epoch, row.epochs, row.selection, row.teacher_id) == (2, 2, "last", None)
    assert row.variant == "objective.inner.steps=1,schedule.epochs=2"
    assert network_.eps == "3/20"
    assert {(e.epoch, e.split) for e in network_.epochs} == {(1, "train"), (2, "train"), (1, "valid"), (2, "valid")}
    assert sum(e.n for e in network_.epochs if e.split == "train" and e.epoch == 1) == 50  # a sixth is held out
    x, _ = images.batch(np.arange(4))
    torch.testing.assert_close(network_.module()(x), held.network()(x), rtol=0, atol=0)


def test_a_function_is_known_by_its_weights_and_its_source(file, images):
    path = file()
    network_ = resolve(f"{path}:fixed", images)
    assert (network_.row.method, network_.row.model, network_.row.seed, network_.eps) == (
        "model.py:fixed",
        "Sequential",
        None,
        "",
    )
    assert network_.module()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert resolve(f"{path}:fixed", images).row.checkpoint_id == network_.row.checkpoint_id
    assert resolve(f"{path}:make", images).row.checkpoint_id != network_.row.checkpoint_id
    file(NETWORK.replace("eye_", "zeros_"))
    assert resolve(f"{path}:fixed", images).row.checkpoint_id != network_.row.checkpoint_id


def test_a_users_file_may_hold_dataclasses_and_import_its_neighbours(file, images):
    file("WIDTH = 10", "width_of_model.py")
    path = file(
        """
        from __future__ import annotations
        from dataclasses import dataclass
        import torch
        from width_of_model import WIDTH

        @dataclass
        class Setting:
            width: int = WIDTH

        def make():
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, Setting().width))
        """
    )
    assert resolve(f"{path}:make", images).module()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("code", "function", "said"),
    [
        (NETWORK, "nothing", "has no function 'nothing'; give file.py:function"),
        ("make = 3", "make", "has no function 'make'"),
        ("def make(): return 3", "make", "returned int; it must return a torch.nn.Module"),
        ("def make(): raise ValueError('my own')", "make", "failed with ValueError: my own; mend that file"),
        ("def make(x): return x", "make", "failed with TypeError"),
        ("import no_such_module_of_mine", "make", "failed with ModuleNotFoundError"),
        ("def make(:", "make", "failed with SyntaxError"),
        ("raise SystemExit(0)", "make", "failed with SystemExit"),
        (
            "from torch.nn import LazyLinear\ndef make(): return LazyLinear(10)",
            "make",
            "weights that have no values yet",
        ),
        (
            "from torch.nn import Linear\ndef make(): return Linear(9, 9, device='meta')",
            "make",
            "weights that have no val",
        ),
    ],
)
def test_functions_that_give_no_network(file, images, code, function, said):
    path = file(code)
    with pytest.raises(BadModel) as caught:
        resolve(f"{path}:{function}", images)
    assert str(caught.value).startswith(f"{path}")
    assert said in str(caught.value)


def test_files_without_a_function_or_that_are_not_there(tmp_path, file, images):
    with pytest.raises(BadModel, match=r"model.py:make, which returns an nn.Module"):
        resolve(file(), images)
    with pytest.raises(BadModel, match=r"no file .*none.py"):
        of_function(tmp_path / "none.py", "make")
    with pytest.raises(BadCheckpoint, match=r"no checkpoint at .*none.safetensors; 'evenbench train"):
        resolve(str(tmp_path / "none.safetensors"), images)
    with pytest.raises(BadCheckpoint, match=r"no weights at .*none.pt; name a file"):
        resolve(str(tmp_path / "none.pt"), images, "convnet-2")


def test_foreign_weights_go_into_the_named_network(tmp_path, images):
    path = tmp_path / "theirs.pth"
    network = build(Architecture("convnet-2", 10, 1), seed=3)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}}, path)
    network_ = resolve(str(path), images, "convnet-2")
    assert (network_.row.method, network_.row.model, network_.row.run_id) == ("theirs", "convnet-2", None)
    x, _ = images.batch(np.arange(4))
    torch.testing.assert_close(network_.module()(x), network.eval()(x), rtol=0, atol=0)
    with pytest.raises(BadCheckpoint, match=r"foreign state dict; say with --model"):
        resolve(str(path), images)
    with pytest.raises(BadCheckpoint, match=r"weights do not fit convnet-3 with 10 classes"):
        resolve(str(path), images, "convnet-3")
    with pytest.raises(UnknownName, match="no model is called 'convnet'"):
        resolve(str(path), images, "convnet")


def test_data_of_other_classes_or_channels_are_refused(checkpoint):
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(0, 256, (6, channels, 8, 8), np.uint8) for channels in (1, 3))
    two = images_from_arrays("two", "test", grey, np.arange(6) % 2, ["a", "b"])
    ten = images_from_arrays("ten", "test", colour, np.arange(6), [str(k) for k in range(10)])
    for refuse in (resolve, lambda path, images: teacher_of(str(checkpoint), images)):
        with pytest.raises(BadCheckpoint, match=r"was made for 10 classes, two has 2"):
            refuse(str(checkpoint), two)
        with pytest.raises(BadCheckpoint, match=r"was made for 1 channels, ten has 3"):
            refuse(str(checkpoint), ten)


def test_a_teacher_is_known_by_weights_and_recipe(checkpoint, images, tmp_path):
    teacher, held = teacher_of(str(checkpoint), images), read(checkpoint)
    assert (teacher.checkpoint_id, teacher.path) == (held.checkpoint_id, checkpoint)
    other = tmp_path / "other.safetensors"
    write(replace(held, run={**held.run, "seed": 6}), other)
    assert teacher_of(str(other), images).checkpoint_id != teacher.checkpoint_id
    assert teacher_of(str(other), images).recipe_id == teacher.recipe_id


def test_a_teacher_may_be_foreign_weights(checkpoint, images, tmp_path):
    weights = read(checkpoint).network().state_dict()
    torch.save(weights, tmp_path / "w.pt")
    teacher = teacher_of(f"{tmp_path / 'w.pt'}@convnet-2", images)
    assert teacher.architecture == Architecture("convnet-2", 10, 1)
    assert all(torch.equal(value, weights[name]) for name, value in teacher.network().state_dict().items())
    with pytest.raises(BadCheckpoint, match=r"weights do not fit convnet-3"):
        teacher_of(f"{tmp_path / 'w.pt'}@convnet-3", images)
    with pytest.raises(BadCheckpoint, match=r"no weights at .*none\.pt; name a file"):
        teacher_of(f"{tmp_path / 'none.pt'}@convnet-2", images)


def test_a_teacher_that_cannot_answer_is_refused(checkpoint, images, tmp_path, monkeypatch):
    held = read(checkpoint)
    broken = {part: {k: v * math.nan for k, v in state.items()} for part, state in held.tensors.items()}
    write(replace(held, tensors=broken), tmp_path / "nan.safetensors")
    with pytest.raises(BadCheckpoint, match=r"returns NaN or infinite logits; choose another"):
        teacher_of(str(tmp_path / "nan.safetensors"), images)
    monkeypatch.setattr(Parent, "network", lambda self: nn.Linear(3, 10))
    with pytest.raises(BadCheckpoint, match=r"fails on images of 8x8 .*; choose one that fits"):
        teacher_of(str(checkpoint), images)
