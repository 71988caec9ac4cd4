"""Images: what identifies them, subsets, batches, and what is refused."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from bench.data.images import Images, images_from_arrays
from bench.data.load import dataset_names, load
from bench.errors import BadData, BadOption, UnknownName


def images(counts: list[int], seed: int = 0, shape: tuple[int, int, int] = (1, 2, 2)) -> Images:
    """Random pixels, so many of each class, in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return images_from_arrays("toy", "train", pixels, labels, [f"class {k}" for k in range(len(counts))])


COUNTS = st.lists(st.integers(1, 40), min_size=2, max_size=8)


@given(COUNTS, st.data())
def test_take_is_exact_and_stratified(counts: list[int], data: st.DataObject) -> None:
    whole = images(counts)
    n = data.draw(st.integers(len(counts), len(whole)))
    seed = data.draw(st.integers(0, 3))
    part = whole.take(n, seed)
    assert len(part) == n
    assert (np.diff(part.sample.astype(int)) > 0).all()
    assert (part.labels == whole.labels[part.sample]).all()
    assert (part.pixels == whole.pixels[part.sample]).all()
    assert part.subset == f"n={n},seed={seed}"
    taken = np.bincount(part.labels, minlength=len(counts))
    assert (taken >= 1).all()
    due = np.array(counts) * n / len(whole)
    # No class has more than its share rounded up; one has less than it rounded down only to give others their one.
    assert (taken <= np.maximum(np.ceil(due), 1)).all()
    if (due >= 1).all():
        assert (np.abs(taken - due) < 1).all()


@given(COUNTS, st.integers(0, 3))
def test_take_does_not_depend_on_the_order_of_rows(counts: list[int], seed: int) -> None:
    whole = images(counts)
    order = np.random.default_rng(seed).permutation(len(whole))
    n = max(len(counts), len(whole) // 2)
    assert set(whole.take(n, seed).sample.tolist()) == set(whole.select(order).take(n, seed).sample.tolist())


def test_take_is_the_same_for_good() -> None:
    whole = images_from_arrays("toy", "test", np.zeros((30, 1, 2, 2), np.uint8), np.arange(30) % 3, "abc")
    assert whole.take(6, 0).sample.tolist() == lowest("take 0") == [3, 11, 13, 16, 20, 24]
    assert whole.take(6, 1).sample.tolist() == lowest("take 1") == [6, 11, 16, 22, 24, 29]
    assert whole.hold_out(0.2, 0)[1].sample.tolist() == lowest("hold out 0") == [9, 18, 22, 23, 28, 29]


def lowest(purpose: str) -> list[int]:
    """Of 30 rows in 3 classes by turns, the two of each class with the lowest SHA-256."""
    order = sorted(range(30), key=lambda row: hashlib.sha256(f"{purpose}/{row}".encode()).hexdigest())
    return sorted(row for k in range(3) for row in [r for r in order if r % 3 == k][:2])


def test_take_all_is_all() -> None:
    whole = images([3, 4])
    assert whole.take(7, 5).sample.tolist() == list(range(7))


@pytest.mark.parametrize("n", [-1, 0, 2, 61])
def test_take_refuses(n: int) -> None:
    with pytest.raises(
        BadData, match=rf"^a subset of {n} images was asked for; toy/train has 60 in 3 classes, so ask for"
    ):
        images([10, 20, 30]).take(n, 0)


@given(st.lists(st.integers(2, 40), min_size=2, max_size=8), st.floats(0.01, 0.99), st.integers(0, 3))
def test_hold_out(counts: list[int], fraction: float, seed: int) -> None:
    whole = images(counts)
    rest, held = whole.hold_out(fraction, seed)
    assert sorted([*rest.sample.tolist(), *held.sample.tolist()]) == list(range(len(whole)))
    for part in (rest, held):
        assert (np.bincount(part.labels, minlength=len(counts)) >= 1).all()
        assert (part.pixels == whole.pixels[part.sample]).all()
    share = np.bincount(held.labels, minlength=len(counts))
    due = np.array(counts) * fraction
    assert (np.abs(share - due) <= np.maximum(0.5, 1 - np.minimum(due, np.array(counts) - due)) + 1e-9).all()
    assert rest.subset != held.subset


def test_subsets_of_subsets_say_so() -> None:
    part = images([20, 20]).take(20, 1)
    assert part.hold_out(0.1, 0)[1].subset == "n=20,seed=1;held out 0.1,seed=0"
    assert part.hold_out(0.1, 0)[0].subset == "n=20,seed=1;all but held out 0.1,seed=0"


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_hold_out_refuses_no_fractions(fraction: float) -> None:
    with pytest.raises(BadOption, match="lies between 0 and 1"):
        images([5, 5]).hold_out(fraction, 0)


def test_hold_out_needs_two_of_each() -> None:
    with pytest.raises(BadData, match=r"^class 'class 1' of toy/train has 1 images; 2 are needed to hold out 1$"):
        images([5, 1]).hold_out(0.1, 0)


def test_identity_is_the_content() -> None:
    whole = images([3, 4])
    assert whole.dataset_id == images([3, 4]).dataset_id
    assert whole.dataset_id == replace(whole, name="other", split="test", subset="n=7,seed=0").dataset_id
    pixels, labels = whole.pixels.copy(), whole.labels.copy()
    pixels[6, 0, 1, 1] ^= 1
    labels[0] = 1 - labels[0]
    changed = [
        replace(whole, pixels=pixels),
        replace(whole, labels=labels),
        replace(whole, sample=whole.sample + np.uint32(1)),
        replace(whole, class_names=("class 0", "class one")),
        replace(whole, pixels=whole.pixels.reshape(-1, 1, 4, 1)),
        replace(whole, pixels=whole.pixels.astype(np.float32)),
        whole.take(6, 0),
    ]
    assert len({whole.dataset_id, *(one.dataset_id for one in changed)}) == len(changed) + 1


def test_identity_stays_over_versions() -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 1, 2, 2)
    assert images_from_arrays("toy", "test", pixels, [0, 1, 0, 1], ["a", "b"]).dataset_id == "fcdda87ab245e8a9"
    content = b'[[4,1,2,2],"uint8",["a","b"]]' + bytes(range(16)) + b"\0\0\1\0\0\0\1\0"
    content += b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"
    assert hashlib.sha256(content).hexdigest()[:16] == "fcdda87ab245e8a9"


def test_batch() -> None:
    whole = images([3, 4], shape=(3, 2, 5))
    for rows in (slice(1, 4), np.array([1, 2, 3]), np.arange(7) % 7 == 3):
        x, y = whole.batch(rows)
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.shape[1:] == whole.shape == (3, 2, 5)
        assert torch.equal(x, torch.tensor(whole.pixels[rows].astype(np.float32) / np.float32(255)))
        assert y.tolist() == whole.labels[rows].tolist()


def test_batch_reaches_both_ends_of_the_range() -> None:
    pixels = np.array([0, 255, 51, 1], np.uint8).reshape(4, 1, 1, 1)
    x, _ = images_from_arrays("toy", "test", pixels, [0, 1, 0, 1], ["a", "b"]).batch(slice(None))
    assert x.flatten().tolist() == [0.0, 1.0, np.float32(51 / 255), np.float32(1 / 255)]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_batch_is_a_copy(kind: type) -> None:
    whole = images_from_arrays("toy", "test", np.ones((4, 1, 2, 2), kind), [0, 1, 0, 1], ["a", "b"])
    before = whole.pixels.copy()
    whole.batch(slice(0, 4))[0].zero_()
    assert (whole.pixels == before).all()


def test_floats_come_through() -> None:
    pixels = np.random.default_rng(0).random((4, 5, 6))
    whole = images_from_arrays("mine", "test", pixels, [0, 1, 0, 1], ["a", "b"])
    assert whole.shape == (1, 5, 6)
    assert torch.equal(whole.batch(slice(None))[0][:, 0], torch.tensor(pixels, dtype=torch.float32))


def test_channel_statistics() -> None:
    whole = images([30, 31], shape=(3, 4, 4))
    x = whole.pixels.astype(np.float64) / 255
    mean, std = whole.channel_statistics()
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), atol=5.1e-5)
    np.testing.assert_allclose(std, x.std((0, 2, 3)), atol=5.1e-5)
    flat = images_from_arrays("toy", "test", np.full((4, 1, 2, 2), 7, np.uint8), [0, 1, 0, 1], ["a", "b"])
    assert flat.channel_statistics()[1][0] > 0


def test_a_class_without_images() -> None:
    whole = images_from_arrays("toy", "test", np.zeros((2, 1, 2, 2), np.uint8), [0, 2], ["a", "b", "c", "d"])
    with pytest.raises(BadData, match=r"^toy/test has no image of class 'b', 'd'; a figure per class needs at least"):
        whole.check_complete()
    many = replace(whole, class_names=tuple("abcdefgh"))
    with pytest.raises(BadData, match="'b', 'd', 'e' and 3 more;"):
        many.check_complete()
    assert images([1, 1]).check_complete().classes == 2


GOOD = np.zeros((2, 1, 2, 2), np.uint8)
NAN = np.full((2, 1, 2, 2), 0.5)
NAN[1, 0, 1, 0] = np.nan


@pytest.mark.parametrize(
    ("pixels", "labels", "names", "message"),
    [
        (np.zeros((2, 2)), [0, 1], "ab", r"pixels \(2, 2\) and labels \(2,\) do not fit"),
        (GOOD, [0], "ab", "do not fit"),
        (GOOD, [[0], [1]], "ab", "do not fit"),
        (GOOD[:0], [], "ab", "do not fit"),
        (np.zeros((2, 1, 0, 2), np.uint8), [0, 1], "ab", "do not fit"),
        ([[1], [1, 2]], [0, 1], "ab", "ragged"),
        (GOOD.astype(np.int64), [0, 1], "ab", "pixels are int64; wanted uint8, or floats"),
        (NAN, [0, 1], "ab", "image 1 has pixels that are NaN; wanted"),
        (GOOD - 0.1, [0, 1], "ab", r"pixels lie in \[-0.1, -0.1\]; wanted \[0, 1\]"),
        (GOOD + 255.0, [0, 1], "ab", r"pixels lie in \[255, 255\]; wanted \[0, 1\]"),
        (GOOD + np.inf, [0, 1], "ab", r"pixels lie in \[inf, inf\]; wanted \[0, 1\]"),
        (GOOD + 1e300, [0, 1], "ab", r"pixels lie in \[1e\+300, 1e\+300\]"),
        (GOOD, [0, 1], "", "the number of classes is 0; wanted 2"),
        (GOOD, [0, 0], "a", "the number of classes is 1; wanted 2"),
        (GOOD, [0.0, 1.0], "ab", "labels are float64; wanted whole numbers from 0 to 1"),
        (GOOD, [0, 2], "ab", "image 1 has label 2, outside the 2 classes; wanted 0 to 1"),
        (GOOD, [-1, 1], "ab", "image 0 has label -1, outside the 2 classes; wanted 0 to 1"),
    ],
)
def test_arrays_that_are_refused(pixels: object, labels: list[object], names: str, message: str) -> None:
    with pytest.raises(BadData, match=f"^mine/test: [^\n]*{message}"):
        images_from_arrays("mine", "test", pixels, labels, list(names))  # type: ignore[arg-type]  # refused here


def test_unknown_name() -> None:
    known = len(dataset_names())
    with pytest.raises(
        UnknownName,
        match=rf"^no data set is called 'digit'; did you mean 'digits'\? 'evenbench list datasets' shows all {known}$",
    ):
        load("digit")
    with pytest.raises(UnknownName, match="did you mean 'cifar10'"):
        load("cifar-10")


@pytest.mark.parametrize("source", ["", "no/such/folder/at/all", "nothing*.parquet", "./digit"])
def test_nothing_there(source: str) -> None:
    with pytest.raises(BadData, match=r"^no data at '[^\n]*; wanted a name \('evenbench list datasets'\), a folder"):
        load(source)


def test_an_id_without_its_prefix() -> None:
    with pytest.raises(BadData, match="did you mean 'hub:uoft-cs/cifar10'"):
        load("uoft-cs/cifar10")


def test_a_revision_is_for_the_hub() -> None:
    with pytest.raises(BadOption, match="'digits' is not on the Hub"):
        load("digits", revision="main")


def test_importing_is_light() -> None:
    heavy = ("torch", "sklearn", "duckdb", "huggingface_hub", "PIL")
    code = f"import sys, bench.data.load as load; load.dataset_names(); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
