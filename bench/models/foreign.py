"""State dicts of other projects, read without executing anything in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import BadCheckpoint

WRAPPERS = ("model", "state_dict", "net", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")


def read_foreign(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt`, `.pth` or `.safetensors` file, freed of wrappers and of DataParallel's prefixes.

    Raises:
        BadCheckpoint: no such file, damaged, holds code, or holds no tensors by name.
    """
    if not path.is_file():
        raise BadCheckpoint(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        if "weights_only" in str(problem) or "Unsupported" in str(problem):
            raise BadCheckpoint(
                f"{path} holds more than tensors and would have to run code to load; save its state_dict() alone"
            ) from None
        raise BadCheckpoint(f"{path} is no torch file of weights; it may be truncated") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as problem:
        line = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise BadCheckpoint(f"{path} cannot be read ({line}); it may be truncated") from None
    while isinstance(found, Mapping) and (inner := [k for k in WRAPPERS if isinstance(found.get(k), Mapping)]):
        found = found[inner[0]]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise BadCheckpoint(f"{path} holds no state dict; wanted tensors by name, or such a dict under 'model'")
    return {bare(str(name)): tensor for name, tensor in found.items()}


def bare(name: str) -> str:
    """A parameter's name without the prefixes of wrappers."""
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name[len(prefix) :]
    return name
