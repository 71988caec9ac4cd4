"""Images: pixels held once, labels, and which row of its split each image is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.errors import BadData, BadOption
from bench.fingerprint import LENGTH, canonical

if TYPE_CHECKING:
    import torch


MOST_CLASSES = 65536
"""What labels of 16 bits can tell apart."""


@dataclass(frozen=True, eq=False)
class Images:
    """A split of a data set, or a named subset of it.

    Attributes:
        name: of the data set.
        split: of it.
        subset: '' for the whole split, else 'n=100,seed=0', or what of it was held out.
        pixels: (N,C,H,W) uint8, 255 being full intensity, in memory or memory-mapped; float32 in [0, 1] for a
            user's own arrays.
        labels: (N,) uint16.
        sample: (N,) uint32, row in the split.
        class_names: K names.
    """

    name: str
    split: str
    pixels: npt.NDArray[Any]
    labels: npt.NDArray[np.uint16]
    sample: npt.NDArray[np.uint32]
    class_names: tuple[str, ...]
    subset: str = ""

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C,H,W)."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def dataset_id(self) -> str:
        """Hash of pixels, labels, rows and class names."""
        about = [list(self.pixels.shape), str(self.pixels.dtype), list(self.class_names)]
        digest = hashlib.sha256(canonical(about).encode())
        for first in range(0, len(self), 4096):
            digest.update(np.ascontiguousarray(self.pixels[first : first + 4096]).reshape(-1).data)
        digest.update(self.labels.astype("<u2").tobytes())
        digest.update(self.sample.astype("<u4").tobytes())
        return digest.hexdigest()[:LENGTH]

    def batch(
        self, rows: slice | npt.NDArray[Any], device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Some images, copied: pixels float32 (B,C,H,W) in [0, 1], labels int64 (B,)."""
        import torch

        # A copy: what is memory-mapped cannot be written to, and what is in memory must not be.
        x = torch.from_numpy(np.array(self.pixels[rows], order="C"))
        y = torch.from_numpy(self.labels[rows].astype(np.int64))
        if torch.device(device).type == "cuda":
            x, y = x.pin_memory(), y.pin_memory()  # from which the host need not wait for the copy
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        return (x.to(torch.float32) / 255 if x.dtype == torch.uint8 else x), y

    def select(self, rows: npt.NDArray[Any]) -> Images:
        """The images at some positions, still knowing their rows in the split."""
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], sample=self.sample[rows])

    def take(self, n: int, seed: int) -> Images:
        """A stratified subset of n images, in the order they have.

        Every class gives its share of n, rounded by largest remainder, and at least one image; which images is a
        matter of hashes of (seed, row in the split), so that it does not change with versions or platforms.

        Raises:
            BadData: n is below the number of classes or above that of images.
        """
        if not self.classes <= n <= len(self):
            raise BadData(
                f"a subset of {n} images was asked for; {self.name}/{self.split} has {len(self)} in {self.classes} "
                f"classes, so ask for {self.classes} to {len(self)}"
            )
        chosen = self._stratified(self._shares(n), f"take {seed}")
        return self._part(chosen, f"n={n},seed={seed}")

    def hold_out(self, fraction: float, seed: int) -> tuple[Images, Images]:
        """The images without a stratified share of them, and that share.

        Args:
            fraction: of each class, rounded, at least one image.
            seed: which images.

        Raises:
            BadOption: the fraction is none.
            BadData: a class has fewer than two images.
        """
        if not 0 < fraction < 1:
            raise BadOption(f"a fraction of {fraction} cannot be held out; it lies between 0 and 1, such as 0.02")
        counts = np.bincount(self.labels, minlength=self.classes)
        if counts.min() < 2:
            short = self.class_names[int(counts.argmin())]
            raise BadData(
                f"class {short!r} of {self.name}/{self.split} has {counts.min()} images; 2 are needed to hold out 1"
            )
        shares = np.clip(np.rint(counts * fraction).astype(int), 1, counts - 1)
        held = self._stratified(shares, f"hold out {seed}")
        called = f"held out {fraction:g},seed={seed}"
        return self._part(~held, f"all but {called}"), self._part(held, called)

    def _part(self, chosen: npt.NDArray[np.bool_], called: str) -> Images:
        """The chosen images, as a subset of what this is already."""
        return replace(self.select(np.flatnonzero(chosen)), subset=f"{self.subset};{called}" if self.subset else called)

    def _shares(self, n: int) -> npt.NDArray[np.int64]:
        """(K,) how many of n images each class gives: at least one, by largest remainder, ties to the lower class."""
        counts = np.bincount(self.labels, minlength=self.classes)
        due = counts.astype(np.int64) * n
        shares = np.maximum(due // len(self), np.minimum(counts, 1)).astype(np.int64)
        while missing := n - int(shares.sum()):
            one = 1 if missing > 0 else -1
            owed = (due - shares * len(self)) * one
            room = np.flatnonzero(shares < counts if one > 0 else shares > 1)
            shares[room[np.argsort(-owed[room], kind="stable")][: abs(missing)]] += one
        return shares

    def _stratified(self, shares: npt.NDArray[Any], purpose: str) -> npt.NDArray[np.bool_]:
        """(N,) the images of each class with the lowest hashes."""
        hashes = [hashlib.sha256(f"{purpose}/{row}".encode()).digest()[:8] for row in self.sample.tolist()]
        rank = np.frombuffer(b"".join(hashes), ">u8")
        chosen = np.zeros(len(self), bool)
        for k, share in enumerate(shares):
            rows = np.flatnonzero(self.labels == k)
            chosen[rows[np.argsort(rank[rows], kind="stable")[:share]]] = True
        return chosen

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, pixels in [0, 1], to four decimals."""
        total, squares = np.zeros(self.shape[0]), np.zeros(self.shape[0])
        scale = 255 if self.pixels.dtype == np.uint8 else 1
        for first in range(0, len(self), 4096):
            block = self.pixels[first : first + 4096].astype(np.float64) / scale
            total += block.sum((0, 2, 3))
            squares += (block**2).sum((0, 2, 3))
        size = self.pixels.size / self.shape[0]
        mean = total / size
        std = np.sqrt(np.maximum(squares / size - mean**2, 1e-8))
        return tuple(np.round(mean, 4).tolist()), tuple(np.maximum(np.round(std, 4), 1e-4).tolist())

    def check_complete(self) -> Images:
        """Itself, if every class has an image.

        Raises:
            BadData: one has none.
        """
        counts = np.bincount(self.labels, minlength=self.classes)
        if counts.min() == 0:
            empty = [name for name, count in zip(self.class_names, counts, strict=True) if count == 0]
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            raise BadData(
                f"{self.name}/{self.split} has no image of class {', '.join(map(repr, empty[:3]))}{more}; "
                "a figure per class needs at least one of each"
            )
        return self


def images_from_arrays(
    name: str, split: str, pixels: npt.ArrayLike, labels: npt.ArrayLike, class_names: Sequence[str]
) -> Images:
    """A user's own arrays as images.

    Args:
        name: of the data set.
        split: of it.
        pixels: (N,C,H,W) or (N,H,W), uint8, or float in [0, 1].
        labels: (N,) class indices.
        class_names: K names.

    Raises:
        BadData: shapes that do not fit, pixels that are NaN or outside [0, 1], labels outside the classes.
    """
    where = f"{name}/{split}"
    try:
        x, y = np.asarray(pixels), np.asarray(labels)
    except ValueError:
        raise BadData(f"{where}: pixels or labels are ragged; wanted (N,C,H,W) and (N,)") from None
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or y.ndim != 1 or len(x) != len(y) or 0 in x.shape:
        raise BadData(
            f"{where}: pixels {x.shape} and labels {y.shape} do not fit; wanted (N,C,H,W) and (N,), none of them 0"
        )
    if x.dtype != np.uint8:
        if not np.issubdtype(x.dtype, np.floating):
            raise BadData(f"{where}: pixels are {x.dtype}; wanted uint8, or floats in [0, 1]")
        if np.isnan(x).any():
            row = int(np.argwhere(np.isnan(x))[0, 0])
            raise BadData(f"{where}: image {row} has pixels that are NaN; wanted numbers in [0, 1], clean the data")
        if x.min() < 0 or x.max() > 1:
            raise BadData(f"{where}: pixels lie in [{x.min():g}, {x.max():g}]; wanted [0, 1], normalise in the model")
        x = x.astype(np.float32)
    if not 2 <= len(class_names) <= MOST_CLASSES:
        raise BadData(
            f"{where}: the number of classes is {len(class_names)}; wanted 2 to {MOST_CLASSES}, choose other data"
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise BadData(f"{where}: labels are {y.dtype}; wanted whole numbers from 0 to {len(class_names) - 1}")
    outside = np.flatnonzero((y < 0) | (y >= len(class_names)))
    if len(outside):
        row = int(outside[0])
        raise BadData(
            f"{where}: image {row} has label {int(y[row])}, outside the {len(class_names)} classes; "
            f"wanted 0 to {len(class_names) - 1}, take out the images without a label or name all classes"
        )
    rows = np.arange(len(x), dtype=np.uint32)
    return Images(name, split, x, y.astype(np.uint16), rows, tuple(map(str, class_names)))
