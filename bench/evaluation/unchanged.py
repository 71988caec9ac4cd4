"""An attack only looks: the model comes out of it as it went in.

One network serves all trials, so what one attack changes about it would weaken every attack after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.trial import Trial
from bench.errors import BadAttack
from bench.evaluation.attacked import MEND
from bench.evaluation.chunk import Chunk

Place = tuple[nn.Module, str]
"""A module, and the name of one of its attributes."""


@contextmanager
def unchanged(networks: Iterable[nn.Module], chunk: Chunk, trial: Trial) -> Iterator[None]:
    """Within, an attack is shown networks; afterwards they are put back as they were, whatever it did to them.

    What a network changes itself when it is asked, such as a count of its calls, is not held against the attack.

    Raises:
        BadAttack: it changed one.
    """
    states = [State.of(network) for network in networks]
    try:
        yield
    finally:
        changes = [state.put_back() for state in states]
    for state, names in zip(states, changes, strict=True):
        if names and (news := sorted(names - state.own_changes(chunk.x[:2]))):
            raise BadAttack(
                f"attack {trial.name!r} changed {news[0]} of the model that it was shown; an attack must leave the "
                f"model as it is; {MEND}"
            )


@dataclass(frozen=True)
class State:
    """What a network was like.

    Attributes:
        network: it.
        tensors: its parameters and buffers, and their values, by the modules that hold them.
        settings: of every module, its own numbers and words, whether it is in training mode, its hooks and its parts.
        asks: which parameters ask for gradients.
    """

    network: nn.Module
    tensors: dict[Place, tuple[Tensor, Tensor]]
    settings: dict[Place, Any]
    asks: list[tuple[nn.Parameter, bool]]

    @classmethod
    def of(cls, network: nn.Module) -> State:
        """What it is like now."""
        tensors = {place: (tensor, tensor.detach().clone()) for place, tensor in held(network).items()}
        return cls(network, tensors, settings(network), [(p, p.requires_grad) for p in network.parameters()])

    def put_back(self) -> set[str]:
        """Make it what it was; the names of what had changed."""
        changed = set()
        for (module, name), was in self.settings.items():
            is_now = vars(module).get(name)
            if (dict(is_now) if isinstance(was, dict) and is_now is not None else is_now) != was:
                changed.add(name.strip("_"))
                if isinstance(was, dict) and is_now is not None:
                    is_now.clear()
                    is_now.update(was)
                else:
                    setattr(module, name, was)
        for parameter, asked in self.asks:
            parameter.requires_grad_(asked)
        now = held(self.network)
        for (module, name), (tensor, value) in self.tensors.items():
            if now.get((module, name)) is tensor and same(tensor, value):
                continue
            changed.add(name)
            holder: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
            holder[name] = tensor
            tensor.data = value.clone()
        return changed

    def own_changes(self, x: Tensor) -> set[str]:
        """The names of what the network changes itself when it is asked about some images, forward and backward."""
        with suppress(Exception), torch.enable_grad():  # a network that fails has changed nothing that counts
            seen = x.detach().clone().requires_grad_()
            answer = self.network(seen.clone())
            if answer.requires_grad:
                answer.sum().backward()
        return self.put_back()


def held(network: nn.Module) -> dict[Place, Tensor]:
    """The parameters and buffers of a network that have values, by the modules that hold them."""
    return {
        (module, name): tensor
        for module in network.modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and not tensor.is_meta
    }


def settings(network: nn.Module) -> dict[Place, Any]:
    """What else an attack could change of a network, by the modules that hold it."""
    found: dict[Place, Any] = {}
    for module in network.modules():
        for name, value in vars(module).items():
            if isinstance(value, int | float | str | type(None)):
                found[module, name] = value
            elif name == "_modules" or (name.endswith("_hooks") and isinstance(value, dict)):
                found[module, name] = dict(value)
    return found


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal bit by bit, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.detach().reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
