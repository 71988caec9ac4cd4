import numpy as np
import pytest
from sklearn.datasets import load_digits as raw

from bench.data.load import load
from bench.errors import UnknownName


def test_the_two_parts_are_all_of_it() -> None:
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test)) == (1078, 719)
    assert train.shape == test.shape == (1, 8, 8)
    assert train.class_names == test.class_names == tuple("0123456789")
    assert (train.name, train.split, train.subset) == ("digits", "train", "")
    images, labels = raw(return_X_y=True)
    ours = np.concatenate([train.pixels, test.pixels]).reshape(-1, 64)
    back = ours.astype(float) * 16 / 255
    assert np.abs(back - np.rint(back)).max() < 0.04
    key = np.column_stack([np.rint(back), np.concatenate([train.labels, test.labels])])
    theirs = np.column_stack([images, labels])
    assert sorted(map(tuple, key.tolist())) == sorted(map(tuple, theirs.tolist()))


def test_the_split_is_stratified_and_stays() -> None:
    train, test = load("digits", "train"), load("digits", "test")
    counts = np.bincount(train.labels) + np.bincount(test.labels)
    assert np.abs(np.bincount(test.labels) - 0.4 * counts).max() <= 1
    assert (train.dataset_id, test.dataset_id) == ("4335cd130fdffe7b", "92165f8bd392e19d")


def test_the_range_is_used() -> None:
    train = load("digits", "train")
    assert (train.pixels.min(), train.pixels.max()) == (0, 255)


def test_unknown_split() -> None:
    with pytest.raises(
        UnknownName, match=r"^no split of digits is called 'tests'; did you mean 'test'\? known: test, t"
    ):
        load("digits", "tests")
