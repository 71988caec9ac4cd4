from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.folding import fold
from bench.models.architecture import Architecture, build

FOLDED = {
    "convnet-6": 3,
    "resnet-18": 20,
    # Of two in each block only the second follows a convolution directly and alone.
    "preact-resnet-18": 8,
    "mobilenet-v2": 57,
    "wrn-10-1": 3,
}


def lived(network: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with statistics, scales and shifts of BatchNorm as after some training."""
    randomness = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.3), (module.running_var, 0.5), (module.bias, -0.3)):
                if tensor is not None:
                    tensor.data.uniform_(low, low + 0.6, generator=randomness)
            if module.weight is not None:
                module.weight.data.uniform_(0.5, 1.5, generator=randomness)
    return network.eval().requires_grad_(False)


def answers(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and the gradient of a functional of them."""
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    (grad,) = torch.autograd.grad((logits * torch.arange(1, logits.shape[1] + 1)).sum(), leaf)
    return logits.detach(), grad


@pytest.mark.parametrize("name", FOLDED)
def test_own_networks_in_float64(name):
    network = lived(build(Architecture(name, 10, 3, (0.5,) * 3, (0.25,) * 3))).double()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = answers(network, x)
    assert fold(network, x) == FOLDED[name]
    found = answers(network, x)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)
    assert all(not parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_convolution_by_hand():
    # (2 x + 1 - 3) / sqrt(0.75 + 0.25) * 5 + 7 = 10 x - 3
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.25)).eval()
    (conv, bn) = network
    for tensor, value in (
        (conv.weight, 2),
        (conv.bias, 1),
        (bn.running_mean, 3),
        (bn.running_var, 0.75),
        (bn.weight, 5),
        (bn.bias, 7),
    ):
        tensor.data.fill_(value)
    assert fold(network, torch.ones(1, 1, 1, 1)) == 1
    assert isinstance(network[1], nn.Identity)
    assert (network[0].weight.item(), network[0].bias.item()) == (10, -3)


class Net(nn.Module):
    """A way through some layers, by name."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.conv, self.other = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.bn, self.again = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.linear, self.bn1 = nn.Linear(2 * 16, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.way(self, x)

    def head(self, h):
        return self.linear(h.flatten(1))


def in_place(net, x):
    h = net.conv(x)
    F.relu_(h)
    return net.head(net.bn(h))


def twice(net, x):
    h = net.conv(x)
    return net.head(net.bn(h) + h)


def thrice_shaped(net, x):
    """BatchNorm over the second of three dimensions, where the layer's channels are the third."""
    h = nn.functional.pad(x, (0, 0)).reshape(len(x), 1, 32).expand(-1, 4, -1)
    return net.bn1(net.linear(h)).sum(2)


def in_train_mode(net, x):
    net.bn.train()
    h = net.bn(net.conv(x))
    net.bn.eval()
    return net.head(h)


WAYS = {
    "conv": (lambda net, x: net.head(net.bn(net.conv(x))), 1),
    "linear": (lambda net, x: net.bn1(net.head(net.conv(x))), 1),
    "both": (lambda net, x: net.bn1(net.head(net.bn(net.conv(x)))), 2),
    "two in a row": (lambda net, x: net.head(net.again(net.bn(net.conv(x)))), 1),
    "functional between": (lambda net, x: net.head(net.bn(F.relu(net.conv(x)))), 0),
    "in place between": (in_place, 0),
    "before": (lambda net, x: net.head(net.conv(net.bn(x))), 0),
    "output used twice": (twice, 0),
    "output into two norms": (lambda net, x: net.head(net.bn(h := net.conv(x)) + net.again(h)), 0),
    "conv called twice": (lambda net, x: net.head(net.bn(net.conv(net.conv(x)))), 0),
    "norm called twice": (lambda net, x: net.head(net.bn(net.conv(x)) + net.bn(net.other(x))), 0),
    "norm called twice in a row": (lambda net, x: net.head(net.bn(net.bn(net.conv(x)))), 0),
    "three dimensions": (thrice_shaped, 0),
    "train mode": (in_train_mode, 0),
    "detached": (lambda net, x: net.head(net.bn(net.conv(x.detach()))), 0),
    "unused": (lambda net, x: (net.bn(net.conv(x)), net.head(net.other(x)))[1], 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_follows_the_pattern_is_folded_and_nothing_else(way):
    forward, folds = WAYS[way]
    torch.manual_seed(0)
    network = lived(Net(forward)).double()
    x = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    wanted = copy.deepcopy(network)(x)
    assert fold(network, x) == folds
    torch.testing.assert_close(network(x), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{"affine": False}, {"momentum": None}, {"eps": 0.1}])
def test_kinds_of_batch_norm(options):
    network = lived(nn.Sequential(nn.Conv2d(2, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4, **options))).double()
    x = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    wanted = network(x)
    assert fold(network, x) == 1
    torch.testing.assert_close(network(x), wanted, rtol=1e-10, atol=1e-12)


def test_without_running_statistics_nothing_can_be_folded():
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert fold(network, torch.rand(3, 2, 4, 4)) == 0


def test_subclasses_are_left_alone():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    network = nn.Sequential(Doubled(2, 4, 3), nn.BatchNorm2d(4)).eval()
    assert fold(network, torch.rand(3, 2, 4, 4)) == 0


def test_one_batch_norm_under_two_names_is_replaced_under_both():
    network = lived(Net(lambda net, x: net.head(net.alias(net.conv(x)))))
    network.alias = network.bn
    x = torch.rand(3, 2, 4, 4)
    wanted = network(x)
    assert fold(network, x) == 1
    torch.testing.assert_close(network(x), wanted)


def test_a_weight_that_two_layers_share_changes_in_one():
    network = lived(Net(lambda net, x: net.head(net.third(net.bn(net.conv(x))))))
    network.third = nn.Conv2d(2, 2, 3, padding=1)
    network.third.weight = network.conv.weight
    x = torch.rand(3, 2, 4, 4)
    wanted = network(x)
    assert fold(network, x) == 1
    torch.testing.assert_close(network(x), wanted)


def test_hooks_go_even_after_an_error():
    def fail(net, x):
        net.bn(net.conv(x))
        raise KeyError

    network = Net(fail).eval()
    with pytest.raises(KeyError):
        fold(network, torch.rand(1, 2, 4, 4))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
