"""Images, arrays and shards that are not what their names say."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from .attempt import attempt, copied, tries

JUDGE = ("evaluate", "at.safetensors", "--attacks", "fgsm", "--checks", "none", "--db", "new.duckdb", "--dataset")
X, Y = np.zeros((20, 1, 8, 8), np.uint8), np.arange(20) % 10

ARRAYS: dict[str, tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]] = {
    "no images": (X[:0], Y[:0]),
    "too few labels": (X, Y[:7]),
    "a label below 0": (X, Y - 5),
    "a label above all": (X, Y + 2**17),
    "labels of half": (X, Y + 0.5),
    "labels as text": (X, Y.astype(str)),
    "three axes": (X[:, 0], Y),
    "five axes": (X[None], Y),
    "no pixels": (X[:, :, :0], Y),
    "nan": (np.full(X.shape, np.nan, np.float32), Y),
    "above one": (X + np.float32(7), Y),
    "below zero": (X - np.float32(7), Y),
    "complex": (X.astype(np.complex64), Y),
    "text": (X.astype(str), Y),
    "another size": (np.zeros((20, 3, 9, 7), np.uint8), Y),
    "objects": (X.astype(object), Y),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_wrong_arrays_are_refused_in_a_line(name: str, sound: Path, tmp_path: Path) -> None:
    x, y = ARRAYS[name]
    with copied(sound, tmp_path) as here:
        np.savez(here / "other.npz", x=x, y=y)
        attempt([*JUDGE, "other.npz"], here, refused=True)


@tries(30)
@given(data=st.data())
def test_changed_bytes_of_arrays_are_refused_in_a_line(data: st.DataObject, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        np.savez(here / "other.npz", x=X, y=Y)
        content = bytearray((here / "other.npz").read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        (here / "other.npz").write_bytes(content[: data.draw(st.sampled_from([len(content), place]))])
        attempt([*JUDGE, "other.npz"], here)


class Bomb:
    """Would write a file if it were unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """What a pickle runs."""
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("suffix", ["npz", "npy", "pt", "pkl", "safetensors", "parquet"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"text", b"PK\x03\x04" + b"\0" * 40, pickle.dumps(Bomb())],
    ids=["nothing", "zeros", "text", "zip", "pickle"],
)
def test_files_of_another_kind_are_refused_and_never_run(
    suffix: str, content: bytes, sound: Path, tmp_path: Path
) -> None:
    name = f"other.{suffix}"
    with copied(sound, tmp_path) as here:
        (here / name).write_bytes(content)
        for arguments in ([*JUDGE, name], [*JUDGE, "digits", "--n", "10", "--adversarials", name]):
            attempt(arguments, here, refused=True)
        assert not (here / "harmed").exists()


@pytest.mark.parametrize(
    "what", ["empty", "no classes", "one class", "text as image", "cut image", "sizes", "loop", "fifo"]
)
def test_wrong_folders_of_images_are_refused_in_a_line(what: str, sound: Path, tmp_path: Path) -> None:
    with copied(sound, tmp_path) as here:
        folder = here / "other"
        names = {"one class": ["a"], "empty": [], "no classes": []}.get(what, ["a", "b"])
        for split in ("train", "test"):
            for name in names:
                (folder / split / name).mkdir(parents=True)
                for number in range(3):
                    Image.new("L", (8, 8)).save(folder / split / name / f"{number}.png")
        folder.mkdir(exist_ok=True)
        odd = folder / "test" / "a" / "3.png"
        match what:
            case "no classes":
                (folder / "test").mkdir(parents=True)
            case "text as image":
                odd.write_text("no image")
            case "cut image":
                odd.write_bytes((folder / "test" / "a" / "0.png").read_bytes()[:40])
            case "sizes":
                Image.new("L", (9, 8)).save(odd)
            case "fifo":
                os.mkfifo(odd)
            case "loop":
                (folder / "test" / "a" / "again").symlink_to(folder / "test")
        attempt([*JUDGE, "other"], here, refused=True)
