"""State dicts of other projects: wrappers, prefixes, and files that would run code."""

import importlib.util
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import BadCheckpoint
from bench.models.architecture import Architecture, build, load_state
from bench.models.foreign import read_foreign

ARCHITECTURE = Architecture("convnet-2", 3, 1)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return dict(build(ARCHITECTURE, 3).state_dict())


def same(found: dict[str, Tensor], state: dict[str, Tensor]) -> bool:
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: OrderedDict(s),
        lambda s: {"model": s},
        lambda s: {"state_dict": s, "epoch": 3, "best": 0.5, "name": "resnet"},
        lambda s: {"net": s, "acc": 81.2, "optimizer": {"param_groups": [{"lr": 0.1}]}},
        lambda s: {"model": {"state_dict": s, "epoch": 1}},
        lambda s: {"module." + name: tensor for name, tensor in s.items()},
        lambda s: {"module.module." + name: tensor for name, tensor in s.items()},
        lambda s: {"net": {"_orig_mod.module." + name: tensor for name, tensor in s.items()}},
        lambda s: {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in s.items()},
    ],
)
def test_wrappers_and_prefixes(wrap: Any, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(wrap(state), path)
    found = read_foreign(path)
    assert same(found, state)
    load_state(ARCHITECTURE, found)


def test_the_old_format(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert same(read_foreign(tmp_path / "a.pth"), state)


def test_safetensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({"module." + name: tensor for name, tensor in state.items()}, tmp_path / "a.safetensors")
    assert same(read_foreign(tmp_path / "a.safetensors"), state)
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:100])
    with pytest.raises(BadCheckpoint, match="cannot be read as weights"):
        read_foreign(tmp_path / "b.safetensors")


def test_of_dataparallel_itself(state: dict[str, Tensor], tmp_path: Path) -> None:
    network = build(ARCHITECTURE, 3)
    torch.save({"model": nn.DataParallel(network).state_dict()}, tmp_path / "a.pt")
    assert same(read_foreign(tmp_path / "a.pt"), state)


class Trap:
    """Something whose unpickling leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "ran")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_never_run(tmp_path: Path, state: dict[str, Tensor], zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "a.pt"
    torch.save({"state_dict": state, "args": Trap(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadCheckpoint, match=r"holds more than tensors and would have to run code to load; save its"):
        read_foreign(path)
    assert not trace.exists()


def test_a_plain_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(BadCheckpoint, match=r"^[^\n]+$"):
        read_foreign(path)
    assert not trace.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match="would have to run code to load"):
        read_foreign(tmp_path / "a.pt")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"^no weights at "):
        read_foreign(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 not a zip", b"\x80\x02N."])
def test_no_weights(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match=r"^[^\n]+ (cannot be read as weights|holds no state dict)[^\n]+$"):
        read_foreign(path)


@pytest.mark.parametrize(
    "held", [torch.zeros(3), [torch.zeros(3)], {}, {"epoch": 3}, {"model": {"a": torch.zeros(1), "b": "text"}}]
)
def test_no_state_dict(held: object, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match="holds no state dict; wanted tensors by name"):
        read_foreign(tmp_path / "a.pt")


def test_names_that_come_twice(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**state, "module.linear.bias": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match="the same names with and without"):
        read_foreign(tmp_path / "a.pt")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.integers(0, 4000))
def test_truncated_anywhere(keep: int, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "a.pt"
    torch.save(build(ARCHITECTURE).state_dict(), whole)
    path.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(BadCheckpoint, match=r"^[^\n]+ cannot be read as weights [^\n]+$"):
        read_foreign(path)


def test_a_released_checkpoint_in_our_network() -> None:
    """The ResNet-18 that comes with the reference AutoAttack, against the release's own code."""
    found = importlib.util.find_spec("pyautoattack")
    folder = Path(found.origin or "").parent / "examples" if found else Path("nowhere")
    if not (folder / "model_test.pt").is_file() or not (folder / "resnet.py").is_file():
        pytest.skip("the installed pyautoattack has no examples")
    spec = importlib.util.spec_from_file_location("examples_resnet", folder / "resnet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    state = read_foreign(folder / "model_test.pt")
    ours = load_state(Architecture("resnet-18", 10, 3), state).eval()
    theirs = module.ResNet18().eval()
    theirs.load_state_dict(state)
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
