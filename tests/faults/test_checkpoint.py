"""Checkpoints whose bytes, records or tensors are not what they were."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from .attempt import attempt, copied, tries

JUDGE = "evaluate other.safetensors --dataset digits --n 10 --attacks fgsm --checks none --db new.duckdb"
ANYTHING: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 10**30, 1e300, "", "x" * 300, "\u202e", "\x00", [], {}, [[]], {"a": 1}, "natural", "wrn-34-9"]
) | st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its tensors' bytes."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header: object, body: bytes) -> bytes:
    """The file again."""
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + body


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a nested value can be changed."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in leaves(part, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], news: Any) -> Any:
    """A nested value with another one in one place."""
    if not path:
        return news
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], news)
    return copy


@tries(40)
@given(data=st.data())
def test_a_changed_header_is_refused_in_a_line(data: st.DataObject, sound: Path, tmp_path: Path) -> None:
    header, body = parts(sound / "at.safetensors")
    place = data.draw(st.sampled_from(leaves(header)))
    with copied(sound, tmp_path) as here:
        (here / "other.safetensors").write_bytes(joined(changed(header, place, data.draw(ANYTHING)), body))
        attempt(JUDGE.split(), here)


@tries(40)
@given(data=st.data())
def test_a_changed_record_is_refused_in_a_line(data: st.DataObject, sound: Path, tmp_path: Path) -> None:
    header, body = parts(sound / "at.safetensors")
    said = header["__metadata__"]
    key = data.draw(st.sampled_from(sorted(said)))
    try:
        record = json.loads(said[key])
    except ValueError:
        record = said[key]
    news = changed(record, data.draw(st.sampled_from(leaves(record))), data.draw(ANYTHING))
    said[key] = json.dumps(news)
    with copied(sound, tmp_path) as here:
        (here / "other.safetensors").write_bytes(joined(header, body))
        attempt(JUDGE.split(), here)


@tries(40)
@given(data=st.data())
def test_changed_bytes_are_refused_in_a_line(data: st.DataObject, sound: Path, tmp_path: Path) -> None:
    content = bytearray((sound / "at.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 200))
        match data.draw(st.sampled_from(["set", "cut", "add"])):
            case "set":
                content[place] = data.draw(st.integers(0, 255))
            case "cut":
                del content[place : place + data.draw(st.integers(1, 100))]
            case "add":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=20))
    with copied(sound, tmp_path) as here:
        (here / "other.safetensors").write_bytes(content)
        same = bytes(content) == (sound / "at.safetensors").read_bytes()
        attempt(JUDGE.split(), here, refused=not same)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 8, b"\xff" * 100, b"PK\x03\x04", b"\x80\x02.", b"{}"])
def test_what_is_no_checkpoint_is_refused_in_a_line(content: bytes, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        (here / "other.safetensors").write_bytes(content)
        attempt(JUDGE.split(), here, refused=True)
