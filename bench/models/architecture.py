"""Networks by name: pixels in [0, 1] in, logits out; normalisation is inside. A new one is one entry of `FAMILIES`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import BadCheckpoint, BadModel, UnknownName, brief
from bench.models.convnet import ConvNet
from bench.models.mobilenet import MobileNetV2
from bench.models.normalize import Normalize
from bench.models.resnet import PlainPreActResNet18, PreActResNet18, ResNet18
from bench.models.wideresnet import WideResNet


class Family(NamedTuple):
    """Networks that are named alike."""

    make: Callable[..., nn.Module]
    about: str
    """One line, which `evenbench list models` shows."""
    example: str = ""
    """A name with numbers, where there are any."""
    can_be: Callable[..., bool] = lambda *numbers: True
    """Whether there is one with such numbers."""
    unused: tuple[str, ...] = ()
    """Beginnings of the names of weights that the network's release carries and never uses."""


FAMILIES: Mapping[str, Family] = {
    "convnet-W": Family(ConvNet, "small convnet of width W for small images", "convnet-6"),
    "resnet-18": Family(ResNet18, "ResNet-18 for 32x32 images"),
    "preact-resnet-18": Family(PreActResNet18, "pre-activation ResNet-18 for 32x32 images, with a last BatchNorm"),
    "preact-resnet-18-plain": Family(PlainPreActResNet18, "pre-activation ResNet-18 for 32x32 images, without one"),
    "mobilenet-v2": Family(MobileNetV2, "MobileNetV2 for 32x32 images"),
    "wrn-D-W": Family(
        WideResNet,
        "wide ResNet of depth D = 6n+4 and width W",
        "wrn-34-10",
        lambda depth, width: 4 < depth < 1000 and depth % 6 == 4,
        ("sub_block1.",),
    ),
}
"""By name; a capital letter stands for a number, and the numbers follow the common arguments of `build`."""

MOST = 10**9
"""Weights of the largest network that is built: 4 GB."""
LARGEST = 10**6
"""Numbers in a name, classes and channels above which nothing needs to be counted."""
COUNTER = ".num_batches_tracked"
"""BatchNorm's, which old versions of torch did not have."""
STATISTICS = ("normalize.mean", "normalize.std")


@dataclass(frozen=True)
class Architecture:
    """How to build a network.

    Attributes:
        name: one of `model_names`.
        classes: K, at least 2.
        channels: of the images.
        mean: per channel, of the pixels in [0, 1]; empty for no normalisation.
        std: likewise.

    Raises:
        UnknownName: no network is called so.
        BadModel: classes or statistics that cannot be.
    """

    name: str
    classes: int
    channels: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        check_name(self.name)
        if self.classes < 2 or self.channels < 1:
            raise BadModel(
                f"{self.name} needs 2 classes and 1 channel at least, not {self.classes} and {self.channels}"
            )
        _outline(self.name, self.classes, self.channels)
        lengths = {len(self.mean), len(self.std)}
        if lengths not in ({0}, {self.channels}) or not all(s > 0 for s in self.std):
            raise BadModel(f"mean {self.mean} and std {self.std} must have {self.channels} entries each, std above 0")


def model_names() -> dict[str, str]:
    """What can be named, with a line on each."""
    return {
        name: f"{family.about}, such as {family.example}" if family.example else family.about
        for name, family in FAMILIES.items()
    }


def _parsed(name: str) -> tuple[Family, list[int]]:
    for called, family in FAMILIES.items():
        if match := re.fullmatch(re.sub("[A-Z]", r"([1-9]\\d*)", called), name):
            numbers = [int(number) for number in match.groups()]
            if family.can_be(*numbers):
                return family, numbers
    examples = [family.example or called for called, family in FAMILIES.items()]
    raise UnknownName.among("model", name, examples, "'evenbench list models'")


def check_name(name: str) -> None:
    """Refuse a name that no network has.

    Raises:
        UnknownName: none is called so.
        BadModel: it has too many weights.
    """
    _outline(name, 2, 1)


@lru_cache(maxsize=16)
def _outline(name: str, classes: int, channels: int) -> Mapping[str, Tensor]:
    """What a network's weights are called and their shapes, as tensors without content; nothing is built.

    Raises:
        UnknownName: none is called so.
        BadModel: it has too many weights.
    """
    family, numbers = _parsed(name)
    too_many = f"more than {MOST:.0e} weights"
    if max((*numbers, classes, channels)) <= LARGEST:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network = family.make(classes, channels, Normalize((), ()), *numbers)
        count = sum(weight.numel() for weight in network.parameters())
        if count <= MOST:
            return network.state_dict()
        too_many = f"{count:.2g} weights"
    raise BadModel(
        f"{brief(name)} for {classes} classes and {channels} channels has {too_many}; "
        f"at most {MOST:.0e} are built, name a smaller network"
    )


def build(architecture: Architecture, seed: int = 0) -> nn.Module:
    """A fresh network; the same weights for the same seed, and the global randomness untouched."""
    family, numbers = _parsed(architecture.name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        normalize = Normalize(architecture.mean, architecture.std)
        return family.make(architecture.classes, architecture.channels, normalize, *numbers)


def load_state(architecture: Architecture, state: Mapping[str, Tensor]) -> nn.Module:
    """The network with given weights.

    Accepted besides exact ones: state dicts without BatchNorm's counters (as of old versions of torch), with weights
    that the network's release carries unused, and with the very statistics of the architecture.

    Raises:
        BadCheckpoint: names or shapes differ; the message says which.
    """
    wanted = _outline(architecture.name, architecture.classes, architecture.channels)
    _check_statistics(architecture, state)
    passed_over = (*STATISTICS, *_parsed(architecture.name)[0].unused)
    found = {name: tensor for name, tensor in state.items() if not name.startswith(passed_over)}
    found = {**{name: counter for name, counter in wanted.items() if name.endswith(COUNTER)}, **found}
    if misfit := _misfit(wanted, found):
        raise BadCheckpoint(
            f"weights do not fit {architecture.name} with {architecture.classes} classes and "
            f"{architecture.channels} channels: they {misfit}; name the network and the data they were made for"
        )
    network = build(architecture)  # not before: a file of a few bytes may name a network of any size
    network.load_state_dict({name: tensor for name, tensor in found.items() if not tensor.is_meta}, strict=False)
    return network


def _misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What weights lack, have too many of or have in another shape; '' where they fit."""
    shapes = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    for what, names in (
        ("lack", [name for name in wanted if name not in found]),
        ("have beyond it", [name for name in found if name not in wanted]),
        ("differ in", [f"{name}: {[*found[name].shape]}, wanted {[*wanted[name].shape]}" for name in shapes]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return _in_words(wanted, found, shapes) or f"{what} {', '.join(names[:3])}{more}"
    return ""


def _in_words(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], shapes: list[str]) -> str:
    """The number of classes or channels, where nothing but that differs; else ''."""
    if wanted.keys() != found.keys():
        return ""
    stem = next(name for name, tensor in wanted.items() if tensor.ndim == 4)
    *_, head = (name for name, tensor in wanted.items() if tensor.ndim == 2)
    bias = head.removesuffix("weight") + "bias"
    ends = {stem: (1, "channels"), head: (0, "classes"), bias: (0, "classes")}
    words = []
    for name in shapes:
        if name not in ends or found[name].ndim != wanted[name].ndim:
            return ""
        axis, what = ends[name]
        has, fits = [*found[name].shape], [*wanted[name].shape]
        count = has.pop(axis)
        del fits[axis]
        if has != fits:
            return ""
        words.append(f"are for {count} {what}")
    return " and ".join(dict.fromkeys(words))


def _check_statistics(architecture: Architecture, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that were made for pixels normalised otherwise: dropping the statistics would be silent harm."""
    for name, own in zip(STATISTICS, (architecture.mean, architecture.std), strict=True):
        if name in state:
            theirs = state[name].detach().flatten().tolist()
            if len(theirs) != len(own) or any(abs(a - b) > 1e-6 for a, b in zip(theirs, own, strict=True)):
                raise BadCheckpoint(
                    f"weights come with {name} {[round(a, 4) for a in theirs]}, the network has {list(own)}; "
                    "build it with the same statistics"
                )
