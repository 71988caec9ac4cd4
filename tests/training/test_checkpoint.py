from __future__ import annotations

import contextlib
import errno
import json
import pickle
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.errors import BadCheckpoint, DiskFull
from bench.models.architecture import Architecture, build
from bench.training.checkpoint import Checkpoint, read, weights_id, write

ARCHITECTURE = Architecture("convnet-2", 3, 1, (0.5,), (0.25,))


def checkpoint(seed=0, **changes):
    state = build(ARCHITECTURE, seed).state_dict()
    made = Checkpoint(
        architecture=ARCHITECTURE,
        tensors={
            "model": state,
            "averaged": {name: value.clone() for name, value in state.items()},
            "momentum": {"conv1.weight": torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(seed))},
            "targets": {"clean": torch.ones(3), "adv": torch.tensor([0.5, 1, 5])},
            "tally": {"count": torch.zeros(3)},
        },
        judged="model",
        run={"method": "absld", "seed": seed, "recipe": {"objective": {"alpha": 5 / 6}}},
        history=[{"epoch": 1, "split": "train", "n": [1, 2, 3], "hits_clean": None, "hits_adv": [0, 1, 2]}],
        epoch=1,
        step=4,
        versions={"torch": "2"},
    )
    return replace(made, **changes)


def record_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["evenbench"])


def rewrite(path, change):
    """The same tensors under a changed record."""
    record = record_of(path)
    change(record)
    save_file(load_file(path), path, {"evenbench": json.dumps(record)})


def test_round_trip(tmp_path):
    one, path = checkpoint(), tmp_path / "deep" / "er" / "c.safetensors"
    write(one, path)
    two = read(path)
    for part, state in one.tensors.items():
        assert sorted(state) == sorted(two.tensors[part])
        assert all(torch.equal(state[name], two.tensors[part][name]) for name in state)
        assert all(state[name].dtype == two.tensors[part][name].dtype for name in state)
    assert two.tensors["budget"] == {}
    assert replace(two, tensors={}) == replace(one, tensors={})
    assert two.checkpoint_id == one.checkpoint_id
    assert two.run_id == one.run_id
    assert [p.name for p in path.parent.iterdir()] == ["c.safetensors"]


def test_equal_checkpoints_are_equal_bytes(tmp_path):
    one = checkpoint()
    turned = {part: dict(reversed(state.items())) for part, state in reversed(one.tensors.items())}
    write(one, tmp_path / "a")
    write(replace(one, tensors=turned, run=dict(reversed(one.run.items()))), tmp_path / "b")
    write(read(tmp_path / "a"), tmp_path / "c")
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def test_the_identity_is_of_the_judged_weights_and_what_made_them():
    one = checkpoint()
    other_momentum = {**one.tensors, "momentum": {}, "targets": {}}
    for same in (
        replace(one, tensors=other_momentum),
        replace(one, history=[]),
        replace(one, versions={}),
        one.judged_only(),
    ):
        assert same.checkpoint_id == one.checkpoint_id
    state = {name: value.clone() for name, value in one.weights.items()}
    state["linear.bias"][0] += 1e-6
    for other in (
        checkpoint(1),
        replace(one, run={**one.run, "seed": 5}),
        replace(one, epoch=2),
        replace(one, architecture=replace(ARCHITECTURE, mean=(0.4,))),
        replace(one, tensors={**one.tensors, "model": state}),
    ):
        assert other.checkpoint_id != one.checkpoint_id


def test_the_network_is_the_judged_one_in_eval_mode_and_frozen():
    one = checkpoint()
    averaged = {name: value + 1 if value.is_floating_point() else value for name, value in one.weights.items()}
    network = replace(one, judged="averaged", tensors={**one.tensors, "averaged": averaged}).network()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, averaged[name]) for name, value in network.state_dict().items())
    assert torch.equal(network.normalize.mean.flatten(), torch.tensor([0.5]))


def test_hashes_tell_names_shapes_types_and_values_apart():
    base = torch.arange(6, dtype=torch.float32)
    states = [
        {"a": base},
        {"b": base},
        {"a": base.reshape(2, 3)},
        {"a": base.to(torch.int32)},
        {"a": base + 1},
        {"a": base, "b": base},
        {"a": base.to(torch.bfloat16)},
        {"a": torch.tensor(3)},
        {},
    ]
    assert len({weights_id(state, "") for state in states} | {weights_id({"a": base}, "x")}) == len(states) + 1
    turned = {"a": torch.arange(6).reshape(2, 3).T}
    assert weights_id(turned, "") == weights_id({"a": turned["a"].contiguous()}, "")


def test_a_missing_file(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"no checkpoint at .*gone.*; 'evenbench train METHOD --out"):
        read(tmp_path / "gone")
    with pytest.raises(BadCheckpoint, match="no checkpoint at"):
        read(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.3, 0.9, -1])
def test_truncated_files(tmp_path, kept):
    path = tmp_path / "c"
    write(checkpoint(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(BadCheckpoint, match=r"no readable safetensors file .* may be truncated") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_of_the_tensors_is_noticed(tmp_path):
    path = tmp_path / "c"
    write(checkpoint(), path)
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    for at in range(8 + length, len(data), 211):  # model, averaged, momentum, slot states
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        with pytest.raises(BadCheckpoint, match=r"does not hold what its record says .* damaged or was edited"):
            read(path)


def test_flipped_bits_of_the_header_are_noticed(tmp_path):
    path = tmp_path / "c"
    one = checkpoint()
    write(one, path)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for at in range(0, 8 + length, 37):
        flipped = bytearray(data)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        with contextlib.suppress(BadCheckpoint):  # white space at the end of the header says nothing
            assert replace(read(path), tensors={}) == replace(one, tensors={})


@pytest.mark.parametrize(
    ("field", "value"),
    [("epoch", 2), ("step", 3), ("judged", "averaged"), ("history", []), ("run", {"seed": 1}), ("versions", {})],
)
def test_an_edited_record_is_noticed(tmp_path, field, value):
    path = tmp_path / "c"
    write(checkpoint(), path)
    rewrite(path, lambda record: record.update({field: value}))
    with pytest.raises(BadCheckpoint, match="damaged or was edited, restore or retrain it"):
        read(path)


def test_foreign_files(tmp_path):
    path = tmp_path / "foreign"
    for data in (b"", b"hello" * 100, pickle.dumps({"a": 1}), struct.pack("<Q", 1 << 60) + b"{}"):
        path.write_bytes(data)
        with pytest.raises(BadCheckpoint, match="no readable safetensors file"):
            read(path)
    save_file({"conv.weight": torch.ones(2)}, path)
    with pytest.raises(BadCheckpoint, match="holds tensors but no evenbench record; name its network with --model"):
        read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"format": "new"}', '{"format": 1}', '{"format": null}'])
def test_a_record_that_is_none(tmp_path, text):
    path = tmp_path / "c"
    save_file({"model/a": torch.ones(2)}, path, {"evenbench": text})
    with pytest.raises(BadCheckpoint, match=r"has an evenbench record that cannot be read .* damaged"):
        read(path)


def test_a_newer_format_is_refused_with_words(tmp_path):
    path = tmp_path / "c"
    write(checkpoint(), path)
    rewrite(path, lambda record: record.update({"format": 99}))
    with pytest.raises(BadCheckpoint, match="has format 99, this version reads 1; upgrade evenbench"):
        read(path)


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def test_nothing_in_a_file_is_ever_executed(tmp_path):
    path, mark = tmp_path / "c", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(BadCheckpoint):
        read(path)
    torch.save(Bomb(mark), path)
    with pytest.raises(BadCheckpoint):
        read(path)
    assert not mark.exists()


def test_a_full_disk_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "c"
    write(checkpoint(), path)
    before = path.read_bytes()

    def full(tensors, where, metadata):
        where.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DiskFull, match=r"no space left to write .*; free some and run the same command again"):
        write(checkpoint(1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_interrupted_write_left_is_cleared_away(tmp_path):
    path = tmp_path / "c"
    (tmp_path / "c.4194305.7.partial").write_bytes(b"half")
    (tmp_path / "cc.4194305.7.partial").write_bytes(b"of another")
    write(checkpoint(), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "cc.4194305.7.partial"]


def test_judged_only_drops_what_only_training_needs():
    assert sorted(checkpoint().judged_only().tensors) == ["averaged", "model"]
