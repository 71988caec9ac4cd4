"""BatchNorm folded into the convolution or linear layer before it: less work in every pass, the same logits.

Which layer feeds which is found by watching a forward pass, so that it works for any network. What does not fit the
pattern stays as it is.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils.hooks import RemovableHandle

Layer = nn.Conv2d | nn.Linear
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
LAYERS, BATCH_NORMS = (nn.Conv2d, nn.Linear), (nn.BatchNorm1d, nn.BatchNorm2d)
"""Exactly these classes: a subclass may compute something else."""


def fold(network: nn.Module, probe: Tensor) -> int:
    """Fold every BatchNorm into the layer that feeds it, if that layer feeds nothing else.

    Both must be called exactly once, in eval mode and with running statistics. A use of the layer that lets no gradient
    through, or that other images than the probe would cause, is not noticed: compare the result with the original.

    Args:
        network: pixels to logits, in eval mode; changed in place.
        probe: (B,C,H,W) images to watch it with.

    Returns:
        How many were folded.

    Source: torch.nn.utils.fusion; computed in float64 here, so that the weights are rounded once.
    """
    pairs = _Watch(network, probe).pairs()
    for layer, bn in pairs:
        _absorb(layer, bn)
    folded = {bn for _, bn in pairs}
    for name, module in [*network.named_modules(remove_duplicate=False)]:
        if module in folded:
            network.set_submodule(name, nn.Identity().eval())
    return len(pairs)


class _Watch:
    """Finds out in one forward pass what feeds what. A tensor is recognised by the graph node that made it."""

    def __init__(self, network: nn.Module, probe: Tensor) -> None:
        self._calls: Counter[nn.Module] = Counter()
        self._made: dict[Node, Layer] = {}
        self._fed: list[tuple[BatchNorm, Node]] = []
        handles: list[RemovableHandle] = []
        try:
            for module in network.modules():
                if type(module) in LAYERS:
                    handles.append(module.register_forward_hook(self._after_layer))
                elif type(module) in BATCH_NORMS:
                    handles.append(module.register_forward_pre_hook(self._before_batch_norm))
            with torch.enable_grad():
                # A copy of the leaf: the network may work in place.
                self._logits: Tensor = network(probe.detach().requires_grad_().clone())
        finally:
            for handle in handles:
                handle.remove()

    def _after_layer(self, layer: Layer, inputs: object, output: Tensor) -> None:
        self._calls[layer] += 1
        if output.grad_fn is not None and (isinstance(layer, nn.Conv2d) or output.ndim == 2):
            self._made[output.grad_fn] = layer

    def _before_batch_norm(self, bn: BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        self._calls[bn] += 1
        # What has worked in place on the layer's output meanwhile has put a node of its own there.
        node = inputs[0].grad_fn
        if node is not None and not bn.training and bn.running_mean is not None:
            self._fed.append((bn, node))

    def pairs(self) -> list[tuple[Layer, BatchNorm]]:
        """Each layer with the BatchNorm that can be folded into it."""
        uses = self._uses()
        return [
            (self._made[node], bn)
            for bn, node in self._fed
            if node in self._made and self._calls[self._made[node]] == self._calls[bn] == uses[node] == 1
        ]

    def _uses(self) -> Counter[Node]:
        """How often each node is used by others on the way to the logits."""
        uses: Counter[Node] = Counter()
        seen: set[Node] = set()
        ahead = [self._logits.grad_fn]
        while ahead:
            node = ahead.pop()
            if node is not None and node not in seen:
                seen.add(node)
                before = [source for source, _ in node.next_functions if source is not None]
                uses.update(before)
                ahead.extend(before)
        return uses


def _absorb(layer: Layer, bn: BatchNorm) -> None:
    """Make one layer of layer and BatchNorm, in place."""
    wide, bn = copy.deepcopy(layer).double(), copy.deepcopy(bn).double()
    fused = fuse_conv_bn_eval(wide, bn) if isinstance(wide, nn.Conv2d) else fuse_linear_bn_eval(wide, bn)
    fused = fused.to(layer.weight.dtype)
    layer.weight, layer.bias = fused.weight, fused.bias
