"""Images: pixels held once, labels, and which row of its split each image is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.errors import BadData
from bench.identity import LENGTH, canonical

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Images:
    """A split of a data set, or a named subset of it.

    Attributes:
        name: of the data set.
        split: of it.
        subset: '' for the whole split, else 'n=100,seed=0'.
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
            digest.update(np.ascontiguousarray(self.pixels[first : first + 4096]).tobytes())
        digest.update(self.labels.astype("<u2").tobytes())
        digest.update(self.sample.astype("<u4").tobytes())
        return digest.hexdigest()[:LENGTH]

    def batch(
        self, rows: slice | npt.NDArray[Any], device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Some images: pixels float32 (B,C,H,W) in [0, 1], labels int64 (B,)."""
        import torch

        x = torch.from_numpy(np.ascontiguousarray(self.pixels[rows])).to(device)
        y = torch.from_numpy(self.labels[rows].astype(np.int64)).to(device)
        return (x.to(torch.float32) / 255 if x.dtype == torch.uint8 else x), y

    def select(self, rows: npt.NDArray[Any]) -> Images:
        """The images at some positions, still knowing their rows in the split."""
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], sample=self.sample[rows])

    def take(self, n: int, seed: int) -> Images:
        """A stratified subset of n images, in the order of the split.

        Every class gives its share of n, rounded by largest remainder; which images is a matter of hashes of
        (seed, row), so that it does not change with versions or platforms.

        Raises:
            BadData: n is below 1 or above what there is, or leaves a class without an image.
        """
        if not self.classes <= n <= len(self):
            raise BadData(
                f"a subset of {n} images was asked for; {self.name}/{self.split} has {len(self)} in {self.classes} "
                f"classes, so ask for {self.classes} to {len(self)}"
            )
        chosen = self._stratified(self._shares(n), f"take {seed}")
        return replace(self.select(np.flatnonzero(chosen)), subset=f"n={n},seed={seed}")

    def hold_out(self, fraction: float, seed: int) -> tuple[Images, Images]:
        """The images without a stratified share of them, and that share.

        Args:
            fraction: of each class, rounded, at least one image.
            seed: which images.

        Raises:
            BadData: a class has fewer than two images.
        """
        counts = np.bincount(self.labels, minlength=self.classes)
        if counts.min() < 2:
            short = self.class_names[int(counts.argmin())]
            raise BadData(
                f"class {short!r} of {self.name}/{self.split} has {counts.min()} images; 2 are needed to hold out 1"
            )
        shares = np.clip(np.rint(counts * fraction).astype(int), 1, counts - 1)
        held = self._stratified(shares, f"hold out {seed}")
        return self.select(np.flatnonzero(~held)), self.select(np.flatnonzero(held))

    def _shares(self, n: int) -> npt.NDArray[np.int64]:
        """(K,) how many of n images each class gives: at least one, by largest remainder, ties to the lower class."""
        counts = np.bincount(self.labels, minlength=self.classes)
        exact = counts * n / len(self)
        shares = np.clip(np.floor(exact).astype(np.int64), np.minimum(counts, 1), counts)
        while (missing := n - int(shares.sum())) != 0:
            room = shares < counts if missing > 0 else shares > 1
            order = np.argsort(-np.where(room, exact - shares, -np.inf) * np.sign(missing), kind="stable")
            candidates = [k for k in order if room[k]]
            for k in candidates[: abs(missing)]:
                shares[k] += np.sign(missing)
        return shares

    def _stratified(self, shares: npt.NDArray[Any], purpose: str) -> npt.NDArray[np.bool_]:
        """(N,) the images of each class with the lowest hashes."""
        rank = np.array([hashlib.sha256(f"{purpose}/{row}".encode()).digest()[:8] for row in self.sample.tolist()])
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
    x, y = np.asarray(pixels), np.asarray(labels)
    where = f"{name}/{split}"
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or y.ndim != 1 or len(x) != len(y) or len(x) == 0:
        raise BadData(
            f"{where}: pixels {x.shape} and labels {y.shape} do not fit; wanted (N,C,H,W) and (N,), N above 0"
        )
    if x.dtype != np.uint8:
        if not np.issubdtype(x.dtype, np.floating):
            raise BadData(f"{where}: pixels are {x.dtype}; wanted uint8, or floats in [0, 1]")
        x = x.astype(np.float32)
        if np.isnan(x).any():
            raise BadData(
                f"{where}: image {int(np.argwhere(np.isnan(x))[0, 0])} has pixels that are NaN; clean the data"
            )
        if x.min() < 0 or x.max() > 1:
            raise BadData(f"{where}: pixels lie in [{x.min():g}, {x.max():g}]; wanted [0, 1], normalise in the model")
    if len(class_names) < 2 or len(class_names) > 65536:
        raise BadData(f"{where}: {len(class_names)} classes; at least 2 are needed")
    if not np.issubdtype(y.dtype, np.integer):
        raise BadData(f"{where}: labels are {y.dtype}; wanted whole numbers from 0 to {len(class_names) - 1}")
    outside = np.flatnonzero((y < 0) | (y >= len(class_names)))
    if len(outside):
        row = int(outside[0])
        raise BadData(f"{where}: label {int(y[row])} of image {row} is outside the {len(class_names)} classes")
    rows = np.arange(len(x), dtype=np.uint32)
    return Images(name, split, x, y.astype(np.uint16), rows, tuple(map(str, class_names)))
