from __future__ import annotations

import copy
import random
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.attacks.prepare import ByUse, own_randomness, prepared, search_model
from bench.evaluation.meter import Bfloat16
from bench.models.architecture import Architecture, build


def network() -> nn.Sequential:
    """In train mode but for one part, one parameter frozen: a state worth coming back to."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()
    model[0].bias.requires_grad_(False)
    return model


def state(model: nn.Module) -> tuple[list[bool], list[bool], bool]:
    modes = [module.training for module in model.modules()]
    return modes, [parameter.requires_grad for parameter in model.parameters()], torch.backends.cudnn.allow_tf32


def test_everything_is_still_inside_and_as_it_was_outside():
    model = network()
    before = state(model)
    with prepared(model):
        assert state(model) == ([False] * 4, [False] * 4, False)
    assert state(model) == before == ([True, True, False, True], [True, False, True, True], True)


def test_it_comes_back_after_an_error_and_after_the_inside_changed_it():
    model = network()
    before = state(model)

    def fail() -> None:
        with prepared(model):
            model.train()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert state(model) == before


def test_it_nests():
    model = network()
    before = state(model)
    with prepared(model):
        with prepared(model):
            pass
        assert state(model)[0] == [False] * 4
    assert state(model) == before


def test_global_randomness_comes_back():
    def numbers() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.random()), random.random()

    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = numbers()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)

    def fail() -> None:
        with own_randomness():
            torch.manual_seed(1)
            numbers()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert numbers() == expected


# The network that attacks search with.


def kind(model: nn.Module, twin: nn.Module) -> str:
    """How much a twin was changed."""
    if twin is model:
        return "itself"
    before, after = (
        sum(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())
        for network in (model, twin.slopes if isinstance(twin, ByUse) else twin)
    )
    return ("folded" if after < before else "") + ("+relaid" if isinstance(twin, ByUse) else "")


def assert_same_answers(model: nn.Module, twin: nn.Module, x: torch.Tensor, slack: float) -> None:
    modes = [module.training for module in model.modules()]
    with prepared(model):
        wanted = answers(model, x)
    assert [module.training for module in model.modules()] == modes
    for one, other in zip(wanted, answers(twin, x), strict=True):
        assert (one - other).norm() <= slack * one.norm()


def answers(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    leaf = x.clone().requires_grad_()
    logits = model(leaf.clone())
    if logits.requires_grad:
        (grad,) = torch.autograd.grad((logits * torch.arange(1, logits.shape[1] + 1)).sum(), leaf)
        assert grad.is_contiguous()
    else:
        grad = torch.zeros(())
    with torch.no_grad():
        return model(x.clone()), logits.detach(), grad


def in_use(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """With statistics from some images, and in train mode, as after training."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model.train()
        for _ in range(3):
            model(torch.rand(8, *shape, dtype=next(model.parameters()).dtype))
    return model


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("convnet-4", (1, 8, 8), torch.float64),
        ("convnet-4", (1, 8, 8), torch.float32),
        ("convnet-4", (3, 32, 32), torch.float32),
        ("resnet-18", (3, 8, 8), torch.float32),
        ("preact-resnet-18", (3, 8, 8), torch.float32),
        ("mobilenet-v2", (1, 16, 16), torch.float32),
        ("wrn-10-1", (3, 16, 16), torch.float32),
    ],
)
def test_own_networks_are_folded_and_relaid_and_answer_the_same(name, shape, dtype):
    model = in_use(build(Architecture(name, 10, shape[0], (0.4,) * shape[0], (0.2,) * shape[0])).to(dtype), shape)
    x = torch.rand(5, *shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        twin = search_model(model, x[:2])
    assert kind(model, twin) == "folded+relaid"
    assert not any(module.training for module in twin.modules())
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert_same_answers(model, twin, x, 1e-9 if dtype == torch.float64 else 1e-2)


def test_small_images_keep_the_layout_where_no_gradient_is_wanted():
    def layouts(shape: tuple[int, ...]) -> tuple[bool, bool]:
        twin = search_model(build(Architecture("convnet-4", 3, 3)), torch.rand(2, *shape))
        weights = (next(part.parameters()) for part in (twin.slopes, twin.answers))
        slopes, answers = (weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
        return slopes, answers

    assert layouts((3, 8, 8)) == (True, False)
    assert layouts((3, 16, 16)) == (True, True)


def test_the_twin_works_in_bfloat16():
    model = in_use(build(Architecture("convnet-4", 3, 1)), (1, 8, 8))
    x = torch.rand(4, 1, 8, 8)
    assert_same_answers(Bfloat16(model), Bfloat16(search_model(model, x)).eval(), x, 0.1)


class Odd(nn.Module):
    """A convolution, BatchNorm and a linear layer, with a chance to be odd on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.linear = nn.Linear(64, 3)
        self.dropout = nn.Dropout()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.calls = 0

    def forward(self, x):
        return self.linear(F.relu(self.bn(self.conv(x))).flatten(1))


class Shared(Odd):
    def forward(self, x):
        return self.linear(F.relu(self.bn(self.conv(x)) + self.conv(x.flip(3))).flatten(1))


class Around(Odd):
    """Uses the layer's weight behind its back, where no hook and no graph of another call shows it."""

    def forward(self, x):
        return self.linear(F.relu(self.bn(self.conv(x)) + self.conv.forward(x.flip(3))).flatten(1))


class Viewing(Odd):
    def forward(self, x):
        return self.linear(F.relu(self.bn(self.conv(x))).view(len(x), -1))


class InPlace(Odd):
    def forward(self, x):
        return super().forward(x.sub_(0.5).div_(0.25))


class ConvTwice(Odd):
    def forward(self, x):
        h = self.conv(x)
        return self.linear(F.relu(self.bn(h) + h).flatten(1))


class NormFirst(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.linear(F.relu(self.conv(self.bn(x))).flatten(1))


class Dropping(Odd):
    def forward(self, x):
        return self.dropout(super().forward(x))


class DroppingAlways(Odd):
    def forward(self, x):
        return F.dropout(super().forward(x), training=True)


class Noisy(Odd):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))


class NoisyByNumpy(Odd):
    def forward(self, x):
        return super().forward(x + 0.1 * float(np.random.standard_normal()))


class Signing(Odd):
    def forward(self, x):
        return self.linear(torch.sign(self.bn(self.conv(x))).flatten(1))


class Detaching(Odd):
    def forward(self, x):
        return super().forward(x.detach())


class Counting(Odd):
    def forward(self, x):
        self.count += 1
        self.calls += 1
        return super().forward(x)


class CountMatters(Odd):
    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls


class AlwaysTraining(Odd):
    def train(self, mode=True):
        super().train(mode)
        self.bn.training = True
        return self


class BatchStatistics(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4, track_running_stats=False, affine=False)


class MadeLater(Odd):
    """Makes a layer when it is first called."""

    def forward(self, x):
        if not hasattr(self, "extra"):
            self.extra = nn.Linear(3, 3)
        return self.extra(super().forward(x))


class Locked(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class CopiesNothing(Odd):
    def __deepcopy__(self, memo):
        return self


class CopiesTheOutside(Odd):
    def __deepcopy__(self, memo):
        copied = Odd()
        copied.linear = self.linear
        return copied


class Failing(Odd):
    def forward(self, x):
        raise KeyError("no")


class Tuple(Odd):
    def forward(self, x):
        return super().forward(x), None


class Blind(Odd):
    def forward(self, x):
        return super().forward(x) * float("nan")


def spectral() -> nn.Module:
    model = Odd()
    nn.utils.parametrizations.spectral_norm(model.linear)
    nn.utils.parametrizations.weight_norm(model.conv)
    return model


def hooked() -> nn.Module:
    model = Odd()
    model.bn.register_forward_hook(lambda module, x, answer: 2 * answer)
    return model


ODDITIES = {
    "plain": (Odd, "folded+relaid"),
    "in place": (InPlace, "folded+relaid"),
    "counter": (Counting, "folded+relaid"),
    "wrapped": (lambda: nn.DataParallel(Odd()), "folded+relaid"),
    "dropout": (Dropping, "folded+relaid"),
    "sequence of linear": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
        "folded",
    ),
    "view": (Viewing, "folded"),
    "shared": (Shared, "+relaid"),
    "around": (Around, "+relaid"),
    "output used twice": (ConvTwice, "+relaid"),
    "norm first": (NormFirst, "+relaid"),
    "sign": (Signing, "folded+relaid"),
    "detached": (Detaching, "+relaid"),
    "always training": (AlwaysTraining, "+relaid"),
    "batch statistics": (BatchStatistics, "+relaid"),
    "spectral": (spectral, "+relaid"),
    "linear alone": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), "itself"),
    "noise": (Noisy, "itself"),
    "numpy noise": (NoisyByNumpy, "itself"),
    "dropout at work": (DroppingAlways, "itself"),
    "count matters": (CountMatters, "itself"),
    "made later": (MadeLater, "itself"),
    "hooks": (hooked, "itself"),
    "compiled": (lambda: torch.compile(Odd(), backend="eager"), "itself"),
    "no copy": (Locked, "itself"),
    "copies nothing": (CopiesNothing, "itself"),
    "copies the outside": (CopiesTheOutside, "itself"),
    "fails": (Failing, "itself"),
    "tuple": (Tuple, "itself"),
    "nan": (Blind, "itself"),
}


def fingerprint(model: nn.Module) -> list[object]:
    """All that a stranger could have changed in a model."""
    modules = list(model.modules())
    return [
        [id(module) for module in modules],
        [module.training for module in modules],
        [(id(p), p.requires_grad, p.stride()) for p in model.parameters()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        getattr(model, "calls", 0),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
    ]


@pytest.mark.parametrize("name", ODDITIES)
def test_any_module_is_safe(name):
    make, wanted = ODDITIES[name]
    torch.manual_seed(0)
    np.random.seed(0)
    model = make()
    for module in model.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_()
            module.running_var.uniform_(0.5, 1.5)
    before, state = fingerprint(model), copy.deepcopy(dict(model.state_dict()))
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    twin = search_model(model, x)
    assert kind(model, twin) == wanted
    assert fingerprint(model) == before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    if twin is not model:
        assert_same_answers(model, twin, x, 1e-4)
        assert any(module.training for module in twin.modules()) == (name == "always training")


def test_a_network_made_by_its_first_call_is_safe():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))
    assert search_model(model, torch.rand(3, 2, 4, 4)) is model
    assert model[0].has_uninitialized_params()


def test_scripted_networks_are_safe():
    x = torch.rand(3, 2, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.trace(Odd().eval(), x)
    assert_same_answers(model, search_model(model, x), x, 1e-4)


def test_it_is_compared_in_full_precision():
    seen: list[bool] = []

    class Asking(Odd):
        def forward(self, x):
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(x)

    search_model(Asking(), torch.rand(3, 2, 4, 4))
    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32


def test_the_probe_stays_as_it_is():
    x = torch.rand(3, 2, 4, 4)
    kept = x.clone()
    search_model(InPlace(), x)
    assert torch.equal(x, kept)


def test_a_twin_that_differs_is_refused(monkeypatch):
    def wrongly(network: nn.Module, probe: torch.Tensor) -> int:
        network.bn.bias.data += 1e-3
        return 1

    monkeypatch.setattr("bench.attacks.prepare.fold", wrongly)
    model = Odd()
    twin = search_model(model, torch.rand(3, 2, 4, 4))
    assert torch.equal(twin.slopes.bn.bias, model.bn.bias)


def test_one_with_the_right_logits_and_another_gradient_is_refused(monkeypatch):
    def wrongly(network: nn.Module, probe: torch.Tensor) -> int:
        network.forward = lambda x: Odd.forward(network, x.detach() + 0.9 * (x - x.detach()))
        return 1

    monkeypatch.setattr("bench.attacks.prepare.fold", wrongly)
    twin = search_model(Odd(), torch.rand(3, 2, 4, 4))
    assert "forward" not in vars(twin.slopes)
