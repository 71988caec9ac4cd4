"""What can be evaluated: our checkpoints, a network that a user's function returns, foreign weights in one of ours."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bench.budget import parse_eps
from bench.data.images import Images
from bench.errors import BadCheckpoint, BadModel
from bench.fingerprint import canonical
from bench.models.architecture import Architecture, load_state
from bench.models.foreign import read_foreign
from bench.store.rows import CheckpointRow, EpochRow
from bench.training.checkpoint import Checkpoint, read_trained, weights_id
from bench.training.run import Parent, recipe_id


class Origin(Protocol):
    """Where a network comes from, as a value that pickles; a `Parent`, which is a file, is one."""

    def network(self) -> nn.Module:
        """The frozen network, pixels in [0, 1] to logits."""

    def __hash__(self) -> int:
        """It is a value."""


@dataclass(frozen=True)
class InMemory:
    """A network that is there already; it pickles where its class does."""

    module: nn.Module

    def network(self) -> nn.Module:
        """The network."""
        return self.module


@dataclass(frozen=True)
class Network:
    """Something to evaluate, as a value: what the store keeps of it, and where it comes from.

    Attributes:
        row: what the store keeps of it.
        epochs: class vectors of its training; empty when unknown.
        origin: where it comes from.
        eps: radius it was trained for, exact text; "" when unknown.
    """

    row: CheckpointRow
    epochs: tuple[EpochRow, ...]
    origin: Origin
    eps: str = ""

    def module(self) -> nn.Module:
        """The frozen network, pixels in [0, 1] to logits; a process that asks again gets the same one.

        Raises:
            BadCheckpoint: its file is missing, damaged, or no longer what it was.
        """
        return _module(self.origin)


@lru_cache(maxsize=2)
def _module(origin: Origin) -> nn.Module:
    return origin.network()


def of_checkpoint(checkpoint: Checkpoint, path: Path) -> Network:
    """One of our checkpoints, which lies at `path`."""
    run = checkpoint.run
    teachers = run["teachers"]
    row = CheckpointRow(
        checkpoint_id=checkpoint.checkpoint_id,
        method=run["method"],
        variant=run["variant"],
        preset=run["preset"],
        model=checkpoint.architecture.name,
        trained_on=run["data"]["name"],
        seed=run["seed"],
        run_id=checkpoint.run_id,
        recipe_id=recipe_id(run),
        epoch=checkpoint.epoch,
        epochs=run["schedule"]["epochs"],
        selection=run["schedule"]["selection"],
        teacher_id=next(iter(teachers.values()))["checkpoint_id"] if teachers else None,
        recipe=canonical(run["recipe"]),
        schedule=canonical(run["schedule"]),
        provenance=canonical({"data": run["data"], "teachers": teachers, "versions": dict(checkpoint.versions)}),
    )
    origin = Parent(checkpoint.checkpoint_id, row.recipe_id, path)
    return Network(row, epoch_rows(checkpoint.history), origin, run["schedule"]["eps"])


def epoch_rows(history: list[dict[str, Any]]) -> tuple[EpochRow, ...]:
    """A checkpoint's history, a row per epoch, split and class."""
    return tuple(
        EpochRow(
            epoch=entry["epoch"],
            split=entry["split"],
            class_=k,
            n=n,
            hits_clean=None if entry["hits_clean"] is None else entry["hits_clean"][k],
            hits_adv=None if entry["hits_adv"] is None else entry["hits_adv"][k],
        )
        for entry in history
        for k, n in enumerate(entry["n"])
    )


def foreign(method: str, model: str, identity: str, provenance: Any, origin: Origin) -> Network:
    """A network of which only the weights are known."""
    row = CheckpointRow(
        checkpoint_id=identity,
        method=method,
        variant="",
        preset="",
        model=model,
        trained_on="",
        seed=None,
        run_id=None,
        recipe_id=identity,
        epoch=None,
        epochs=None,
        selection="",
        teacher_id=None,
        recipe="{}",
        schedule="{}",
        provenance=canonical(provenance),
    )
    return Network(row, (), origin)


def of_function(path: Path, function: str) -> Network:
    """The `nn.Module` that a function in a user's file returns.

    Raises:
        BadModel: the file or function is missing, fails, or returns something else.
    """
    if not path.is_file():
        raise BadModel(f"no file {path}; give file.py:function, the function returning an nn.Module on [0,1] pixels")
    spec = importlib.util.spec_from_file_location(f"evenbench_network_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadModel(f"{path} is no Python file; give file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as for any import: dataclasses look themselves up there
    sys.path.append(str(path.resolve().parent))  # and its neighbours can be imported
    try:
        spec.loader.exec_module(module)
        maker = getattr(module, function, None)
        if not callable(maker):
            raise BadModel(f"{path} has no function {function!r}; give file.py:function")
        network = maker()
    except BadModel:
        raise
    except (Exception, SystemExit) as problem:  # whatever the user's own code raises
        raise BadModel(
            f"{path}:{function} failed with {type(problem).__name__}: {problem}; mend that file"
        ) from problem
    if not isinstance(network, nn.Module):
        raise BadModel(f"{path}:{function} returned {type(network).__name__}; it must return a torch.nn.Module")
    if any(is_lazy(part) or part.is_meta for part in network.state_dict().values()):
        raise BadModel(
            f"{path}:{function} returned a network with weights that have no values yet; call it once, or load them"
        )
    kind = type(network).__qualname__
    source = hashlib.sha256(path.read_bytes()).hexdigest()
    about = {"source": source, "function": function, "class": kind}
    return foreign(f"{path.name}:{function}", kind, weights_id(network.state_dict(), about), about, InMemory(network))


def of_foreign(path: Path, model: str, classes: int, channels: int) -> Parent:
    """A state dict of another project, in one of our networks.

    Raises:
        UnknownName: no such network.
        BadCheckpoint: no such file, or the weights do not fit the network.
    """
    if not path.is_file():
        raise BadCheckpoint(f"no weights at {path}; name a file written by torch.save or safetensors")
    architecture = Architecture(model, classes, channels)
    weights = load_state(architecture, read_foreign(path)).state_dict()
    identity = weights_id(weights, {"architecture": asdict(architecture)})
    return Parent(identity, identity, path, architecture)


def resolve(text: str, images: Images, model: str | None = None) -> Network:
    """What the command line calls a network, fitted to the images it will see.

    Raises:
        BadCheckpoint: no such file, damaged, or of other classes or channels.
        BadModel: a user's function that fails.
    """
    file, colon, function = text.rpartition(":")
    if colon and file.endswith(".py"):
        return of_function(Path(file), function)
    path = Path(text)
    if model is not None:
        origin = of_foreign(path, model, images.classes, images.shape[0])
        return foreign(path.stem, model, origin.checkpoint_id, {"architecture": asdict(origin.built_as())}, origin)
    if path.suffix == ".py":
        raise BadModel(f"{path} is a Python file; name its function too, {text}:make, which returns an nn.Module")
    if path.suffix in (".pt", ".pth", ".bin", ".pkl"):
        raise BadCheckpoint(f"{path} is a foreign state dict; say with --model which network it belongs to")
    network = of_checkpoint(fitting(read_trained(path), path, images), path)
    return replace(network, eps=str(parse_eps(network.eps)))


def teacher_of(text: str, images: Images) -> Parent:
    """A teacher for some images: a checkpoint's file, or `FILE@MODEL`, a foreign state dict and its network.

    Raises:
        BadCheckpoint: no such file, damaged, of other classes or channels, or no network for images of this size.
    """
    parent = parent_of(text, images)
    answer_of(parent, images)
    return parent


def parent_of(text: str, images: Images) -> Parent:
    """What the command line calls a teacher; see `teacher_of`."""
    path, (file, at, model) = Path(text), text.rpartition("@")
    if at and not path.is_file():
        return of_foreign(Path(file), model, images.classes, images.shape[0])
    checkpoint = fitting(read_trained(path), path, images)
    return Parent(checkpoint.checkpoint_id, recipe_id(checkpoint.run), path)


def answer_of(parent: Parent, images: Images) -> Tensor:
    """(1,K) what a teacher says of a grey image.

    Raises:
        BadCheckpoint: it cannot look at images of this size, or its logits are no numbers.
    """
    grey = torch.full((1, *images.shape), 0.5)
    try:
        with torch.no_grad():
            logits: Tensor = parent.network()(grey)
    except RuntimeError as problem:
        size = "x".join(map(str, images.shape[1:]))
        raise BadCheckpoint(f"{parent.path} fails on images of {size} ({problem}); choose one that fits") from None
    if not logits.isfinite().all():
        raise BadCheckpoint(f"{parent.path} returns NaN or infinite logits; choose another, or mend its weights")
    return logits


def fitting(checkpoint: Checkpoint, path: Path, images: Images) -> Checkpoint:
    """The checkpoint, if its network can look at these images.

    Raises:
        BadCheckpoint: it was made for other classes or channels.
    """
    for what, has, wanted in (
        ("classes", checkpoint.architecture.classes, images.classes),
        ("channels", checkpoint.architecture.channels, images.shape[0]),
    ):
        if has != wanted:
            raise BadCheckpoint(f"{path} was made for {has} {what}, {images.name} has {wanted}; choose data that fit")
    return checkpoint
