"""Adversarial images from a file, our own or anyone's, as evidence: an attack that has its images already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from torch import Tensor, nn

from bench.attacks.base import Attack, Attributed
from bench.attacks.external import without_rounding
from bench.data.images import Images
from bench.errors import BadData, brief
from bench.evaluation.adversarials import FORMAT, RECORD
from bench.norms import Norm
from bench.randomness import Streams
from bench.unpacking import check_size, check_zip

SUFFIXES = (".safetensors", ".npz", ".npy", ".pt", ".pth")


class Gathered(NamedTuple):
    """What a file holds.

    Attributes:
        sample: (N,) int64, row of each image in the data set's split.
        images: (N,C,H,W) pixels, float in [0, 1] or uint8; or perturbations.
        perturbations: whether they are to be added to the clean images.
    """

    sample: npt.NDArray[np.int64]
    images: Tensor
    perturbations: bool

    def select(self, rows: npt.NDArray[np.intp]) -> Gathered:
        """Some of them."""
        return Gathered(self.sample[rows], self.images[torch.from_numpy(rows)], self.perturbations)


@dataclass(frozen=True)
class Evidence(Attack):
    """Images that are there already, for some samples; all others stay clean. It asks the model nothing.

    Rounding of up to 1e-6 outside the ball or the box is brought back, as for attacks of other libraries.

    Attributes:
        sha256: hash of the images and of the samples that they stand for.
    """

    sha256: str

    @classmethod
    def of(cls, found: Gathered) -> Evidence:
        """The attack that proposes what was found."""
        found = found.select(np.argsort(found.sample))
        digest = hashlib.sha256(f"{found.images.dtype} {tuple(found.images.shape)} {found.perturbations}".encode())
        digest.update(found.sample.astype("<i8").tobytes())
        for image in found.images:
            digest.update(image.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        evidence = cls(digest.hexdigest())
        object.__setattr__(evidence, "_found", found)  # no field: in the fingerprint, the hash stands for it
        return evidence

    @property
    def found(self) -> Gathered:
        """The images, by ascending sample."""
        found: Gathered = self.__dict__["_found"]
        return found

    def covers(self, images: Images) -> int:
        """How many of some images it has something for."""
        return int(np.isin(images.sample, self.found.sample).sum())

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams
    ) -> Attributed:
        """The images of these samples, which it claims all."""
        held, wanted = torch.from_numpy(self.found.sample), streams.samples.cpu()
        place = torch.searchsorted(held, wanted).clamp(max=len(held) - 1)
        has = (held[place] == wanted).to(x.device)[:, None, None, None]
        there = self.found.images[place].to(x.device)
        pixels = there.to(x.dtype) / 255 if there.dtype == torch.uint8 else there.to(x.dtype)
        adv = (x + pixels if self.found.perturbations else pixels).where(has, x)
        none = torch.zeros_like(y)
        return Attributed(without_rounding(adv, x, eps, norm), none, none, none)


def evidence_in(path: Path, images: Images) -> Evidence:
    """The adversarial images in a file, or in an attack's folder as `adversarials.py` makes it.

    A file holds images (N,C,H,W), float in [0, 1] or uint8, under any name if there is no other array of four
    dimensions, else as `images`; beside it may be `sample`, the row of each in the data set's split. Without it, the
    images are those of the data set, all and in their order. Nothing in a file is executed.

    Raises:
        BadData: no such file, of another kind, damaged, of another shape or data set, or for none of the samples.
    """
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise BadData(
                f"{path} holds no .safetensors files; name a file of images, or the folder of one attack that "
                "--keep-adversarials made"
            )
        found = joined([read(file, images) for file in files], path)
    else:
        found = read(path, images)
    samples, counts = np.unique(found.sample, return_counts=True)
    if (counts > 1).any():
        raise BadData(f"{path} holds sample {samples[counts > 1][0]} more than once; keep one image of each")
    evidence = Evidence.of(found)
    if not evidence.covers(images):
        raise BadData(f"{path} holds no image of the {len(images)} samples of {images.name}/{images.split} to evaluate")
    return evidence


def joined(parts: list[Gathered], path: Path) -> Gathered:
    """The files of a folder as one; of a sample that is in more than one, the first counts."""
    if not all(part.perturbations for part in parts):
        raise BadData(f"{path} holds files that --keep-adversarials did not write; name a single file of images")
    whole = Gathered(np.concatenate([part.sample for part in parts]), torch.cat([part.images for part in parts]), True)
    return whole.select(np.unique(whole.sample, return_index=True)[1])


def read(path: Path, images: Images) -> Gathered:
    """What one file holds.

    Raises:
        BadData: see `evidence_in`.
    """
    if not path.is_file():
        raise BadData(f"no adversarial images at {path}; name a file of them, {', '.join(SUFFIXES)}")
    if path.suffix not in SUFFIXES:
        raise BadData(f"{path} is no file of images that can be read; wanted one of {', '.join(SUFFIXES)}")
    try:
        arrays, record = loaded(path)
        check_size(path, sum(array.numel() * array.element_size() for array in arrays.values()))
    except BadData:
        raise
    except PermissionError as problem:
        raise BadData(f"{path} cannot be read ({problem.strerror}); mend its permissions") from None
    except Exception as problem:  # of a damaged file, whatever its library raises
        said = brief(str(problem)) or type(problem).__name__
        if "pickle" in said:  # numpy and torch would advise to load it nevertheless
            said = "it is damaged, or holds objects of Python"
        raise BadData(f"{path} cannot be read ({said}); it must hold arrays of numbers and nothing else") from None
    pixels = kept(path, arrays, record, images) if record else offered(path, arrays)
    if pixels.shape[1:] != images.shape:
        raise BadData(
            f"{path} holds images of shape {tuple(pixels.shape[1:])}, {images.name} has {images.shape}; choose images "
            "of these data"
        )
    return Gathered(samples(path, arrays, len(pixels), images), pixels, bool(record))


def loaded(path: Path) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """A file's arrays by name, and the record of images kept here, or {}; nothing in it is executed."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get(RECORD, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118  # it is no dict
    check_zip(path)
    if path.suffix in (".pt", ".pth"):
        held = torch.load(path, map_location="cpu", weights_only=True)
        named = held if isinstance(held, Mapping) else {"images": held}
        return {str(name): value.detach() for name, value in named.items() if isinstance(value, Tensor)}, {}
    with path.open("rb") as opened:  # numpy leaves a file open that is damaged
        held = np.load(opened, allow_pickle=False)
        arrays = {"images": held} if path.suffix == ".npy" else {name: held[name] for name in held}
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind in "biuf"}, {}


def kept(path: Path, arrays: Mapping[str, Tensor], record: Mapping[str, Any], images: Images) -> Tensor:
    """The perturbations of a file that `adversarials.py` wrote.

    Raises:
        BadData: by a newer version, of other data, or damaged.
    """
    if record.get("format", 0) > FORMAT:
        raise BadData(f"{path} has format {record['format']}, this version reads {FORMAT}; upgrade evenbench")
    of = (record.get("dataset"), record.get("split"))
    if of != (images.name, images.split):
        raise BadData(
            f"{path} was kept for {of[0]}/{of[1]}, not for {images.name}/{images.split}; choose data that fit"
        )
    if not {"delta", "sample"} <= arrays.keys() or arrays["delta"].ndim != 4:
        raise BadData(f"{path} lacks the perturbations that its record promises; it is damaged, make it again")
    return arrays["delta"]


def offered(path: Path, arrays: Mapping[str, Tensor]) -> Tensor:
    """The array that holds the images of somebody's file.

    Raises:
        BadData: there is none, or more than one and none called `images`, or of no pixels.
    """
    candidates = {name: array for name, array in arrays.items() if array.ndim == 4}
    if "images" in candidates:
        candidates = {"images": candidates["images"]}
    if len(candidates) != 1:
        what = ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items()) or "no array"
        raise BadData(f"{path} holds {what}; wanted one array of images (N,C,H,W), or one of them called 'images'")
    (pixels,) = candidates.values()
    if pixels.dtype != torch.uint8 and not pixels.dtype.is_floating_point:
        raise BadData(f"{path} holds images of {pixels.dtype}; wanted floats in [0, 1], or uint8")
    return pixels


def samples(path: Path, arrays: Mapping[str, Tensor], n: int, images: Images) -> npt.NDArray[np.int64]:
    """Which samples the n images stand for.

    Raises:
        BadData: it is not said and they are not as many as the data set's, or it is said for others.
    """
    if "sample" not in arrays:
        if n != len(images):
            raise BadData(
                f"{path} holds {n} images, {images.name}/{images.split} is evaluated on {len(images)}; add an array "
                "'sample', the row of each in the split"
            )
        return images.sample.astype(np.int64)
    sample = arrays["sample"]
    if sample.shape != (n,) or sample.dtype.is_floating_point or sample.dtype == torch.bool:
        raise BadData(
            f"{path} has a 'sample' of shape {tuple(sample.shape)} and {sample.dtype}; wanted {n} whole numbers"
        )
    return sample.numpy().astype(np.int64)
