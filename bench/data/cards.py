"""Data sets of the Hub that have a name here; a new one is a card more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Card:
    """Where a data set lies on the Hub and how it is laid out.

    Attributes:
        repo: owner and name.
        about: one line.
        splits: pattern of file names, by split.
        image: column of images.
        label: column of labels.
        revision: branch, tag or commit that is read unless another is asked for. Which state it was stands in every
            result all the same: the data set's identity is the hash of its content.
    """

    repo: str
    about: str
    splits: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    label: str | None = None
    revision: str = "main"


def _halves(folder: str, test: str = "test") -> Mapping[str, str]:
    return {"train": f"{folder}/train-*.parquet", "test": f"{folder}/{test}-*.parquet"}


CARDS: Mapping[str, Card] = {
    "cifar10": Card(
        "uoft-cs/cifar10", "60,000 photographs, 32x32, 10 classes (Hub)", _halves("plain_text"), "img", "label"
    ),
    "cifar100": Card(
        "uoft-cs/cifar100", "60,000 photographs, 32x32, 100 classes (Hub)", _halves("cifar100"), "img", "fine_label"
    ),
    "tiny-imagenet": Card(
        "zh-plus/tiny-imagenet",
        "110,000 photographs, 64x64, 200 classes; its validation split stands as test (Hub)",
        _halves("data", "valid"),
        "image",
        "label",
    ),
    "svhn": Card(
        "ufldl-stanford/svhn",
        "99,289 house numbers, 32x32, 10 classes (Hub)",
        _halves("cropped_digits"),
        "image",
        "label",
    ),
    "fashion-mnist": Card(
        "zalando-datasets/fashion_mnist",
        "70,000 pieces of clothing, 28x28 grey, 10 classes (Hub)",
        _halves("fashion_mnist"),
        "image",
        "label",
    ),
    "mnist": Card(
        "ylecun/mnist", "70,000 handwritten digits, 28x28 grey, 10 classes (Hub)", _halves("mnist"), "image", "label"
    ),
}
