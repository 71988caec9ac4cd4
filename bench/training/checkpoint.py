"""One safetensors file: weights, averaged weights, slot states, and a JSON record of all that determined them.

The record is one metadata entry, so that equal checkpoints are equal bytes. Nothing in the file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bench.errors import BadCheckpoint, brief
from bench.files import whole
from bench.fingerprint import LENGTH, canonical, fingerprint
from bench.models.architecture import Architecture, load_state
from bench.training.record import check_head, check_training

FORMAT = 1
PARTS = ("model", "averaged", "momentum", "targets", "budget", "average", "tally")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A trained or half-trained network.

    Attributes:
        architecture: how to build the network.
        tensors: by part: `model` and `averaged` weights; and, to go on from here, optimizer `momentum`, the slots'
            states `targets` and `budget`, and the `tally` of an epoch in flight. Missing parts are empty.
        judged: which of `model` and `averaged` is evaluated.
        run: JSON of what determined the training: method, preset, variant, recipe, schedule, seed, data, teachers.
        history: per-epoch class vectors, JSON; see `bench.training.validation`.
        epoch: epochs finished.
        step: steps finished of the epoch in flight.
        versions: of the software that trained it, JSON; not part of the identity.
    """

    architecture: Architecture
    tensors: Mapping[str, Tensors]
    judged: str
    run: Mapping[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> Tensors:
        """The judged weights."""
        return self.tensors[self.judged]

    @property
    def checkpoint_id(self) -> str:
        """Hash of the judged weights, the architecture and the run."""
        return weights_id(
            self.weights, {"architecture": asdict(self.architecture), "run": self.run, "epoch": self.epoch}
        )

    @property
    def run_id(self) -> str:
        """Hash of all that determined the training."""
        return fingerprint(self.run)

    def network(self) -> nn.Module:
        """The judged network, frozen, in eval mode, on the CPU."""
        return load_state(self.architecture, self.weights).eval().requires_grad_(False)

    def judged_only(self) -> Checkpoint:
        """Without what only matters for going on with the training."""
        kept = {part: self.tensors[part] for part in ("model", "averaged") if part in self.tensors}
        return replace(self, tensors=kept)


def weights_id(weights: Tensors, about: Any) -> str:
    """Hash of named tensors and of a JSON value that says what they are."""
    digest = hashlib.sha256(canonical(about).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:LENGTH]


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write the file, complete or not at all.

    Raises:
        DiskFull: no space; an older file of that name is untouched.
        BadCheckpoint: the place cannot be written.
    """
    record: dict[str, Any] = {
        "format": FORMAT,
        "checkpoint_id": checkpoint.checkpoint_id,
        "architecture": asdict(checkpoint.architecture),
        "judged": checkpoint.judged,
        "run": checkpoint.run,
        "history": checkpoint.history,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "versions": checkpoint.versions,
    }
    flat = {
        f"{part}/{name}": tensor.detach().cpu().contiguous().clone()
        for part, state in checkpoint.tensors.items()
        for name, tensor in state.items()
    }
    record["digest"] = weights_id(flat, record)
    try:
        with whole(path) as beside:
            safetensors.torch.save_file(flat, beside, {"evenbench": canonical(record)})
    except (OSError, SafetensorError) as problem:
        raise BadCheckpoint(
            f"{path} cannot be written ({problem}); choose another place or mend its permissions"
        ) from None


def read(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        BadCheckpoint: no such file, not one of ours, newer than this version, or damaged.
    """
    if not path.is_file():
        raise BadCheckpoint(
            f"no checkpoint at {brief(str(path))}; 'evenbench train METHOD --out {brief(path.name)}' would make one"
        )
    try:
        path.open("rb").close()  # for the system's own words: safetensors has no others than "No such file"
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # safe_open is no dict
    except OSError as problem:
        raise BadCheckpoint(f"{path} cannot be read ({problem.strerror}); mend its permissions") from None
    except SafetensorError as problem:
        raise BadCheckpoint(
            f"{path} is no readable safetensors file ({brief(str(problem))}); wanted a checkpoint that 'evenbench "
            "train' wrote, and whole: if it was copied it may be truncated, copy it again"
        ) from None
    if "evenbench" not in metadata:
        raise BadCheckpoint(
            f"{path} holds tensors but no evenbench record; name its network with --model to evaluate foreign weights"
        )
    try:
        record = json.loads(metadata["evenbench"])
        if record["format"] > FORMAT:
            raise BadCheckpoint(f"{path} has format {record['format']}, this version reads {FORMAT}; upgrade evenbench")
        digest = record.pop("digest")
        intact = weights_id(flat, record) == digest
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as problem:
        raise BadCheckpoint(
            f"{path} has an evenbench record that cannot be read ({brief(repr(problem))}); it is damaged, restore or "
            "retrain it"
        ) from None
    if not intact:
        raise BadCheckpoint(
            f"{path} does not hold what its record says (digest {digest}); it is damaged or was edited, "
            "restore or retrain it"
        )
    tensors: dict[str, Tensors] = {part: {} for part in PARTS}
    for name, tensor in flat.items():
        part, _, rest = name.partition("/")
        tensors.setdefault(part, {})[rest] = tensor
    with _said_of(path):
        check_head(record, [part for part, held in tensors.items() if held])
        if strange := tensors.keys() - set(PARTS):
            raise ValueError(f"it has tensors called {brief(repr(min(strange)))}")
    stored = record["architecture"]
    return Checkpoint(
        Architecture(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])}),
        tensors,
        record["judged"],
        record["run"],
        record["history"],
        record["epoch"],
        record["step"],
        record["versions"],
    )


def read_trained(path: Path) -> Checkpoint:
    """Read and verify a checkpoint, and what it says of its training.

    Raises:
        BadCheckpoint: as `read`, or its record is no training's.
    """
    checkpoint = read(path)
    with _said_of(path):
        check_training(checkpoint.run, checkpoint.history, checkpoint.architecture.classes)
    return checkpoint


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """What is wrong with a record, as an error about its file."""
    try:
        yield
    except ValueError as problem:
        raise BadCheckpoint(
            f"{path} has an evenbench record that no training wrote: {problem}; restore or retrain it"
        ) from None
