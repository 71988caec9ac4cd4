"""Networks by name: pixels in [0, 1] in, logits out; normalisation is inside.

convnet-W            a small network of width W, for small images
resnet-18            CIFAR ResNet-18
preact-resnet-18     pre-activation ResNet-18, with the last BatchNorm of Rice et al., AWP and CFA
preact-resnet-18-plain   the same without it, as in kuangliu/pytorch-cifar
mobilenet-v2         MobileNetV2
wrn-D-W              wide ResNet, such as wrn-34-10
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import BadCheckpoint, BadModel, UnknownName
from bench.models.convnet import ConvNet
from bench.models.mobilenet import MobileNetV2
from bench.models.normalize import Normalize
from bench.models.resnet import PlainPreActResNet18, PreActResNet18, ResNet18
from bench.models.wideresnet import WideResNet

FAMILIES: Mapping[str, Callable[..., nn.Module]] = {
    r"convnet-([1-9]\d*)": ConvNet,
    r"resnet-18": ResNet18,
    r"preact-resnet-18": PreActResNet18,
    r"preact-resnet-18-plain": PlainPreActResNet18,
    r"mobilenet-v2": MobileNetV2,
    r"wrn-([1-9]\d*)-([1-9]\d*)": WideResNet,
}
"""Spelling and class; the numbers in the spelling follow the common arguments."""

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
        lengths = {len(self.mean), len(self.std)}
        if lengths not in ({0}, {self.channels}) or not all(s > 0 for s in self.std):
            raise BadModel(f"mean {self.mean} and std {self.std} must have {self.channels} entries each, std above 0")


def model_names() -> dict[str, str]:
    """What can be named, with a line on each."""
    return {
        "convnet-W": "small convnet of width W for small images, such as convnet-6",
        "resnet-18": "ResNet-18 for 32x32 images",
        "preact-resnet-18": "pre-activation ResNet-18 for 32x32 images, with a last BatchNorm",
        "preact-resnet-18-plain": "pre-activation ResNet-18 for 32x32 images, without one",
        "mobilenet-v2": "MobileNetV2 for 32x32 images",
        "wrn-D-W": "wide ResNet of depth D = 6n+4 and width W, such as wrn-34-10",
    }


def _parsed(name: str) -> tuple[Callable[..., nn.Module], list[int]]:
    for spelling, kind in FAMILIES.items():
        if match := re.fullmatch(spelling, name):
            numbers = [int(number) for number in match.groups()]
            if kind is not WideResNet or (numbers[0] > 4 and numbers[0] % 6 == 4):
                return kind, numbers
    examples = ["convnet-6", "resnet-18", "preact-resnet-18", "preact-resnet-18-plain", "mobilenet-v2", "wrn-34-10"]
    raise UnknownName.among("model", name, examples, "'evenbench list models'")


def check_name(name: str) -> None:
    """Refuse a name that no network has.

    Raises:
        UnknownName: none is called so.
    """
    _parsed(name)


def build(architecture: Architecture, seed: int = 0) -> nn.Module:
    """A fresh network; the same weights for the same seed, and the global randomness untouched."""
    kind, numbers = _parsed(architecture.name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        normalize = Normalize(architecture.mean, architecture.std)
        return kind(architecture.classes, architecture.channels, normalize, *numbers)


def load_state(architecture: Architecture, state: Mapping[str, Tensor]) -> nn.Module:
    """The network with given weights.

    Accepted besides exact ones: state dicts without BatchNorm's counters (as of old versions of torch), with weights
    that the network's release carries unused, and with the very statistics of the architecture.

    Raises:
        BadCheckpoint: names or shapes differ; the message says which.
    """
    network = build(architecture)
    wanted = network.state_dict()
    _check_statistics(architecture, state)
    passed_over = (*STATISTICS, *getattr(network, "unused", ()))
    found = {name: tensor for name, tensor in state.items() if not name.startswith(passed_over)}
    counters = {name: tensor for name, tensor in wanted.items() if name.endswith(".num_batches_tracked")}
    found = {**counters, **found}
    if misfit := _misfit(wanted, found):
        raise BadCheckpoint(
            f"weights do not fit {architecture.name} with {architecture.classes} classes and "
            f"{architecture.channels} channels: they {misfit}; name the network and the data they were made for"
        )
    network.load_state_dict(found)
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
