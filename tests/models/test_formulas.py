"""The networks' forward passes, against the same written out from their state dicts."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.architecture import Architecture, build


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode with BatchNorm statistics and scales that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return network.eval()


def norm(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    part = [state[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")]
    return (x - part[0]) / (part[1] + 1e-5).sqrt() * part[2] + part[3]


def reference_wide(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """WRN-10-W written out: in a widening block the shortcut starts after the first activation."""
    out = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        at = f"block{stage}.layer.0."
        active = F.relu(norm(state, at + "bn1", out))
        inner = F.conv2d(active, state[at + "conv1.weight"], stride=stride, padding=1)
        inner = F.conv2d(F.relu(norm(state, at + "bn2", inner)), state[at + "conv2.weight"], padding=1)
        widens = at + "convShortcut.weight"
        out = inner + (F.conv2d(active, state[widens], stride=stride) if widens in state else out)
    pooled = F.relu(norm(state, "bn1", out)).mean((2, 3))
    return pooled @ state["fc.weight"].T + state["fc.bias"]


def reference_preact(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Pre-activation ResNet-18 written out."""
    out = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            at, stride = f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1
            active = F.relu(norm(state, at + "bn1", out))
            inner = F.conv2d(active, state[at + "conv1.weight"], stride=stride, padding=1)
            inner = F.conv2d(F.relu(norm(state, at + "bn2", inner)), state[at + "conv2.weight"], padding=1)
            short = at + "shortcut.0.weight"
            out = inner + (F.conv2d(active, state[short], stride=stride) if short in state else out)
    out = F.relu(norm(state, "bn", out)) if "bn.weight" in state else out
    return out.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def reference_mobile(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """MobileNetV2 written out: no activation after a block's projection, shortcuts wherever the side is kept."""
    out = F.relu(norm(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    for block in range(17):
        at, stride = f"layers.{block}.", 2 if block in (3, 6, 13) else 1
        wide = F.relu(norm(state, at + "bn1", F.conv2d(out, state[at + "conv1.weight"])))
        wide = F.conv2d(wide, state[at + "conv2.weight"], stride=stride, padding=1, groups=wide.shape[1])
        inner = norm(state, at + "bn3", F.conv2d(F.relu(norm(state, at + "bn2", wide)), state[at + "conv3.weight"]))
        if at + "shortcut.0.weight" in state:
            out = norm(state, at + "shortcut.1", F.conv2d(out, state[at + "shortcut.0.weight"]))
        out = inner + out if stride == 1 else inner
    out = F.relu(norm(state, "bn2", F.conv2d(out, state["conv2.weight"])))
    return out.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("wrn-10-1", reference_wide),
        ("wrn-10-2", reference_wide),
        ("preact-resnet-18", reference_preact),
        ("preact-resnet-18-plain", reference_preact),
        ("mobilenet-v2", reference_mobile),
    ],
)
def test_the_forward_pass_is_that_of_the_formula(
    name: str, reference: Callable[[Mapping[str, Tensor], Tensor], Tensor]
) -> None:
    network = shaken(build(Architecture(name, 7, 3))).double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(x), reference(network.state_dict(), x))


def test_convnet_pools_even_sides_as_odd_ones() -> None:
    network = shaken(build(Architecture("convnet-3", 4, 2)))
    x = torch.rand(3, 2, 32, 32)
    out = x
    for i in (1, 2, 3):
        out = F.relu(network.get_submodule(f"bn{i}")(network.get_submodule(f"conv{i}")(out)))
    expected = network.get_submodule("linear")(F.adaptive_avg_pool2d(out, 2).flatten(1))
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("name", ["convnet-6", "resnet-18", "preact-resnet-18", "mobilenet-v2", "wrn-10-1"])
def test_an_image_does_not_hear_of_the_others(name: str) -> None:
    network = build(Architecture(name, 5, 3)).eval()
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[0].sum(), x)
    assert gradient[0].abs().sum() > 0
    assert (gradient[1] == 0).all()
