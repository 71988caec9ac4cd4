"""State dicts of other projects, read without executing anything in them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import BadCheckpoint, BadData
from bench.unpacking import check_zip

WRAPPERS = ("model", "state_dict", "net", "model_state_dict")
DEPTH = 3
"""Wrappers within wrappers that are opened; a file may hold a dict that holds itself."""
PREFIXES = ("module.", "_orig_mod.")
SIGNS_OF_CODE = ("GLOBAL", "TorchScript", "nsupported class")
"""In messages of torch's weights-only unpickler, when it meets something other than data."""


def read_foreign(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt`, `.pth` or `.safetensors` file, freed of wrappers and of DataParallel's prefixes.

    Raises:
        BadCheckpoint: no such file, damaged, holds code, or holds no tensors by name.
    """
    if not path.is_file():
        raise BadCheckpoint(f"no weights at {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of odd files is said better below
            found = _tensors(path)
    except BadData as problem:
        raise BadCheckpoint(str(problem)) from None
    except PermissionError as problem:
        raise BadCheckpoint(f"{path} cannot be read ({problem.strerror}); mend its permissions") from None
    except Exception as problem:  # damaged bytes lead the unpickler to whatever error
        if any(sign in str(problem) for sign in SIGNS_OF_CODE):
            raise BadCheckpoint(
                f"{path} holds more than tensors and would have to run code to load; save its state_dict() alone"
            ) from None
        raise BadCheckpoint(
            f"{path} cannot be read as weights ({type(problem).__name__}); wanted a state_dict() saved with torch.save "
            "or safetensors; it may be truncated, fetch it again"
        ) from None
    for _ in range(DEPTH):
        if isinstance(found, Mapping) and (inner := [k for k in WRAPPERS if isinstance(found.get(k), Mapping)]):
            found = found[inner[0]]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise BadCheckpoint(f"{path} holds no state dict; wanted tensors by name, or such a dict under 'model'")
    weights = {bare(str(name)): tensor for name, tensor in found.items()}
    if len(weights) < len(found):
        raise BadCheckpoint(f"{path} holds the same names with and without a wrapper's prefix; save one state_dict()")
    return weights


def _tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    check_zip(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def bare(name: str) -> str:
    """A parameter's name without the prefixes of wrappers."""
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name[len(prefix) :]
    return name
