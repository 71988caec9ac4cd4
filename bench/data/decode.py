"""Encoded images (PNG, JPEG, WebP, ...) to one array of pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from bench.errors import BadData, brief

BLOCK = 256
"""Images that a thread decodes at a time."""
GREY = ("1", "L", "LA", "La")
DEEP = ("I", "F")
"""First letters of Pillow's modes with more than 8 bits a channel, which would be clipped, not scaled."""


def decode(encoded: Sequence[bytes | Path], called: Callable[[int], str]) -> npt.NDArray[np.uint8]:
    """Pixels (N,C,H,W) of images, or of files of them, in the order given.

    C is 1 where all are grey, else 3; transparency is dropped.

    Args:
        encoded: N of them, at least one.
        called: what to call the i-th in a message.

    Raises:
        BadData: one cannot be read, has more than 8 bits a channel, or differs in size; names the first.
    """
    starts = range(0, len(encoded), BLOCK)

    def block(first: int) -> list[npt.NDArray[np.uint8]]:
        return [picture(item, partial(called, i)) for i, item in enumerate(encoded[first : first + BLOCK], first)]

    pixels: npt.NDArray[np.uint8] | None = None
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for first, arrays in zip(starts, pool.map(block, starts), strict=True):
            if pixels is None:
                pixels = np.empty((len(encoded), arrays[0].shape[0], *arrays[0].shape[1:]), np.uint8)
            for i, array in enumerate(arrays, first):
                if array.shape[1:] != pixels.shape[2:]:
                    (height, width), (tall, wide) = array.shape[1:], pixels.shape[2:]
                    raise BadData(
                        f"{called(i)} is {width}x{height} pixels, {called(0)} is {wide}x{tall}; "
                        "images must be of one size, resize them first"
                    )
                if array.shape[0] > pixels.shape[1]:
                    pixels = np.repeat(pixels, 3, axis=1)
                pixels[i] = array
    if pixels is None:
        raise BadData("there are no images to decode; give at least one")
    return pixels


def picture(encoded: bytes | Path, called: Callable[[], str]) -> npt.NDArray[np.uint8]:
    """Pixels (1,H,W) of a grey image, (3,H,W) of one with colours.

    Raises:
        BadData: it cannot be read, or has more than 8 bits a channel.
    """
    if isinstance(encoded, Path) and encoded.exists() and not encoded.is_file():  # a pipe may never end
        raise BadData(f"{called()} is no file; take it out of the folder, or name it otherwise")
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            mode = image.mode
            pixels: npt.NDArray[Any] = np.asarray(_plain(image)) if not mode.startswith(DEEP) else np.empty(0)
    except PermissionError as problem:
        raise BadData(f"{called()} cannot be read ({problem.strerror}); mend its permissions") from None
    except UnidentifiedImageError:
        raise BadData(
            f"{called()} is no image in a format that Pillow reads; take it out or encode it as PNG"
        ) from None
    except Exception as problem:  # decoders raise whatever damaged bytes lead them to
        what = brief(str(problem)) or type(problem).__name__
        raise BadData(f"{called()} cannot be decoded ({what}); it may be truncated, fetch it again") from None
    if mode.startswith(DEEP):
        raise BadData(f"{called()} has more than 8 bits a channel (Pillow mode {mode}); convert it to 8 bits first")
    return np.asarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), np.uint8)


def _plain(image: Image.Image) -> Image.Image:
    """The image as 'L' or 'RGB'."""
    wanted = "L" if image.mode in GREY else "RGB"
    if image.mode == wanted:
        return image
    # A palette with transparency cannot go to RGB in one step without Pillow's warning.
    return (image.convert("RGBA") if image.mode == "P" else image).convert(wanted)
