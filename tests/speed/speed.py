"""How fast the attacks are, against peers and against the bare passes of the model, measured in one run.

    python tests/speed/speed.py [--samples N] [--cifar FOLDER]

Every time is that of the same images on the same model with the same threads, in seconds of the processor, so that
other work on the machine does not count; the best of some turns is taken. Written to results/speed.md. The ResNet-18
is the one that pyautoattack's wheel carries among its examples; it is attacked on CIFAR-10 images at eps 0.5/255, by
PGD also at 0.75/255, and left out where there are none.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import foolbox
import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from bench.attacks.prepare import prepared, search_model
from bench.attacks.trial import Trial, plan
from bench.data.images import Images
from bench.data.load import load
from bench.evaluation.evaluate import evaluate
from bench.models.architecture import Architecture, load_state
from bench.models.foreign import read_foreign
from bench.outcomes import Outcomes
from bench.training.fit import fit
from bench.training.method import compose
from bench.training.run import prepare

Result = TypeVar("Result")
OUT = Path(__file__).parents[2] / "results" / "speed.md"


@dataclass(frozen=True)
class Arena:
    """What is attacked."""

    name: str
    model: nn.Module
    images: Images
    eps: Fraction
    batch_size: int


def resnet(folder: Path, samples: int, eps: Fraction = Fraction(1, 510)) -> Arena:
    """The ResNet-18 of pyautoattack's wheel on some images."""
    spec = find_spec("pyautoattack")
    weights = Path(str(spec and spec.origin)).parent / "examples" / "model_test.pt"
    model = load_state(Architecture("resnet-18", 10, 3), read_foreign(weights)).eval().requires_grad_(False)
    images = load(str(folder), "test").take(100, 0).select(np.arange(samples))
    return Arena(f"ResNet-18 at {float(255 * eps):g}/255", model, images, eps, samples)


def digits(folder: Path) -> Arena:
    """A pgd-at net on the digits."""
    run = prepare(compose("pgd-at", dataset="digits"), load("digits", "train"), "convnet-6", 0, {})
    model = fit(run, folder / "pgd-at.safetensors").network()
    return Arena("digits convnet-6 at 0.15", model, load("digits").take(250, 0), Fraction("0.15"), 250)


def ours(arena: Arena, trial: Trial) -> Callable[[], Outcomes]:
    """The evaluator's own run of a trial, all that it does included."""

    def run() -> Outcomes:
        parts = [outcomes for _, outcomes in evaluate(arena.model, arena.images, [trial], batch_size=arena.batch_size)]
        return parts[0]

    return run


def bare(arena: Arena, outcomes: Outcomes) -> float:
    """Seconds that the passes of a run take by themselves, in fp32, on the model as the attacks see it.

    What 32 images take in one pass, per image, times what was counted.
    """
    x, _ = arena.images.batch(slice(0, min(32, len(arena.images))))
    model = search_model(arena.model, x)
    with prepared(model):

        def forward() -> None:
            with torch.no_grad():
                model(x)

        def both() -> None:
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(model(leaf).sum(), leaf)

        one, two = (fastest(passes, 3)[0] / len(x) for passes in (forward, both))
    backwards = int(outcomes.backwards.sum())
    return (int(outcomes.forwards.sum()) - backwards) * one + backwards * two


def fastest(run: Callable[[], Result], turns: int) -> tuple[float, Result]:
    """CPU seconds of the best of some turns, after one to warm up where there are several; what came of the last."""
    times = []
    for _ in range(turns + (turns > 1)):
        began = time.process_time()
        result = run()
        times.append(time.process_time() - began)
    return min(times[turns > 1 :]), result


Peers = dict[str, Callable[[], Tensor]]
"""By name, what brings the adversarial images of another library."""


def reference_autoattack(arena: Arena) -> Peers:
    """pyautoattack's own standard evaluation of the same images."""
    import pyautoattack

    x, y = arena.images.batch(slice(None))
    attack = pyautoattack.AutoAttack(arena.model, norm="Linf", eps=float(arena.eps), seed=0, device=torch.device("cpu"))
    return {"pyautoattack": lambda: attack.run_standard_evaluation(x, y, batch_size=arena.batch_size)[0]}


def peers_pgd(arena: Arena) -> Peers:
    """PGD-20 of the libraries, all images in one batch."""
    x, y = arena.images.batch(slice(None))
    eps = float(arena.eps)
    theirs = torchattacks.PGD(arena.model, eps=eps, alpha=eps / 4, steps=20, random_start=True)
    wrapped = foolbox.PyTorchModel(arena.model, bounds=(0, 1), device="cpu")
    walk = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=20, random_start=True)
    return {"torchattacks": lambda: theirs(x, y), "foolbox": lambda: walk(wrapped, x, y, epsilons=[eps])[1][0]}


def standing(arena: Arena, adversarials: Tensor) -> float:
    """Percentage of the images that are classified right, unattacked and attacked."""
    x, y = arena.images.batch(slice(None))
    with torch.no_grad():
        right = [arena.model(images).argmax(1) == y for images in (x, adversarials)]
    return 100 * float(torch.stack(right).all(0).float().mean())


def table(arena: Arena, name: str, peers: Peers, turns: int) -> list[str]:
    """Rows of the report on one attack of one network."""
    rows = []
    theirs = {peer: fastest(run, turns) for peer, run in peers.items()}
    best = min(took for took, _ in theirs.values())
    for precision in ("fp32", "bf16"):
        _, trial = plan([name], eps=arena.eps, precision=precision, batch_size=arena.batch_size)
        run = ours(arena, trial)
        seconds, outcomes = fastest(run, turns)
        cells = [
            f"{arena.name}, {len(arena.images)} images",
            trial.name,
            f"{seconds:.2f}",
            ", ".join(f"{peer} {took:.2f}" for peer, (took, _) in theirs.items()),
            f"{best / seconds:.2f}",
            f"{int(outcomes.forwards.sum())} + {int(outcomes.backwards.sum())}",
            f"{seconds / bare(arena, outcomes):.2f}" if precision == "fp32" else "",
            f"{100 * outcomes.correct.mean():.1f}",
            ", ".join(f"{peer} {standing(arena, found):.1f}" for peer, (_, found) in theirs.items()),
        ]
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)  # noqa: T201  # what a script has to say
    return rows


def main() -> None:
    """Measure, print and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--samples", type=int, default=10, help="CIFAR-10 images for AutoAttack, at most 100")
    options.add_argument("--pgd-samples", type=int, default=100, help="CIFAR-10 images for PGD, at most 100")
    options.add_argument("--cifar", type=Path, default=shared_cifar(), help="folder of CIFAR-10 as Parquet")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path, default=OUT)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        small = digits(Path(folder))
    lines = table(small, "pgd-sat", peers_pgd(small), turns=3)
    lines += table(small, "autoattack", reference_autoattack(small), turns=1)
    if asked.cifar is not None:
        for eps in (Fraction(1, 510), Fraction(3, 1020)):
            many = resnet(asked.cifar, asked.pgd_samples, eps)
            lines += table(many, "pgd-sat", peers_pgd(many), turns=1)
        write(lines, asked.out, asked.threads)  # the rest takes long
        few = resnet(asked.cifar, asked.samples)
        lines += table(few, "autoattack", reference_autoattack(few), turns=1)
    write(lines, asked.out, asked.threads)


def write(rows: list[str], out: Path, threads: int) -> None:
    """The report."""
    head = ["network", "attack", "seconds", "peers, seconds", "peer / ours", "passes", "ours / bare passes", "robust %"]
    head += ["peers, robust %"]
    out.write_text(
        "# Speed\n\n"
        f"{threads} thread(s) of {platform.processor() or platform.machine()}, torch {torch.__version__}; "
        "written by tests/speed/speed.py.\n"
        "Seconds are the processor's. Peers get the same images, the fastest of them is the measure. Passes are\n"
        "forward + backward, over all images; bare passes are those of the network alone, as the attacks see it, 32\n"
        "images at a time. bf16 searches in bfloat16 and confirms every break in fp32.\n\n"
        + "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows])
        + "\n"
    )


def shared_cifar() -> Path | None:
    """CIFAR-10 where the tests look for it."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    folder = Path(os.environ.get("EVENBENCH_SHARED", beside)) / "data" / "cifar10"
    return folder if folder.is_dir() else None


if __name__ == "__main__":
    main()
