"""Native AutoAttack against the reference implementation, verdict by verdict.

    python tests/speed/parity.py [FOLDER]

Trains two digits networks, evaluates both by `autoattack` and `autoattack-reference` with three seeds of each in Linf
and L2, and writes results/parity.md. What FOLDER (default: build/parity) holds already is not computed again.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch

from bench.attacks.trial import Trial, plan
from bench.data.load import load
from bench.data.source import Source
from bench.evaluation.network import of_checkpoint
from bench.store.database import Store
from bench.study.plan import Agenda, Cell
from bench.study.pool import Inline
from bench.study.runner import run_study
from bench.training.fit import fit
from bench.training.method import compose
from bench.training.run import prepare

SEEDS = (0, 1, 2)
BUDGETS = (("Linf", Fraction("0.15")), ("L2", Fraction("0.5")), ("L2", Fraction("0.9")))
NATIVE, REFERENCE = "autoattack", "autoattack-reference"
OUT = Path(__file__).parents[2] / "results" / "parity.md"


class Quiet:
    """No progress bar."""

    def show(self, share: float, left: float | None, doing: str) -> None: ...
    def say(self, line: str) -> None:
        print(line, file=sys.stderr)  # noqa: T201  # what a script has to say


def robust(store: Store, checkpoint_id: str, trial: Trial) -> np.ndarray:
    """(N,) whether each sample survived, by sample."""
    rows = store.rows(
        "SELECT o.correct FROM outcomes o JOIN complete_evaluations e USING (evaluation_id) "
        "WHERE e.checkpoint_id = ? AND e.attack_id = ? ORDER BY o.sample",
        [checkpoint_id, trial.attack_id],
    )
    return np.array(rows).ravel()


def unlike(pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Mean and range of the number of samples on which two verdicts differ."""
    counts = [int((a != b).sum()) for a, b in pairs]
    return f"{np.mean(counts):.1f} ({min(counts)}-{max(counts)})"


def compared(store: Store, name: str, checkpoint_id: str, norm: str, eps: Fraction) -> str:
    """A row of the table."""
    verdicts: dict[str, list[np.ndarray]] = {NATIVE: [], REFERENCE: []}
    for seed in SEEDS:
        for trial in trials(norm, eps, seed):
            verdicts[trial.name].append(robust(store, checkpoint_id, trial))
    native, reference = verdicts[NATIVE], verdicts[REFERENCE]
    n = len(native[0])
    means = [100 * float(np.mean(found)) for found in (native, reference)]
    cells = [
        name,
        f"{norm} {float(eps):g}",
        str(n),
        f"{means[0]:.2f}",
        f"{means[1]:.2f}",
        f"{means[0] - means[1]:+.2f}",
        unlike(list(product(native, reference))),
        unlike(list(combinations(reference, 2))),
        unlike(list(combinations(native, 2))),
    ]
    return "| " + " | ".join(cells) + " |"


def trials(norm: str, eps: Fraction, seed: int) -> list[Trial]:
    """Both attacks."""
    return list(plan([NATIVE, REFERENCE], norm=norm, eps=eps, seed=seed, batch_size=250)[1:])


def main(folder: Path) -> None:
    """Train, evaluate, compare."""
    torch.set_num_threads(1)
    store = Store(folder / "bench.duckdb")
    store.create()
    train = load("digits", "train")
    lines = []
    for method in ("pgd-at", "natural"):
        run = prepare(compose(method, dataset="digits"), train, "convnet-6", 0, {})
        path = folder / f"{method}.safetensors"
        network = of_checkpoint(fit(run, path), path)
        for norm, eps in BUDGETS:
            asked = tuple(trial for seed in SEEDS for trial in trials(norm, eps, seed))
            cell = Cell(method, asked, 250, network=network)
            report = run_study(Agenda(store, Source("digits", "test"), [cell], "cpu", "none"), Inline(), Quiet())
            for problem in report.problems.values():
                raise problem
            lines.append(compared(store, f"digits, convnet-6, {method}", network.row.checkpoint_id, norm, eps))
    head = ["network", "budget", "samples", "native %", "reference %", "difference"]
    head += ["native/reference differ", "reference seeds differ", "native seeds differ"]
    OUT.write_text(
        "# AutoAttack: native against reference\n\n"
        "Robust accuracy over three seeds of each, and on how many samples two runs give different verdicts: mean and\n"
        "range over the pairs of runs. Written by tests/speed/parity.py.\n\n"
        + "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])
        + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/parity"))
