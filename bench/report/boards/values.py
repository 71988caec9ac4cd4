"""A board as a value: its rows, the figures of each, and how they are called."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.report.names import calls_attack

CLEAN = "clean"
"""Name of the attack that leaves images alone."""
DOUBTFUL = "†"
"""Sign after the name of a row that fails a soundness check."""
NOT_RUN = "not run"
"""What a row says of its soundness checks where there were none."""


@dataclass(frozen=True)
class Calibration:
    """Whether the confidences under one attack can be believed, averaged over training seeds.

    Attributes:
        mean_confidence: mean softmax probability of the predicted class, in [0, 1].
        ece: expected calibration error over 15 bins of equal width, in [0, 1].
        ece_mass: the same over 15 bins of equal numbers of samples.
        error_confidence: mean confidence of the wrong predictions; None where no seed has any.
        divergence: mean KL divergence of the clean from the judged softmax, in nats, 0 for what was not attacked; None
            where it was not recorded.
    """

    mean_confidence: float
    ece: float
    ece_mass: float
    error_confidence: float | None
    divergence: float | None


@dataclass(frozen=True)
class Score:
    """How one entry did under one attack, averaged over its training seeds.

    Attributes:
        accuracy: fraction of samples classified correctly, in [0, 1].
        accuracy_std: sample standard deviation over seeds; None for a single one.
        worst_accuracy: mean over seeds of the accuracy of each seed's own worst class.
        worst_class: name of the class that was the worst most often; of equals the one with the lower mean.
        worst_seeds: number of seeds whose worst class that was.
        nsd: mean over seeds of population standard deviation / mean of the class accuracies; lower is fairer. None
            where every class is at 0.
        nsd_std: sample standard deviation of the NSD over seeds; None for a single one.
        class_accuracy: (K,) mean over seeds per class; None where a class has no sample.
        calibration: of the confidences; None for what is best known, where no single prediction has one.
    """

    accuracy: float
    accuracy_std: float | None
    worst_accuracy: float
    worst_class: str
    worst_seeds: int
    nsd: float | None
    nsd_std: float | None
    class_accuracy: tuple[float | None, ...]
    calibration: Calibration | None = None


@dataclass(frozen=True)
class BestKnown:
    """What is left when a sample counts as broken as soon as any attack of a budget broke it: no attack, and no tier.

    Attributes:
        score: of the samples that stood against all.
        attacks: number of attacks that is over, at least 2; of seeds that met different ones, the smallest.
    """

    score: Score
    attacks: int


@dataclass(frozen=True)
class Row:
    """One entry of a board: the checkpoints of one training recipe, whatever their seeds.

    Attributes:
        rank: 1 + number of rows with a higher accuracy under the board's attack.
        method: name of the training method.
        variant: overrides of its preset; "" for none.
        preset: name of its preset.
        model: name of the architecture.
        selection: rule that chose the epochs kept; "" when unknown.
        recipe_id: hash of everything but the seed that determined the training.
        checkpoints: identities of the checkpoints averaged, one per seed.
        robust: score under the board's attack.
        clean: score of the same checkpoints on the same samples unattacked; None unless each has one.
        best_known: over all attacks of the board's budget on its samples; None unless each checkpoint met two or more.
        checks: the worst verdict of the soundness checks of its checkpoints on this board's samples and budget: pass,
            warn or fail; "not run" where nothing is amiss but a checkpoint was not checked.
        failed_checks: names of those that fail.
    """

    rank: int
    method: str
    variant: str
    preset: str
    model: str
    selection: str
    recipe_id: str
    checkpoints: tuple[str, ...]
    robust: Score
    clean: Score | None
    best_known: BestKnown | None = None
    checks: str = NOT_RUN
    failed_checks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Method, with its variant in brackets where it has one."""
        return f"{self.method}[{self.variant}]" if self.variant else self.method

    @property
    def seeds(self) -> int:
        """Number of checkpoints averaged."""
        return len(self.checkpoints)

    @property
    def entry(self) -> tuple[str, ...]:
        """What the row is about, whatever the attack; also the order of rows that tie."""
        return (self.method, self.variant, self.model, self.recipe_id, self.preset, self.selection)


@dataclass(frozen=True)
class Setting:
    """What a figure is on and under: samples and attack.

    Attributes:
        dataset: name of the data set.
        split: its split.
        subset: "" for the whole split, else how the samples were chosen.
        dataset_id: identity of the samples.
        class_names: (K,) names, in class order.
        attack: name of the attack.
        attack_id: its fingerprint.
        norm: norm of its budget.
        eps_exact: radius as the exact text, such as "8/255".
    """

    dataset: str
    split: str
    subset: str
    dataset_id: str
    class_names: tuple[str, ...]
    attack: str
    attack_id: str
    norm: str
    eps_exact: str

    @property
    def is_clean(self) -> bool:
        """Whether the images were left alone."""
        return self.attack == CLEAN

    @property
    def data(self) -> str:
        """The samples in words: `digits test (n=100,seed=0)`."""
        return f"{self.dataset} {self.split}" + (f" ({self.subset})" if self.subset else "")

    @property
    def title(self) -> str:
        """Attack, budget and data in words."""
        threat = self.attack if self.is_clean else f"{self.attack} {self.norm} {self.eps_exact}"
        return f"{threat} on {self.data}"

    def is_under(self, attack: str) -> bool:
        """Whether `attack` calls the attack: its name, or the beginning of its fingerprint."""
        return calls_attack(attack, self.attack, self.attack_id)

    def as_dict(self) -> dict[str, Any]:
        """What it was on, ready for JSON."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "subset": self.subset,
            "dataset_id": self.dataset_id,
            "attack": self.attack,
            "attack_id": self.attack_id,
            "norm": self.norm,
            "eps": self.eps_exact,
        }


@dataclass(frozen=True)
class Board(Setting):
    """Rows that may be compared: the same samples, the same attack.

    Attributes:
        samples: number of samples attacked.
        eps: radius as a number, in units of the pixel range [0, 1].
        rows: the entries, sorted.
    """

    samples: int
    eps: float
    rows: tuple[Row, ...]

    @property
    def threat(self) -> str:
        """The budget in words: `Linf eps 8/255`; 'unattacked' on a clean board."""
        return "unattacked" if self.is_clean else f"{self.norm} eps {self.eps_exact}"

    @property
    def chance(self) -> float:
        """Accuracy of guessing one of the classes; below it, how classes compare means little."""
        return 1 / len(self.class_names)

    def heat(self) -> tuple[float, float]:
        """Accuracies at the two ends of a colour scale, in tenths, that tells the classes of this board apart.

        Rows below chance do not widen it, so that one broken model does not wash out all others.
        """
        above = [row for row in self.rows if row.robust.accuracy >= self.chance] or self.rows
        seen = [value for row in above for value in row.robust.class_accuracy if value is not None]
        low, high = math.floor(10 * min(seen)), math.ceil(10 * max(seen))
        while high - low < 2:
            low, high = max(low - 1, 0), min(high + 1, 10)
        return low / 10, high / 10

    @property
    def arena(self) -> tuple[str, str, str]:
        """What boards must share to be shown side by side: samples, norm and radius."""
        return (self.dataset_id, self.norm, self.eps_exact)


Trait = Literal["model", "preset", "selection", "recipe_id"]

_TRAITS: dict[Trait, Callable[[Row], str]] = {
    "model": lambda row: row.model,
    "preset": lambda row: row.preset,
    "selection": lambda row: row.selection,
    "recipe_id": lambda row: row.recipe_id,
}
"""What tells rows of one name apart, tried in this order."""


def tell_apart(rows: Sequence[Row], shown: Sequence[Trait] = ()) -> list[str]:
    """(len(rows),) names of the rows, with what tells them apart added where names alone do not.

    A row that fails a soundness check has the sign `DOUBTFUL` after its name, wherever it is shown.

    Args:
        rows: rows of one table or figure.
        shown: what of a row the reader sees beside the name anyway.
    """
    names = [row.name for row in rows]
    beside = [tuple(_TRAITS[trait](row) for trait in shown) for row in rows]
    for trait, read in _TRAITS.items():
        if trait in shown:
            continue
        values = [read(row) for row in rows]
        among = defaultdict(set)
        for name, seen, value in zip(names, beside, values, strict=True):
            among[name, seen].add(value)
        names = [
            f"{name} · {value or 'unknown'}" if len(among[name, seen]) > 1 else name
            for name, seen, value in zip(names, beside, values, strict=True)
        ]
    return [f"{name} {DOUBTFUL}" if row.failed_checks else name for name, row in zip(names, rows, strict=True)]


def arenas(boards: Iterable[Board]) -> list[list[Board]]:
    """The boards whose figures may stand side by side: same samples, norm and radius; in the order given."""
    together: dict[tuple[str, str, str], list[Board]] = {}
    for board in boards:
        together.setdefault(board.arena, []).append(board)
    return list(together.values())
