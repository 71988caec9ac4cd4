from __future__ import annotations

import numpy as np

from bench.soundness.sampling import in_turns


def test_every_beginning_of_the_turns_is_stratified(images):
    rows = in_turns(images, 0)
    assert sorted(rows) == list(range(len(images)))
    for n in (10, 20, 45):
        counts = np.bincount(images.labels[rows[:n]], minlength=10)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(in_turns(images, 1), rows)
    swapped = in_turns(images.select(np.arange(240)[::-1]), 0)  # a matter of the samples, not of where they lie
    assert np.array_equal(images.sample[::-1][swapped], images.sample[rows])
