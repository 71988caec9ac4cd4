import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.load import load
from bench.errors import BadData, UnknownName

Put = Callable[..., Path]


def rgb(value: int, size: tuple[int, int] = (3, 2)) -> Image.Image:
    """An image of one colour."""
    return Image.new("RGB", size, (value, 2 * value, 3 * value))


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write an image into the data set's folder."""

    def write(name: str, image: Image.Image) -> Path:
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        return path

    return write


def test_splits_and_classes(put: Put, tmp_path: Path) -> None:
    for name, value in (("train/dog/b.png", 1), ("train/dog/a.png", 2), ("train/cat/z.png", 3), ("val/dog/a.png", 4)):
        put(name, rgb(value))
    put("val/emu/deep/a.bmp", rgb(5))
    (tmp_path / "pets/train/dog/notes.txt").write_text("no image")
    put("train/dog/.hidden.png", rgb(6))
    put(".cache/x/a.png", rgb(6))
    train = load(str(tmp_path / "pets"), "train")
    assert (train.name, train.split, train.class_names) == ("pets", "train", ("cat", "dog", "emu"))
    assert train.labels.tolist() == [0, 1, 1]
    assert train.pixels.shape == (3, 3, 2, 3)
    assert train.pixels[:, :, 0, 0].tolist() == [[3, 6, 9], [2, 4, 6], [1, 2, 3]]
    for spelling in ("val", "valid", "validation"):
        held = load(str(tmp_path / "pets"), spelling)
        assert (held.split, held.labels.tolist()) == ("validation", [1, 2])
    with pytest.raises(BadData, match="has no image of class 'emu'"):
        train.check_complete()
    with pytest.raises(UnknownName, match=r"^no split of pets is called 'test'; known: train, validation$"):
        load(str(tmp_path / "pets"), "test")


def test_without_folders_of_splits(put: Put, tmp_path: Path) -> None:
    put("cat/1.png", rgb(1))
    put("test/1.png", rgb(2))
    images = load(str(tmp_path / "pets"), "train")
    assert (images.split, images.class_names) == ("train", ("cat", "test"))


def test_kinds_of_images(put: Put, tmp_path: Path) -> None:
    put("a/1.png", rgb(10).convert("RGBA"))
    put("a/2.png", rgb(10).convert("P", palette=Image.Palette.ADAPTIVE))
    put("a/3.webp", rgb(10)).unlink()
    rgb(10).save(tmp_path / "pets/a/3.webp", lossless=True)
    put("b/4.jpg", Image.new("L", (3, 2), 77))
    images = load(str(tmp_path / "pets"))
    assert images.pixels[:, :, 1, 2].tolist() == [[10, 20, 30]] * 3 + [[77, 77, 77]]


def test_grey_stays_one_channel(put: Put, tmp_path: Path) -> None:
    put("a/1.png", Image.new("L", (3, 2), 5))
    put("b/2.png", Image.new("LA", (3, 2), (6, 100)))
    put("b/3.png", Image.new("1", (3, 2), 1))
    images = load(str(tmp_path / "pets"))
    assert images.shape == (1, 2, 3)
    assert images.pixels[:, 0, 0, 0].tolist() == [5, 6, 255]


def test_a_palette_with_transparency(put: Put, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        image = rgb(20).convert("P", palette=Image.Palette.ADAPTIVE)
        path = put(name, image)
        image.save(path, transparency=b"\x80" * 4)
    assert load(str(tmp_path / "pets")).pixels[0, :, 0, 0].tolist() == [20, 40, 60]


def test_sizes_that_differ(put: Put, tmp_path: Path) -> None:
    first, odd = put("a/1.png", rgb(1)), put("b/1.png", rgb(1, (2, 3)))
    with pytest.raises(BadData) as caught:
        load(str(tmp_path / "pets"))
    assert str(caught.value) == (f"{odd} is 2x3 pixels, {first} is 3x2; images must be of one size, resize them first")


def test_more_than_8_bits(put: Put, tmp_path: Path) -> None:
    put("a/1.png", Image.fromarray(np.full((2, 3), 40_000, np.uint16)))
    put("b/1.png", rgb(1))
    with pytest.raises(BadData, match=r"1\.png has more than 8 bits a channel \(Pillow mode I;16\); convert it"):
        load(str(tmp_path / "pets"))


@pytest.mark.parametrize("content", [b"", b"GIF, or is it", b"\x89PNG\r\n\x1a\n"])
def test_no_image(put: Put, tmp_path: Path, content: bytes) -> None:
    put("a/1.png", rgb(1))
    put("b/1.png", rgb(1)).write_bytes(content)
    with pytest.raises(
        BadData, match=r"^[^\n]*b.1\.png (is no image in a format that Pillow reads|cannot be decoded)[^\n]*$"
    ):
        load(str(tmp_path / "pets"))


def test_a_truncated_image(put: Put, tmp_path: Path) -> None:
    put("a/1.png", rgb(1))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = put("b/1.png", noise)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        BadData, match=r"^[^\n]*b.1\.png cannot be decoded \([^\n]*\); it may be truncated, fetch it again$"
    ):
        load(str(tmp_path / "pets"))


def test_one_class(put: Put, tmp_path: Path) -> None:
    put("a/1.png", rgb(1))
    with pytest.raises(BadData, match=r"^pets/test: the number of classes is 1; wanted 2"):
        load(str(tmp_path / "pets"))


def test_no_images(put: Put, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    with pytest.raises(BadData, match=r"pets holds no images in its 2 folders; wanted files such as a/1\.png$"):
        load(str(tmp_path / "pets"))


def test_no_folders(put: Put, tmp_path: Path) -> None:
    put("1.png", rgb(1))
    with pytest.raises(BadData, match="pets holds neither Parquet files nor folders of classes; put"):
        load(str(tmp_path / "pets"))


def test_many_threads_keep_the_order(put: Put, tmp_path: Path) -> None:
    for i in range(600):
        put(f"{i % 2}/{i:04d}.png", Image.new("L", (1, 1), i % 251))
    images = load(str(tmp_path / "pets"))
    wanted = [i % 251 for k in (0, 1) for i in range(600) if i % 2 == k]
    assert images.pixels.flatten().tolist() == wanted


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../pets"])
def test_a_class_that_links_to_a_folder_above_it(put: Put, tmp_path: Path, target: str) -> None:
    put("train/cat/a.png", rgb(1))
    put("train/dog/a.png", rgb(2))
    (tmp_path / "pets/train/emu").symlink_to(target)
    with pytest.raises(BadData, match=r"emu links to .*, which holds it; put the images of the class into a folder"):
        load(str(tmp_path / "pets"), "train")


def test_two_classes_that_are_one_folder(put: Put, tmp_path: Path) -> None:
    put("train/cat/a.png", rgb(1))
    (tmp_path / "pets/train/dog").symlink_to("cat")
    with pytest.raises(BadData, match=r"dog and .*cat are one folder; each class needs its own images"):
        load(str(tmp_path / "pets"), "train")


def test_a_pipe_among_the_images(put: Put, tmp_path: Path) -> None:
    put("cat/a.png", rgb(1))
    put("dog/a.png", rgb(1))
    os.mkfifo(tmp_path / "pets/cat/b.png")
    with pytest.raises(BadData, match=r"b\.png is no file; take it out of the folder"):
        load(str(tmp_path / "pets"))
