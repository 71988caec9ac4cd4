"""What can be evaluated: our checkpoints, a function that returns a network, or foreign weights of a known network."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.budget import parse_eps
from bench.data.images import Images
from bench.errors import BadCheckpoint, BadModel
from bench.fingerprint import canonical
from bench.models.architecture import Architecture, load_state
from bench.models.foreign import read_foreign
from bench.store.rows import CheckpointRow, EpochRow
from bench.training.checkpoint import Checkpoint, read, weights_id
from bench.training.run import Parent, recipe_id


@dataclass(frozen=True)
class Target:
    """Something to evaluate.

    Attributes:
        row: what the store keeps of it.
        epochs: class vectors of its training; empty when unknown.
        network: makes the frozen network, pixels in [0, 1] to logits.
        eps: radius it was trained for, exact text; "" when unknown.
    """

    row: CheckpointRow
    epochs: tuple[EpochRow, ...]
    network: Callable[[], nn.Module]
    eps: str = ""


def of_checkpoint(checkpoint: Checkpoint) -> Target:
    """One of our checkpoints."""
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
    return Target(row, epoch_rows(checkpoint.history), checkpoint.network, run["schedule"]["eps"])


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


def foreign(method: str, model: str, identity: str, provenance: Any, network: Callable[[], nn.Module]) -> Target:
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
    return Target(row, (), network)


def of_function(path: Path, function: str) -> Target:
    """The `nn.Module` that a function in a user's file returns.

    Raises:
        BadModel: the file or function is missing, fails, or returns something else.
    """
    if not path.is_file():
        raise BadModel(f"no file {path}; give file.py:function, the function returning an nn.Module on [0,1] pixels")
    spec = importlib.util.spec_from_file_location(f"evenbench_target_{path.stem}", path)
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
    kind = type(network).__qualname__
    source = hashlib.sha256(path.read_bytes()).hexdigest()
    about = {"source": source, "function": function, "class": kind}
    return foreign(f"{path.name}:{function}", kind, weights_id(network.state_dict(), about), about, lambda: network)


def of_foreign(path: Path, model: str, classes: int, channels: int) -> Target:
    """A state dict of another project, in one of our networks.

    Raises:
        UnknownName: no such network.
        BadCheckpoint: the weights do not fit it.
    """
    architecture = Architecture(model, classes, channels)
    network = load_state(architecture, read_foreign(path)).eval().requires_grad_(False)
    about = {"architecture": asdict(architecture)}
    return foreign(path.stem, model, weights_id(network.state_dict(), about), about, lambda: network)


def resolve(text: str, images: Images, model: str | None = None) -> Target:
    """What a TARGET on the command line names, fitted to the images it will see.

    Raises:
        BadCheckpoint: no such file, damaged, or of other classes or channels.
        BadModel: a user's function that fails.
    """
    file, colon, function = text.rpartition(":")
    if colon and file.endswith(".py"):
        return of_function(Path(file), function)
    path = Path(text)
    if model is not None:
        if not path.is_file():
            raise BadCheckpoint(f"no weights at {path}; name a file written by torch.save or safetensors")
        return of_foreign(path, model, images.classes, images.shape[0])
    if path.suffix == ".py":
        raise BadModel(f"{path} is a Python file; name its function too, {text}:make, which returns an nn.Module")
    if path.suffix in (".pt", ".pth", ".bin", ".pkl"):
        raise BadCheckpoint(f"{path} is a foreign state dict; say with --model which network it belongs to")
    target = of_checkpoint(fitting(read(path), path, images))
    return replace(target, eps=str(parse_eps(target.eps)))


def teacher_of(text: str, images: Images) -> Parent:
    """A teacher for some images: a checkpoint's file, or `FILE@MODEL`, a foreign state dict and its network.

    Raises:
        BadCheckpoint: no such file, damaged, of other classes or channels, or no network for images of this size.
    """
    file, at, model = text.rpartition("@")
    if at and not Path(text).is_file():
        path, architecture = Path(file), Architecture(model, images.classes, images.shape[0])
        if not path.is_file():
            raise BadCheckpoint(f"no weights at {path}; name a file written by torch.save or safetensors")
        identity = of_foreign(path, model, images.classes, images.shape[0]).row.checkpoint_id
        parent = Parent(identity, identity, path, architecture)
    else:
        path = Path(text)
        checkpoint = fitting(read(path), path, images)
        parent = Parent(checkpoint.checkpoint_id, recipe_id(checkpoint.run), path)
    answer_of(parent, images)
    return parent


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
