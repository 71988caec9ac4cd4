"""The handwritten digits that come with scikit-learn: 1,797 real 8x8 images, 10 classes.

Source: Alpaydin and Kaynak 1998, UCI optical recognition of handwritten digits, test part.
"""

from __future__ import annotations

import numpy as np

from bench.data.images import Images, images_from_arrays
from bench.errors import UnknownName

SPLITS = ("train", "test")
TEST_SHARE = 0.4
SPLIT_SEED = 0


def load_digits(split: str) -> Images:
    """One of the two parts of a fixed stratified 60/40 split; intensities 0..16 become 0..255.

    Raises:
        UnknownName: a split other than train and test.
    """
    from sklearn.datasets import load_digits as raw
    from sklearn.model_selection import train_test_split

    if split not in SPLITS:
        raise UnknownName.among("split of digits", split, SPLITS)
    images, labels = raw(return_X_y=True)
    parts = train_test_split(np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED)
    rows = np.sort(parts[SPLITS.index(split)])
    pixels = np.rint(images[rows] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return images_from_arrays("digits", split, pixels, labels[rows], [str(k) for k in range(10)])
