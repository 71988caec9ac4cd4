"""Networks: sizes, parameter names of the releases, normalisation inside, and weights that do not fit."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BadCheckpoint, BadModel, UnknownName
from bench.models.architecture import Architecture, build, check_name, load_state, model_names

SMALL = ["convnet-2", "resnet-18", "preact-resnet-18", "preact-resnet-18-plain", "mobilenet-v2", "wrn-10-1"]
ODD_MEAN, ODD_STD = (0.5, 0.25, 0.125), (0.2, 0.3, 0.4)


def on_meta(name: str, classes: int = 10, channels: int = 3) -> nn.Module:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return build(Architecture(name, classes, channels))


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("resnet-18", 10, 11_173_962),
        ("preact-resnet-18", 10, 11_172_170),
        ("preact-resnet-18-plain", 10, 11_172_170 - 2 * 512),
        ("mobilenet-v2", 10, 2_296_922),
        ("wrn-34-10", 10, 46_160_474),
        ("resnet-18", 200, 11_173_962 + 190 * 513),
        # 9(w + 2w^2 + 8w^2) weights of convolutions, 2 * 7w of normalisations, 10(16w + 1) of the last layer
        ("convnet-6", 10, 9 * (3 * 6 + 10 * 36) + 14 * 6 + 10 * (16 * 6 + 1)),
    ],
)
def test_parameter_counts(name: str, classes: int, count: int) -> None:
    assert sum(p.numel() for p in on_meta(name, classes).parameters()) == count


NAMES = {
    "resnet-18": {
        "conv1.weight": (64, 3, 3, 3),
        "bn1.running_mean": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.shortcut.0.weight": (128, 64, 1, 1),
        "layer2.0.shortcut.1.running_var": (128,),
        "layer4.1.bn2.num_batches_tracked": (),
        "linear.weight": (10, 512),
    },
    "preact-resnet-18": {
        "conv1.weight": (64, 3, 3, 3),
        "layer1.0.bn1.weight": (64,),
        "layer3.0.bn1.weight": (128,),
        "layer3.0.shortcut.0.weight": (256, 128, 1, 1),
        "bn.running_var": (512,),
        "linear.bias": (10,),
    },
    "mobilenet-v2": {
        "conv1.weight": (32, 3, 3, 3),
        "layers.0.conv1.weight": (32, 32, 1, 1),
        "layers.0.shortcut.1.bias": (16,),
        "layers.1.conv2.weight": (96, 1, 3, 3),
        "layers.16.conv3.weight": (320, 960, 1, 1),
        "conv2.weight": (1280, 320, 1, 1),
        "linear.weight": (10, 1280),
    },
    "wrn-34-10": {
        "conv1.weight": (16, 3, 3, 3),
        "block1.layer.0.bn1.weight": (16,),
        "block1.layer.0.convShortcut.weight": (160, 16, 1, 1),
        "block1.layer.4.conv2.weight": (160, 160, 3, 3),
        "block3.layer.0.conv1.weight": (640, 320, 3, 3),
        "bn1.running_mean": (640,),
        "fc.weight": (10, 640),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_the_releases_names(name: str) -> None:
    state = on_meta(name).state_dict()
    assert {key: tuple(state[key].shape) for key in NAMES[name]} == NAMES[name]


@pytest.mark.parametrize(
    ("name", "tensors"), [("resnet-18", 122), ("preact-resnet-18", 107), ("mobilenet-v2", 344), ("wrn-34-10", 191)]
)
def test_the_number_of_tensors(name: str, tensors: int) -> None:
    # per convolution 1, per BatchNorm 5, per linear layer 2
    network = on_meta(name)
    kinds = [type(module) for module in network.modules()]
    expected = kinds.count(nn.Conv2d) + 5 * kinds.count(nn.BatchNorm2d) + 2 * kinds.count(nn.Linear)
    assert len(network.state_dict()) == expected == tensors


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3), (64, 3), (28, 1)])
def test_forward(name: str, side: int, channels: int) -> None:
    network = build(Architecture(name, 7, channels)).eval()
    with torch.no_grad():
        x = torch.rand(2, channels, side, side)
        logits = network(x)
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
        torch.testing.assert_close(network(x[1:]), logits[1:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_normalisation_is_inside(name: str) -> None:
    plain = build(Architecture(name, 5, 3), seed=3).eval()
    inside = build(Architecture(name, 5, 3, ODD_MEAN, ODD_STD), seed=3).eval()
    x = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor(ODD_MEAN).view(1, 3, 1, 1), torch.tensor(ODD_STD).view(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.equal(inside(x), plain((x - mean) / std))
        assert not torch.equal(inside(x), plain(x))
    assert list(inside.state_dict()) == list(plain.state_dict())
    assert not any("normalize" in key for key in inside.state_dict())


def test_normalisation_moves_with_the_network() -> None:
    network = build(Architecture("convnet-2", 5, 3, ODD_MEAN, ODD_STD)).to(torch.float64)
    assert network(torch.rand(2, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_the_wide_block_activates_before_its_shortcut() -> None:
    network = build(Architecture("wrn-10-2", 5, 3)).eval()
    block: Any = network.get_submodule("block2.layer.0")
    x = torch.randn(2, 32, 8, 8)
    with torch.no_grad():
        active = F.relu(block.bn1(x))
        wanted = block.conv2(F.relu(block.bn2(block.conv1(active)))) + F.conv2d(
            active, block.convShortcut.weight, stride=2
        )
        torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_gives_the_weights_and_leaves_the_global_randomness(name: str) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, same, other = (build(Architecture(name, 4, 3), seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    again = build(Architecture(name, 4, 3), 5)
    for a, b, c in zip(one.parameters(), same.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_wide_networks_start_as_released() -> None:
    network = build(Architecture("wrn-10-8", 10, 3))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 10_000]
    for convolution in convolutions:
        fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert not network.state_dict()["fc.bias"].any()


@pytest.mark.parametrize(
    "name", ["resnet-50", "wrn-33-10", "wrn-4-1", "convnet-0", "convnet-", "resnet-18 ", "", "wrn-34"]
)
def test_unknown_networks(name: str) -> None:
    with pytest.raises(UnknownName, match=f"^no model is called '{name}'[^\n]*'evenbench list models' shows all"):
        check_name(name)
    with pytest.raises(UnknownName):
        Architecture(name, 10, 3)


def test_a_near_miss() -> None:
    with pytest.raises(UnknownName, match="did you mean 'resnet-18'"):
        check_name("resnet18")


@pytest.mark.parametrize("name", ["wrn-34-1000000", "convnet-100000", "wrn-994-900", "convnet-99999999999999999999"])
def test_a_network_that_no_memory_holds_is_refused_before_it_is_built(name: str) -> None:
    with pytest.raises(BadModel, match=f"^{name} for .* weights; at most 1e\\+09 are built, name a smaller network$"):
        check_name(name)
    with pytest.raises(BadModel, match="name a smaller network"):
        Architecture("resnet-18", 10**9, 3)


def test_what_does_not_fit_is_told_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*given: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr("bench.models.architecture.build", built)
    with pytest.raises(BadCheckpoint, match="weights do not fit wrn-34-20"):
        load_state(Architecture("wrn-34-20", 10, 3), {"conv1.weight": torch.ones(1)})


def test_names() -> None:
    for name in model_names():
        check_name(name.replace("-D-W", "-16-2").replace("-W", "-3"))


@pytest.mark.parametrize(
    ("classes", "channels", "mean", "std"),
    [
        (1, 3, (), ()),
        (10, 0, (), ()),
        (10, 3, (0.5,), (0.5,)),
        (10, 1, (0.5,), ()),
        (10, 1, (0.5,), (0.0,)),
        (10, 1, (0.5,), (float("nan"),)),
    ],
)
def test_what_cannot_be_built(classes: int, channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(BadModel):
        Architecture("convnet-2", classes, channels, mean, std)


# Weights.


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Weights of convnet-2 for 5 classes and 3 channels, none at its starting value."""
    network = build(Architecture("convnet-2", 5, 3), seed=9)
    return {key: t + 1 if t.is_floating_point() else t + 3 for key, t in network.state_dict().items()}


def test_weights_come_through(state: dict[str, Tensor]) -> None:
    network = load_state(Architecture("convnet-2", 5, 3), state)
    assert all(torch.equal(t, state[key]) for key, t in network.state_dict().items())
    state["conv1.weight"].zero_()
    assert network.state_dict()["conv1.weight"].any()


def test_weights_without_counters(state: dict[str, Tensor]) -> None:
    old = {key: t for key, t in state.items() if not key.endswith("num_batches_tracked")}
    network = load_state(Architecture("convnet-2", 5, 3), old)
    assert torch.equal(network.state_dict()["bn1.running_mean"], state["bn1.running_mean"])


@pytest.mark.parametrize(
    ("classes", "channels", "what"),
    [(7, 3, "are for 5 classes"), (5, 1, "are for 3 channels"), (7, 1, "are for 3 channels and are for 5 classes")],
)
def test_another_number_of_classes_or_channels(
    state: dict[str, Tensor], classes: int, channels: int, what: str
) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        load_state(Architecture("convnet-2", classes, channels), state)
    assert str(caught.value) == (
        f"weights do not fit convnet-2 with {classes} classes and {channels} channels: they {what}; "
        "name the network and the data they were made for"
    )


def test_another_network(state: dict[str, Tensor]) -> None:
    with pytest.raises(
        BadCheckpoint, match=r"^weights do not fit resnet-18 [^\n]*: they lack layer1\.0\.[^\n]* and \d+ more;"
    ):
        load_state(Architecture("resnet-18", 5, 3), state)
    with pytest.raises(BadCheckpoint, match=r"they have beyond it head\.weight; name the network"):
        load_state(Architecture("convnet-2", 5, 3), {**state, "head.weight": torch.zeros(1)})
    with pytest.raises(
        BadCheckpoint, match=r"they differ in conv1\.weight: \[2, 3, 3, 3\], wanted \[4, 3, 3, 3\], [^\n]* more;"
    ):
        load_state(Architecture("convnet-4", 5, 3), state)


def test_preactivation_with_and_without_the_last_norm() -> None:
    state = build(Architecture("preact-resnet-18-plain", 10, 3)).state_dict()
    load_state(Architecture("preact-resnet-18-plain", 10, 3), state)
    with pytest.raises(BadCheckpoint, match=r"they lack bn\.weight, bn\.bias, bn\.running_mean"):
        load_state(Architecture("preact-resnet-18", 10, 3), state)


def test_the_trades_release_carries_a_block_it_never_uses() -> None:
    architecture = Architecture("wrn-10-1", 10, 3)
    state = build(architecture, seed=1).state_dict()
    unused = {key.replace("block1.", "sub_block1."): t + 1 for key, t in state.items() if key.startswith("block1.")}
    network = load_state(architecture, {**state, **unused})
    assert all(torch.equal(t, state[key]) for key, t in network.state_dict().items())
    with pytest.raises(BadCheckpoint, match="have beyond it sub_block1"):
        load_state(Architecture("convnet-2", 10, 3), {**build(Architecture("convnet-2", 10, 3)).state_dict(), **unused})


def test_statistics_among_the_weights(state: dict[str, Tensor]) -> None:
    mean, std = torch.tensor(ODD_MEAN).view(1, 3, 1, 1), torch.tensor(ODD_STD).view(1, 3, 1, 1)
    theirs = {**state, "normalize.mean": mean, "normalize.std": std}
    load_state(Architecture("convnet-2", 5, 3, ODD_MEAN, ODD_STD), theirs)
    for architecture in (Architecture("convnet-2", 5, 3), Architecture("convnet-2", 5, 3, ODD_STD, ODD_STD)):
        with pytest.raises(
            BadCheckpoint, match=r"^weights come with normalize\.mean \[0\.5, 0\.25, 0\.125\], the network"
        ):
            load_state(architecture, theirs)
