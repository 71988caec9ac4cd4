"""The contracts that a device could break: randomness, attacks, training and judging on CUDA against the CPU."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from bench.attacks.trial import plan
from bench.data.load import load
from bench.evaluation.evaluate import evaluate
from bench.randomness import Streams
from bench.training.fit import fit
from bench.training.loop import train
from bench.training.method import compose
from bench.training.run import Run, prepare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


def short(method: str = "pgd-at") -> Run:
    images = load("digits", "train")
    return prepare(compose(method, dataset="digits", settings={"schedule.epochs": 3}), images, "convnet-4", 0, {})


def test_random_numbers_are_the_same_on_every_device() -> None:
    rows = torch.arange(50)
    on_cpu = Streams(7, rows).fork("start").uniform((3, 8, 8), draw=2)
    on_cuda = Streams(7, rows.cuda()).fork("start").uniform((3, 8, 8), draw=2)
    assert torch.equal(on_cpu, on_cuda.cpu())


def test_training_on_cuda_learns_and_can_be_judged_anywhere(tmp_path: Path) -> None:
    checkpoint = fit(short(), tmp_path / "at.safetensors", device="cuda")
    images = load("digits", "test").take(200, 0)
    trials = plan(["pgd-sat", "cw"], eps=Fraction("0.15"), batch_size=200)
    verdicts = {
        device: [outcomes.correct for _, outcomes in evaluate(checkpoint.network(), images, trials, device=device)]
        for device in ("cpu", "cuda")
    }
    assert verdicts["cpu"][0].mean() > 0.5
    for here, there in zip(verdicts["cpu"], verdicts["cuda"], strict=True):
        assert (here != there).mean() <= 0.01  # kernels round differently; only images on the border may turn


@pytest.mark.parametrize("method", ["pgd-at", "trades", "adr+wa+awp"])
def test_no_step_of_a_training_makes_the_host_wait_for_the_device(method: str) -> None:
    def forbid_waiting(done: int, total: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls it a prototype
            torch.cuda.set_sync_debug_mode("error" if 2 <= done < 6 else "default")

    try:
        next(train(short(method), device="cuda", report=forbid_waiting))
    finally:
        torch.cuda.set_sync_debug_mode("default")
