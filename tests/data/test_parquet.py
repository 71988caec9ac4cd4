import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from bench.data.cache import default_cache
from bench.data.load import check_test_split, load
from bench.data.parquet import load_parquet
from bench.data.splits import split_name, split_of
from bench.errors import BadData, BenchError, UnknownName

STRUCT = "STRUCT(bytes BLOB, path VARCHAR)"


def png(value: int, size: tuple[int, int] = (4, 3), mode: str = "RGB", encoding: str = "PNG") -> bytes:
    """An image whose first channel has one value."""
    out = io.BytesIO()
    Image.new(mode, size, (value, 0, 0) if mode == "RGB" else value).save(out, encoding, lossless=True)
    return out.getvalue()


def write(
    path: Path, columns: dict[str, str], rows: Sequence[Sequence[Any]], names: Any = None, label: str = "label"
) -> Path:
    """A Parquet file with given columns (name to DuckDB type) and rows; images as bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = ", ".join('"{}" {}'.format(name.replace('"', '""'), kind) for name, kind in columns.items())
    holes = ", ".join("{'bytes': ?, 'path': 'x.png'}" if kind == STRUCT else "?" for kind in columns.values())
    options = "FORMAT parquet, ROW_GROUP_SIZE 2048"
    if names is not None:
        about = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        options += f", KV_METADATA {{huggingface: '{json.dumps(about)}'}}"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE t ({fields})")
        if rows:
            connection.executemany(f"INSERT INTO t VALUES ({holes})", [list(row) for row in rows])
        target = str(path).replace("'", "''")
        connection.execute(f"COPY t TO '{target}' ({options})")
    return path


def shard(path: Path, values: Sequence[int], labels: Sequence[int | None], names: Any = None, **kw: Any) -> Path:
    """A usual file of images of one value each."""
    return write(
        path, {"img": STRUCT, "label": "BIGINT"}, [*zip((png(v, **kw) for v in values), labels, strict=True)], names
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where decoded images go."""
    monkeypatch.setenv("EVENBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """A data set of two training shards, a test and a validation split."""
    root = tmp_path / "cifar10"
    shard(root / "train-00000-of-00002.parquet", [1, 2, 3], [0, 1, 0], ["cat", "dog"])
    shard(root / "train-00001-of-00002.parquet", [4, 5], [1, 1], ["cat", "dog"])
    shard(root / "test-00000-of-00001.parquet", [9, 8], [1, 0], ["cat", "dog"])
    shard(root / "valid-00000-of-00001-0123456789abcdef.parquet", [7, 6], [1, 0], ["cat", "dog"])
    return root


def first_channel(images: Any) -> list[int]:
    """The value of each image."""
    values: list[int] = images.pixels[:, 0, 0, 0].tolist()
    return values


def test_a_folder_of_shards(folder: Path) -> None:
    train = load(str(folder), "train")
    assert (train.name, train.split, train.class_names) == ("cifar10", "train", ("cat", "dog"))
    assert (first_channel(train), train.labels.tolist()) == ([1, 2, 3, 4, 5], [0, 1, 0, 1, 1])
    assert train.sample.tolist() == list(range(5))
    assert train.shape == (3, 3, 4)
    assert first_channel(load(str(folder))) == [9, 8]
    for spelling in ("valid", "validation", "val"):
        held = load(str(folder), spelling)
        assert (held.split, first_channel(held)) == ("validation", [7, 6])


def test_a_folder_is_called_by_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load(".").name == "cifar10"
    assert load("../cifar10/").name == "cifar10"


def test_a_folder_as_the_hub_has_it(tmp_path: Path, cache: Path) -> None:
    for split, value in (("train", 1), ("test", 2)):
        shard(tmp_path / "repo/plain" / f"{split}-00000-of-00001.parquet", [value, 0], [0, 1])
    assert first_channel(load(str(tmp_path / "repo"), "train")) == [1, 0]
    shard(tmp_path / "by split/default/test/0000.parquet", [3, 0], [0, 1])
    assert first_channel(load(str(tmp_path / "by split"), "test")) == [3, 0]
    shard(tmp_path / "repo/other/test-00000-of-00001.parquet", [2, 0], [0, 1])
    with pytest.raises(BadData, match=r"holds several data sets \(other, plain\); give the folder of one of them$"):
        load(str(tmp_path / "repo"))


def test_a_file_and_a_glob(folder: Path) -> None:
    (one,) = folder.glob("test-*")
    assert load(str(one)).name == "cifar10"
    assert first_channel(load(str(folder / "train-*.parquet"), "train")) == [1, 2, 3, 4, 5]
    assert first_channel(load(str(folder / "train-*1-of*"), "train")) == [4, 5]
    assert first_channel(load(str(folder / "*.parquet"), "train")) == [1, 2, 3, 4, 5]


def test_the_split_of_a_file_is_a_label(tmp_path: Path, cache: Path) -> None:
    path = shard(tmp_path / "toys.parquet", [1, 2], [0, 1])
    for split in ("train", "test", "anything"):
        images = load(str(path), split)
        assert (images.name, images.split) == ("toys", split)
    held = shard(tmp_path / "x/validation.parquet", [1, 2], [0, 1])
    assert load(str(held), "test").split == "test"


def test_a_file_of_another_split(folder: Path) -> None:
    with pytest.raises(
        BadData, match="is of the test split by its name, and 'train' was asked for; ask for 'test', or"
    ):
        load(str(folder / "test-*"), "train")
    with pytest.raises(BadData, match="is of the train split by its name, and 'test' was asked for"):
        load(str(folder / "train-*"), "test")


def test_unknown_split(folder: Path) -> None:
    with pytest.raises(
        UnknownName, match=r"^no split of cifar10 is called 'extra'; [^\n]*known: test, train, validation$"
    ):
        load(str(folder), "extra")
    with pytest.raises(UnknownName, match=r"^no split of cifar10 is called 'tets'; did you mean 'test'\?"):
        load(str(folder), "tets")


def test_a_missing_shard(folder: Path) -> None:
    (folder / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(BadData, match=r"^cifar10 lacks shard 00000 of the 2 of 'train'; fetch it$"):
        load(str(folder), "train")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("test.parquet", "test"),
        ("valid-00000-of-00001-a1b2c3d4e5f60718.parquet", "validation"),
        ("val_0.parquet", "validation"),
        ("test/0000.parquet", "test"),
        ("train/part-3.parquet", "train"),
        ("extra-00000-of-00002.parquet", "extra"),
        ("tests-0.parquet", "tests"),
        ("plain/0000.parquet", "plain"),
    ],
)
def test_split_of_a_file(path: str, split: str) -> None:
    assert split_of(Path(path)) == split
    assert split_name(split) == split


@pytest.mark.parametrize(
    "kind", ["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"]
)
def test_columns_of_any_name_and_integer_type(tmp_path: Path, cache: Path, kind: str) -> None:
    columns = {"id": "VARCHAR", 'a "picture"': STRUCT, "what it is": kind, "weight": "DOUBLE"}
    path = write(tmp_path / "a.parquet", columns, [("x", png(5), 1, 0.5), ("y", png(6), 0, 0.5)])
    images = load(str(path))
    assert (first_channel(images), images.labels.tolist(), images.class_names) == ([5, 6], [1, 0], ("0", "1"))


def test_of_several_columns_the_usual_ones(tmp_path: Path, cache: Path) -> None:
    columns = {"mask": STRUCT, "image": STRUCT, "coarse_label": "INTEGER", "fine_label": "INTEGER"}
    path = write(tmp_path / "a.parquet", columns, [(png(1), png(5), 7, 1), (png(1), png(6), 7, 0)])
    images = load(str(path))
    assert (first_channel(images), images.labels.tolist()) == ([5, 6], [1, 0])
    asked = load_parquet([path], name="a", split="test", image="mask", label="coarse_label", cache=cache)
    assert (first_channel(asked), asked.labels.tolist()) == ([1, 1], [7, 7])


def test_columns_that_cannot_be_told(tmp_path: Path, cache: Path) -> None:
    rows = [(png(1), 0, 1), (png(2), 1, 0)]
    path = write(tmp_path / "a.parquet", {"img": STRUCT, "one": "INTEGER", "two": "INTEGER"}, rows)
    with pytest.raises(
        BadData, match="has more than one integer column of labels: one, two; call the one that is meant"
    ):
        load(str(path))
    with pytest.raises(
        BadData, match=r"has no integer column of labels called 'three'; its columns are img, one, two$"
    ):
        load_parquet([path], name="a", split="test", label="three", cache=cache)


def test_other_layouts(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.parquet", {"x": "BLOB", "y": "INTEGER"}, [(b"1", 0)])
    with pytest.raises(
        BadData, match=r"has no struct column with encoded 'bytes' of an image; its columns are x \(BLOB\), y"
    ):
        load(str(path))
    path = write(tmp_path / "b.parquet", {"img": STRUCT, "label": "VARCHAR"}, [(png(1), "cat")])
    with pytest.raises(BadData, match="has no integer column of labels; its columns are img"):
        load(str(path))


def test_class_names(tmp_path: Path, cache: Path) -> None:
    listed = shard(tmp_path / "a.parquet", [1, 2], [0, 1], ["it", "that", "none"])
    assert load(str(listed)).class_names == ("it", "that", "none")
    mapped = shard(tmp_path / "b.parquet", [1, 2], [0, 1], {str(k): f"c{k}" for k in range(11)})
    assert load(str(mapped)).class_names == tuple(f"c{k}" for k in range(11))
    others: tuple[Any, ...] = (5, [], {})
    for other in others:
        assert load(str(shard(tmp_path / "c.parquet", [1, 2], [0, 2], other))).class_names == ("0", "1", "2")


def test_shards_of_different_data(tmp_path: Path, cache: Path) -> None:
    shard(tmp_path / "x/test-0.parquet", [1, 2], [0, 1], ["a", "b"])
    shard(tmp_path / "x/test-1.parquet", [1, 2], [0, 1], ["c", "d"])
    with pytest.raises(BadData, match=r"test-1.parquet has other class names than"):
        load(str(tmp_path / "x"))


@pytest.mark.parametrize("encoding", ["PNG", "WEBP", "TIFF"])
def test_encodings(tmp_path: Path, cache: Path, encoding: str) -> None:
    rows = [(png(v, encoding=encoding), v % 2) for v in (200, 101)]
    path = write(tmp_path / "a.parquet", {"img": STRUCT, "label": "INTEGER"}, rows)
    assert first_channel(load(str(path))) == [200, 101]


def test_jpeg_in_grey(tmp_path: Path, cache: Path) -> None:
    rows = [(png(v, mode="L", encoding="JPEG"), v % 2) for v in (200, 101)]
    images = load(str(write(tmp_path / "a.parquet", {"img": STRUCT, "label": "INTEGER"}, rows)))
    assert images.shape == (1, 3, 4)
    assert first_channel(images) == [200, 101]


def test_colour_among_grey_makes_all_rgb(tmp_path: Path, cache: Path) -> None:
    rows = [(png(v, mode="L" if v < 300 else "RGB"), v % 2) for v in range(256)] + [(png(9), 0), (png(5, mode="L"), 1)]
    images = load(str(write(tmp_path / "a.parquet", {"img": STRUCT, "label": "INTEGER"}, rows)))
    assert images.shape == (3, 3, 4)
    assert first_channel(images) == [*range(256), 9, 5]
    assert images.pixels[7].max() == images.pixels[7].min() == 7
    assert images.pixels[256, 1].max() == 0


def test_the_order_of_rows_over_row_groups(tmp_path: Path, cache: Path) -> None:
    n = 5000
    path = shard(tmp_path / "a.parquet", [i % 256 for i in range(n)], [i * i % 7 for i in range(n)], size=(1, 1))
    images = load(str(path))
    assert first_channel(images) == [i % 256 for i in range(n)]
    assert images.labels.tolist() == [i * i % 7 for i in range(n)]


def test_a_path_with_odd_characters(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "it's [1] *?" / "label=3"
    shard(root / "test-00000-of-00001.parquet", [1, 2], [0, 1], ["a", "b"])
    assert load(str(root)).class_names == ("a", "b")


# What cannot be read.


@pytest.mark.parametrize("keep", [0, 1, 8, 100, -1, -9])
def test_truncated(folder: Path, keep: int) -> None:
    (path,) = folder.glob("test-*")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        BadData, match=r"test-00000-of-00001\.parquet is no Parquet file that can be read \([^\n]*\); fetch it"
    ):
        load(str(folder))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damaged_anywhere(folder: Path, data: st.DataObject) -> None:
    (path,) = folder.glob("test-*")
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    message = ""
    try:
        assert len(load(str(folder))) == 2  # where the damage does no harm, or none that can be seen
    except BadData as problem:
        message = str(problem)
    finally:
        path.write_bytes(whole)
    assert "\n" not in message


def test_no_parquet(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("id,label\n1,2\n" * 10)
    with pytest.raises(BadData, match=r"a\.parquet is no Parquet file that can be read"):
        load(str(path))


def test_empty(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(BadData, match=r"a\.parquet holds no rows; at least one image is needed$"):
        load(str(shard(tmp_path / "a.parquet", [], [])))


def test_no_images(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.parquet", {"img": STRUCT, "label": "INTEGER"}, [(png(1), 0), (b"a sound, say", 1)])
    with pytest.raises(
        BadData, match=r"^row 1 of [^\n]*a\.parquet is no image in a format that Pillow reads; take it out"
    ):
        load(str(path))


def test_a_truncated_image(tmp_path: Path, cache: Path) -> None:
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(noise, "PNG")
    path = write(tmp_path / "a.parquet", {"img": STRUCT, "label": "INTEGER"}, [(noise.getvalue()[:2000], 0)])
    with pytest.raises(BadData, match=r"^row 0 of [^\n]*a\.parquet cannot be decoded \([^\n]+\); it may be truncated"):
        load(str(path))


def test_holes(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.parquet", {"img": STRUCT, "label": "INTEGER"}, [(png(1), 0), (None, 1)])
    with pytest.raises(BadData, match=r"^row 1 of .* has no image bytes; every row needs both$"):
        load(str(path))
    with pytest.raises(BadData, match=r"^row 0 of .* has no label; every row needs both$"):
        load(str(shard(tmp_path / "b.parquet", [1, 2], [None, 1])))


def test_sizes_that_differ(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "x"
    shard(root / "test-0.parquet", [1, 2], [0, 1])
    shard(root / "test-1.parquet", [1, 2], [0, 1], size=(5, 6))
    with pytest.raises(
        BadData, match=r"^row 0 of .*test-1\.parquet is 5x6 pixels, row 0 of .*test-0\.parquet is 4x3; images"
    ):
        load(str(root))


@pytest.mark.parametrize("label", [2, -1, 2**40])
def test_labels_outside_the_classes(tmp_path: Path, cache: Path, label: int) -> None:
    path = shard(tmp_path / "a.parquet", [1, 2, 3], [0, 1, label], ["cat", "dog"])
    with pytest.raises(
        BadData, match=f"^a/test: image 2 has label {label}, outside the 2 classes; wanted 0 to 1, take"
    ):
        load(str(path))


def test_labels_without_names(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(BadData, match="image 1 has label -1, outside the 2 classes"):
        load(str(shard(tmp_path / "a.parquet", [1, 2, 3], [0, -1, 1])))
    with pytest.raises(BadData, match=r"^row 1 of .* has label 1099511627776, and the file names no classes; wanted"):
        load(str(shard(tmp_path / "b.parquet", [1, 2], [0, 2**40])))
    with pytest.raises(BadData, match="number of classes is 1; wanted 2"):
        load(str(shard(tmp_path / "c.parquet", [1, 2], [0, 0])))


def test_a_class_without_samples(tmp_path: Path, cache: Path) -> None:
    images = load(str(shard(tmp_path / "a.parquet", [1, 2], [0, 2], ["ant", "bee", "cow"])))
    with pytest.raises(BadData, match="has no image of class 'bee'; a figure per class"):
        images.check_complete()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path: Path, cache: Path) -> None:
    path = shard(tmp_path / "a.parquet", [1, 2], [0, 1])
    path.chmod(0)
    with pytest.raises(BadData, match="cannot be read"):
        load(str(path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "train-00000-of-00003.parquet",
            "'train' in 2 shards and 'train' in 3 shards, so its images",
        ),
        ("train.parquet", "'train' in 2 shards and train.parquet, so its images would count twice"),
        ("train-00000-of-00002-0123456789abcdef.parquet", "holds shard 00000 of the 00002 of 'train' twice; take one"),
    ],
)
def test_two_generations_of_shards(folder: Path, name: str, said: str) -> None:
    for k in range(3 if "of-00003" in name else 1):
        shard(folder / name.replace("00000", f"{k:05d}", 1), [6, 6, k], [0, 1, 0], ["cat", "dog"])
    with pytest.raises(BadData, match=re.escape(said)):
        load(str(folder), "train")


def test_a_copy_of_a_file(folder: Path) -> None:
    (folder / "test-copy.parquet").write_bytes((folder / "test-00000-of-00001.parquet").read_bytes())
    for source in (str(folder), str(folder / "test*.parquet")):
        with pytest.raises(BadData, match=r"test-copy\.parquet holds the same as .*, so its images would count twice"):
            load(source, "test")


def test_a_pipe_among_the_files(folder: Path) -> None:
    os.mkfifo(folder / "test-pipe.parquet")
    with pytest.raises(BadData, match=r"test-pipe\.parquet is no file; wanted a Parquet file"):
        load(str(folder))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cat", "cow"], "has 2 classes and .* has 2, and only one of them has 'cow'"),
        (["dog", "cat"], "they are in another order"),
        (["cat", "dog", "emu"], "has 2 classes and .* has 3, and only one of them has 'emu'"),
    ],
)
def test_splits_of_other_classes_are_noticed_before_training(folder: Path, names: list[str], said: str) -> None:
    train = load(str(folder), "train")
    check_test_split(train, str(folder))
    shard(folder / "test-00000-of-00001.parquet", [9, 8], [1, 0], names)
    with pytest.raises(BadData, match=said):
        check_test_split(train, str(folder))
    (folder / "test-00000-of-00001.parquet").unlink()
    check_test_split(train, str(folder))


@pytest.mark.parametrize("source", ["x" * 5000, "a/" + "y" * 300, "~nosuchuser/data", "a\0b"])
def test_paths_that_the_system_does_not_know(source: str) -> None:
    with pytest.raises(BenchError, match="no data") as refused:
        load(source)
    assert len(str(refused.value)) < 600


# The cache of decoded images.


def test_decoded_once(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = load(str(folder))

    def fail(*args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("bench.data.parquet.read", fail)
    again = load(str(folder))
    assert isinstance(again.pixels.base, np.memmap)
    assert again.dataset_id == once.dataset_id
    assert (again.labels.tolist(), again.class_names) == (once.labels.tolist(), once.class_names)
    x, _ = again.batch(slice(0, 2))
    assert x[:, 0, 0, 0].tolist() == [np.float32(9 / 255), np.float32(8 / 255)]
    assert [path.suffix for path in (cache / "decoded").iterdir()] == [""]


def test_other_content_is_another_entry(folder: Path, cache: Path) -> None:
    first = load(str(folder))
    shard(folder / "test-00000-of-00001.parquet", [9, 7], [1, 0], ["cat", "dog"])
    assert first_channel(load(str(folder))) == [9, 7]
    assert load(str(folder)).dataset_id != first.dataset_id


def test_the_cache_can_be_said(folder: Path, cache: Path, tmp_path: Path) -> None:
    load(str(folder), cache=tmp_path / "elsewhere")
    assert not cache.exists()
    assert (tmp_path / "elsewhere/decoded").is_dir()


def test_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EVENBENCH_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache/evenbench"


@pytest.mark.parametrize("damaged", ["pixels.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]"])
def test_a_damaged_entry_is_made_anew(folder: Path, cache: Path, damaged: str, content: bytes | None) -> None:
    load(str(folder))
    (entry,) = (cache / "decoded").iterdir()
    whole = (entry / damaged).read_bytes()
    if content is None:
        (entry / damaged).unlink()
    else:
        (entry / damaged).write_bytes(content)
    assert first_channel(load(str(folder))) == [9, 8]
    assert (entry / damaged).read_bytes() == whole


@pytest.mark.parametrize("damaged", ["pixels.npy", "labels.npy"])
def test_an_entry_with_other_values_under_an_intact_shape_is_made_anew(folder: Path, cache: Path, damaged: str) -> None:
    once = load(str(folder)).dataset_id
    (entry,) = (cache / "decoded").iterdir()
    whole = (entry / damaged).read_bytes()
    np.save(entry / damaged, 1 - np.load(entry / damaged).clip(max=1))
    again = load(str(folder))
    assert (again.dataset_id, first_channel(again)) == (once, [9, 8])
    assert (entry / damaged).read_bytes() == whole


def test_a_truncated_entry_is_made_anew(folder: Path, cache: Path) -> None:
    load(str(folder))
    (entry,) = (cache / "decoded").iterdir()
    pixels = entry / "pixels.npy"
    pixels.write_bytes(pixels.read_bytes()[:-1])
    assert first_channel(load(str(folder))) == [9, 8]


def test_a_cache_that_cannot_be_written(folder: Path, cache: Path) -> None:
    cache.write_text("a file is in the way")
    images = load(str(folder))
    assert first_channel(images) == [9, 8]
    assert cache.read_text() == "a file is in the way"


def test_a_full_disk_leaves_nothing_behind(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kw: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.data.cache.np.save", full)
    assert first_channel(load(str(folder))) == [9, 8]
    assert list((cache / "decoded").iterdir()) == []


# Real images.


@pytest.fixture(scope="module")
def cifar10() -> Path:
    """The shared copy of CIFAR-10."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    path = Path(os.environ.get("EVENBENCH_SHARED") or beside) / "data" / "cifar10"
    if not path.is_dir():
        pytest.skip("no CIFAR-10 at $EVENBENCH_SHARED/data/cifar10 or ../shared/data/cifar10")
    return path


def test_cifar10(cifar10: Path, cache: Path) -> None:
    test = load(str(cifar10), "test").check_complete()
    assert (test.name, test.split, len(test), test.shape) == ("cifar10", "test", 10_000, (3, 32, 32))
    assert test.class_names[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(test.labels).tolist() == [1000] * 10
    mean, _ = test.channel_statistics()
    np.testing.assert_allclose(mean, (0.4942, 0.4851, 0.4504), atol=2e-4)
    part = test.take(100, 0)
    assert np.bincount(part.labels).tolist() == [10] * 10
