from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import nn


def pytest_terminal_summary(terminalreporter) -> None:
    """Say what came of the faults that were tried; see `tests/faults`."""
    counts: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            counts.update(dict(getattr(report, "user_properties", ())).get("faults", {}))
    if counts:
        kinds = ("clear", "unclear", "traceback", "hang", "harmful")
        said = ", ".join(f"{kind} {counts[kind]}" for kind in kinds)
        terminalreporter.write_line(f"faults tried {counts.total()}: {said}")


@pytest.fixture(scope="session")
def digits_network():
    """Makes a small network in eval mode that tells the digits apart, the same on every processor up to rounding.

    Training lets the last bit grow, and another processor then has another network, of which other images break. So
    this one is solved for: random filters, BatchNorm as the data have it, and least squares in float64.
    """
    import torch  # here: the reading half is tested where torch is not installed
    from torch import nn

    from bench.data.load import load

    def made() -> nn.Module:
        x, y = load("digits", "train").batch(slice(None))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            features = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
            last = nn.Linear(54, 10)
        features.double().requires_grad_(False)
        features[1].momentum = None  # statistics of all images it has seen
        features(x.double())
        seen = nn.functional.pad(features.eval()(x.double()), (0, 1), value=1.0)
        wanted = 10 * nn.functional.one_hot(y, 10).double() - 1
        solved = torch.linalg.solve(seen.T @ seen + 30 * torch.eye(55), seen.T @ wanted)
        with torch.no_grad():
            last.weight.copy_(solved[:-1].T)
            last.bias.copy_(solved[-1])
        return nn.Sequential(*features.float().requires_grad_(True), last).eval()

    return made


@pytest.fixture(scope="session")
def exact():
    """Makes of a network one that computes in float64: an image then has the same float32 logits in every batch."""
    from torch import nn

    class Exact(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model.double()

        def forward(self, x):
            return self.model(x.double()).float()

    return Exact
