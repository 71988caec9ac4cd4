"""Boards: which results may stand in one table, and the figures of each row.

A board holds the entries that met the same samples under the same attack: one data set identity, one attack
fingerprint. Whatever differs in either is another board. Every figure is computed here from the integer counts of
the view `class_accuracy`, in class order, so that the same database gives the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from bench import metrics
from bench.errors import BadStore, UnknownName

if TYPE_CHECKING:
    import pandas as pd

CLEAN = "clean"
"""Name of the attack that leaves images alone."""
STRONGEST = "autoattack"
"""Name of the attack whose board comes first, whatever the figures say."""


class Queryable(Protocol):
    """Anything that answers SQL over the views of `bench/schema.sql`; `bench.store.Store` is one."""

    def query(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        """The rows that `sql` selects."""
        ...


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
    """

    accuracy: float
    accuracy_std: float | None
    worst_accuracy: float
    worst_class: str
    worst_seeds: int
    nsd: float | None
    nsd_std: float | None
    class_accuracy: tuple[float | None, ...]


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
class Board:
    """Rows that may be compared: the same samples, the same attack.

    Attributes:
        dataset: name of the data set.
        split: its split.
        subset: '' for the whole split, else how the samples were chosen.
        dataset_id: identity of the samples.
        class_names: (K,) names, in class order.
        samples: number of samples attacked.
        attack: name of the attack.
        attack_id: its fingerprint.
        norm: norm of its budget.
        eps: radius as a number, in units of the pixel range [0, 1].
        eps_exact: radius as the exact text, such as '8/255'.
        rows: the entries, sorted.
    """

    dataset: str
    split: str
    subset: str
    dataset_id: str
    class_names: tuple[str, ...]
    samples: int
    attack: str
    attack_id: str
    norm: str
    eps: float
    eps_exact: str
    rows: tuple[Row, ...]

    @property
    def is_clean(self) -> bool:
        """Whether the images were left alone."""
        return self.attack == CLEAN

    @property
    def data(self) -> str:
        """The samples in words: `digits test (n=100,seed=0)`."""
        return f"{self.dataset} {self.split}" + (f" ({self.subset})" if self.subset else "")

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


SortKey = tuple[bool, float, str]


def _high(value: float | None) -> SortKey:
    """Largest first, the unknown last."""
    return (value is None, -(value or 0.0), "")


def _low(value: float | None) -> SortKey:
    """Smallest first, the unknown last."""
    return (value is None, value or 0.0, "")


def _text(value: str | None) -> SortKey:
    return (value is None, 0.0, value or "")


SORTS: Mapping[str, Callable[[Row], SortKey]] = {
    "rank": lambda row: _low(row.rank),
    "method": lambda row: _text(row.name),
    "variant": lambda row: _text(row.variant),
    "preset": lambda row: _text(row.preset),
    "model": lambda row: _text(row.model),
    "selection": lambda row: _text(row.selection),
    "recipe_id": lambda row: _text(row.recipe_id),
    "seeds": lambda row: _high(row.seeds),
    "accuracy": lambda row: _high(row.robust.accuracy),
    "accuracy_std": lambda row: _low(row.robust.accuracy_std),
    "worst_class": lambda row: _text(row.robust.worst_class),
    "worst_accuracy": lambda row: _high(row.robust.worst_accuracy),
    "nsd": lambda row: _low(row.robust.nsd),
    "nsd_std": lambda row: _low(row.robust.nsd_std),
    "clean_accuracy": lambda row: _high(row.clean.accuracy if row.clean else None),
    "clean_accuracy_std": lambda row: _low(row.clean.accuracy_std if row.clean else None),
    "clean_worst_class": lambda row: _text(row.clean.worst_class if row.clean else None),
    "clean_worst_accuracy": lambda row: _high(row.clean.worst_accuracy if row.clean else None),
    "clean_nsd": lambda row: _low(row.clean.nsd if row.clean else None),
    # As the headings of the tables call them.
    "robust": lambda row: _high(row.robust.accuracy),
    "clean": lambda row: _high(row.clean.accuracy if row.clean else None),
    "worst": lambda row: _high(row.robust.worst_accuracy),
}
"""Column -> the key that sorts by it. The better figure of a column is always above the worse."""


@dataclass(frozen=True)
class Scope:
    """Which complete evaluations are looked at; a part that is None leaves nothing out.

    Attributes:
        checkpoints: by checkpoint_id.
        datasets: by dataset_id.
        attacks: by attack_id.
    """

    checkpoints: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    attacks: tuple[str, ...] | None = None

    def conditions(self) -> dict[str, tuple[str, ...]]:
        """What a row's columns must be among."""
        parts = {"checkpoint_id": self.checkpoints, "dataset_id": self.datasets, "attack_id": self.attacks}
        return {column: ids for column, ids in parts.items() if ids is not None}


EVERYTHING = Scope()


def boards(
    store: Queryable, *, dataset: str | None = None, sort: str = "accuracy", scope: Scope = EVERYTHING
) -> list[Board]:
    """Every board that the complete evaluations of a database give.

    Args:
        store: the database.
        dataset: only the data sets of this name; None for all.
        sort: column of `SORTS` that orders the rows of each board; ties by method, variant, model and recipe.
        scope: only these evaluations, such as those of one study.

    Returns:
        The boards by data set and budget, in each the strongest attack first: autoattack, then by mean accuracy.
        The unattacked images make a board only where no attack was run on them.

    Raises:
        UnknownName: no such column, or no such data set among the evaluated ones.
        BadStore: the database holds no complete evaluation.
    """
    if sort not in SORTS:
        raise UnknownName.among("column", sort, SORTS)
    known = _evaluated_datasets(store)
    if dataset is not None and dataset not in known:
        raise UnknownName.among("evaluated data set", dataset, known)
    made = sorted((_sorted(board, sort) for board in _read(store, dataset, scope)), key=_order)
    attacked = {board.dataset_id for board in made if not board.is_clean}
    return [board for board in made if not board.is_clean or board.dataset_id not in attacked]


def tell_apart(rows: Sequence[Row], shown: Sequence[str] = ()) -> list[str]:
    """(len(rows),) names of the rows, with what tells them apart added where names alone do not.

    Args:
        rows: rows of one table or figure.
        shown: attributes of a row that the reader sees beside the name anyway.
    """
    names = [row.name for row in rows]
    beside = [tuple(getattr(row, attribute) for attribute in shown) for row in rows]
    for attribute in ("model", "preset", "selection", "recipe_id"):
        if attribute in shown:
            continue
        values = [str(getattr(row, attribute)) for row in rows]
        among = defaultdict(set)
        for name, seen, value in zip(names, beside, values, strict=True):
            among[name, seen].add(value)
        names = [
            f"{name} · {value or 'unknown'}" if len(among[name, seen]) > 1 else name
            for name, seen, value in zip(names, beside, values, strict=True)
        ]
    return names


def arenas(boards: Iterable[Board]) -> list[list[Board]]:
    """The boards whose figures may stand side by side: same samples, norm and radius; in the order given."""
    together: dict[tuple[str, str, str], list[Board]] = {}
    for board in boards:
        together.setdefault(board.arena, []).append(board)
    return list(together.values())


@dataclass(frozen=True)
class _Cell:
    """One checkpoint under one attack, with its counts per class; `n` is 0 for a class without samples."""

    board: Board
    entry: tuple[str, str, str, str, str, str]
    checkpoint: str
    seed: int
    n: tuple[int, ...]
    correct: tuple[int, ...]


def _evaluated_datasets(store: Queryable) -> set[str]:
    found = store.query("SELECT DISTINCT name FROM complete_evaluations JOIN datasets USING (dataset_id)")
    if len(found) == 0:
        begun = int(store.query("SELECT count(*) AS n FROM evaluations")["n"][0])
        if begun:
            raise BadStore(
                f"none of the {begun} evaluations in the database is complete; run what made them again to finish them"
            )
        raise BadStore("the database holds no evaluation; 'evenbench evaluate' or 'evenbench run' makes some")
    return {str(name) for name in found["name"]}


def _read(store: Queryable, dataset: str | None, scope: Scope) -> list[Board]:
    """Boards with unsorted rows, the clean ones included."""
    together: dict[tuple[str, str], dict[tuple[str, ...], list[_Cell]]] = {}
    for cell in _cells(store, dataset, scope):
        entries = together.setdefault((cell.board.dataset_id, cell.board.attack_id), {})
        entries.setdefault(cell.entry, []).append(cell)
    clean: dict[str, dict[str, dict[str, _Cell]]] = defaultdict(dict)
    for (dataset_id, attack_id), entries in together.items():
        cells = [cell for row in entries.values() for cell in row]
        if cells[0].board.is_clean:
            clean[dataset_id][attack_id] = {cell.checkpoint: cell for cell in cells}
    # Of several clean fingerprints (another precision) one serves all rows: the one that most checkpoints have.
    unattacked = {
        dataset_id: min(found.items(), key=lambda item: (-len(item[1]), item[0]))[1]
        for dataset_id, found in clean.items()
    }
    return [
        _board(list(entries.values()), unattacked.get(dataset_id, {})) for (dataset_id, _), entries in together.items()
    ]


def _cells(store: Queryable, dataset: str | None, scope: Scope) -> Iterator[_Cell]:
    conditions, params = ["true"], list[object]()
    if dataset is not None:
        conditions.append("c.dataset = ?")
        params.append(dataset)
    for column, ids in scope.conditions().items():
        conditions.append(f"c.{column} IN (SELECT unnest(?))")
        params.append(list(ids))
    found = store.query(
        f"""
        SELECT c.dataset, c.split, c.subset, c.dataset_id, d.class_names, c.attack, c.attack_id, c.norm, c.eps,
               c.eps_exact, c.method, c.variant, c.model, c.recipe_id, c.preset, k.selection, c.checkpoint_id,
               coalesce(c.seed, -1) AS seed, list(c.class ORDER BY c.class) AS classes,
               list(c.n ORDER BY c.class) AS n, list(c.correct ORDER BY c.class) AS correct
        FROM class_accuracy c
        JOIN datasets d USING (dataset_id)
        JOIN checkpoints k USING (checkpoint_id)
        WHERE {" AND ".join(conditions)}
        GROUP BY ALL
        ORDER BY c.attack_id, seed, c.checkpoint_id
        """,
        params,
    )
    for row in found.to_dict("records"):
        names = tuple(str(name) for name in row["class_names"])
        n, correct = [0] * len(names), [0] * len(names)
        for label, total, hits in zip(row["classes"], row["n"], row["correct"], strict=True):
            n[int(label)], correct[int(label)] = int(total), int(hits)
        board = Board(
            dataset=str(row["dataset"]),
            split=str(row["split"]),
            subset=str(row["subset"]),
            dataset_id=str(row["dataset_id"]),
            class_names=names,
            samples=sum(n),
            attack=str(row["attack"]),
            attack_id=str(row["attack_id"]),
            norm=str(row["norm"]),
            eps=float(row["eps"]),
            eps_exact=str(row["eps_exact"]),
            rows=(),
        )
        method, variant, model, recipe_id, preset, selection = (
            str(row[key]) for key in ("method", "variant", "model", "recipe_id", "preset", "selection")
        )
        entry = (method, variant, model, recipe_id, preset, selection)
        yield _Cell(board, entry, str(row["checkpoint_id"]), int(row["seed"]), tuple(n), tuple(correct))


def _board(entries: list[list[_Cell]], unattacked: Mapping[str, _Cell]) -> Board:
    board = entries[0][0].board
    rows = [_row(cells, unattacked) for cells in entries]
    ranked = [replace(row, rank=1 + sum(other.robust.accuracy > row.robust.accuracy for other in rows)) for row in rows]
    return replace(board, rows=tuple(ranked))


def _row(cells: Sequence[_Cell], unattacked: Mapping[str, _Cell]) -> Row:
    names = cells[0].board.class_names
    method, variant, model, recipe_id, preset, selection = cells[0].entry
    checkpoints = tuple(cell.checkpoint for cell in cells)
    at_rest = [unattacked[checkpoint] for checkpoint in checkpoints if checkpoint in unattacked]
    return Row(
        rank=0,
        method=method,
        variant=variant,
        preset=preset,
        model=model,
        selection=selection,
        recipe_id=recipe_id,
        checkpoints=checkpoints,
        robust=_score(cells, names),
        clean=_score(at_rest, names) if len(at_rest) == len(cells) else None,
    )


def _score(cells: Sequence[_Cell], names: Sequence[str]) -> Score:
    accuracies = [sum(cell.correct) / sum(cell.n) for cell in cells]
    by_class = [metrics.ratios(cell.correct, cell.n) for cell in cells]
    means = tuple(_mean([value for value in column if not math.isnan(value)]) for column in zip(*by_class, strict=True))
    labels = [metrics.worst_class(vector) for vector in by_class]
    named = min(set(labels), key=lambda label: (-labels.count(label), means[label], label))
    nsds = [nsd for vector in by_class if not math.isnan(nsd := metrics.nsd(vector))]
    return Score(
        accuracy=math.fsum(accuracies) / len(accuracies),
        accuracy_std=_spread(accuracies),
        worst_accuracy=math.fsum(metrics.worst_accuracy(vector) for vector in by_class) / len(by_class),
        worst_class=names[named],
        worst_seeds=labels.count(named),
        nsd=_mean(nsds),
        nsd_std=_spread(nsds),
        class_accuracy=means,
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(float(value) for value in values) / len(values) if values else None


def _spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for less than two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _sorted(board: Board, sort: str) -> Board:
    key = SORTS[sort]
    return replace(board, rows=tuple(sorted(board.rows, key=lambda row: (key(row), row.entry))))


def _order(board: Board) -> tuple[object, ...]:
    """Boards of the same samples and budget stay together, the strongest attack first."""
    mean = math.fsum(row.robust.accuracy for row in board.rows) / len(board.rows)
    return (
        board.dataset,
        board.split,
        board.subset,
        board.dataset_id,
        board.norm,
        board.eps,
        board.eps_exact,
        board.attack != STRONGEST,
        mean,
        board.attack,
        board.attack_id,
    )
