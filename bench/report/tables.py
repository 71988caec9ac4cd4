"""Tables as values: what a board shows, column by column, before any format is chosen.

The terminal, Markdown and the page are three spellings of the same cells, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.report.boards import DOUBTFUL, Board, Calibration, Row, Score, tell_apart

MISSING = "–"  # noqa: RUF001 - the dash that tables use for no value
"""What a cell shows where there is no figure."""

Value = float | str | None


@dataclass(frozen=True)
class Heading:
    """The head of a column.

    Attributes:
        title: what the table shows.
        meaning: one sentence for a reader who has never seen the board; "" where the title says it.
        better: which figure is the better one, None where neither is.
        numeric: whether the cells are figures.
        brief: whether the column has a place in the terminal, where width is short.
    """

    title: str
    meaning: str = ""
    better: Literal["high", "low"] | None = None
    numeric: bool = True
    brief: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell: what is shown, what it sorts by."""

    text: str
    value: Value


@dataclass(frozen=True)
class Table:
    """Headings and cells under a title.

    Attributes:
        title: what the table is about.
        note: what else a reader needs to know, in one line.
        headings: (columns,).
        rows: (rows, columns).
        doubtful: the rows that fail a soundness check; their names have a sign, and the note names the checks.
    """

    title: str
    note: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    doubtful: frozenset[int] = frozenset()

    def is_best(self, row: int, column: int) -> bool:
        """Whether this cell shows the best of several different figures of its column."""
        better = self.headings[column].better
        values = [cells[column].value for cells in self.rows]
        figures = [value for value in values if isinstance(value, float)]
        if better is None or len(set(figures)) < 2:
            return False
        return values[row] == (max(figures) if better == "high" else min(figures))


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in percent, with fixed decimals and without the sign."""
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def figure(value: float | None) -> str:
    """A plain figure such as an NSD, with three decimals."""
    return MISSING if value is None else f"{value:.3f}"


def with_spread(value: float | None, spread: float | None) -> str:
    """`78.0 ± 0.4`, in percent; without the spread where there is one seed only."""
    return percent(value) if spread is None else f"{percent(value)} ± {percent(spread)}"


def worst(score: Score | None, seeds: int) -> str:
    """`54.2 (cat)`; `54.2 (cat, 2/3)` where the seeds do not agree on the class."""
    if score is None:
        return MISSING
    agreed = "" if score.worst_seeds == seeds else f", {score.worst_seeds}/{seeds}"
    return f"{percent(score.worst_accuracy)} ({score.worst_class}{agreed})"


_MEANING_WORST = (
    "Accuracy in percent of the class that fares worst, and which one that is; over several seeds the mean of each "
    "seed's worst class, named after the most frequent one (2/3: in two of three seeds)."
)
_MEANING_NSD = (
    "Normalized standard deviation of the class accuracies: their spread divided by their mean. "
    "0 means that all classes fare alike; lower is fairer."
)

RANK = Heading("#", "Rank by robust accuracy.", "low")
METHOD = Heading("method", "Training method; in brackets what was changed from its preset.", None, False)
MODEL = Heading("model", "Network architecture.", None, False)
SEEDS = Heading("seeds", "Number of trainings averaged, which differ in the random seed only.")
CLEAN = Heading("clean", "Percent of the unattacked test images classified correctly.", "high")
ROBUST = Heading(
    "robust",
    "Percent of the test images still classified correctly when attacked; ± is the standard deviation over seeds.",
    "high",
)
WORST = Heading("worst class", _MEANING_WORST, "high")
WORST_BRIEF = Heading("worst", _MEANING_WORST, "high")
NSD = Heading("NSD", _MEANING_NSD, "low")
CLEAN_WORST = Heading("clean worst", "The worst class of the unattacked images.", "high", True, False)
CLEAN_NSD = Heading("clean NSD", "NSD of the class accuracies on unattacked images.", "low", True, False)
ECE = Heading(
    "ECE",
    "Expected calibration error under the attack, in percent: how far the confidence of the predictions lies from the "
    "share of them that is right, on average over 15 bins of equal width. Lower is better.",
    "low",
    True,
    False,
)
CLEAN_ECE = Heading("clean ECE", "Expected calibration error on the unattacked images, in percent.", "low", True, False)
DIVERGENCE = Heading(
    "KL",
    "How far the attack moves the output: mean Kullback-Leibler divergence of the softmax on the clean image from that "
    "on the attacked one, in nats; 0 for images that were wrong unattacked.",
    "low",
    True,
    False,
)
BEST_KNOWN = Heading(
    "best known",
    "Percent classified correctly under every one of several attacks: a sample counts as broken as soon as any of them "
    "broke it, whatever its strength. It is not an attack, so it compares with no attack's figure.",
    "high",
)
KEPT = Heading("kept epoch", "Rule that chose the training epoch that is judged.", None, False, False)

EXPLAINED = (
    *(RANK, METHOD, MODEL, SEEDS, CLEAN, ROBUST, WORST, NSD, CLEAN_WORST, CLEAN_NSD, ECE, DIVERGENCE, KEPT),
    BEST_KNOWN,
)
"""Every heading that a board can have, for a page that explains them."""

Reader = Callable[[Row], Cell]

_ATTACKED: tuple[tuple[Heading, Reader], ...] = (
    (MODEL, lambda row: Cell(row.model, row.model)),
    (SEEDS, lambda row: Cell(str(row.seeds), float(row.seeds))),
    (CLEAN, lambda row: _accuracy(row.clean)),
    (ROBUST, lambda row: _accuracy(row.robust)),
    (WORST, lambda row: _worst(row.robust, row.seeds)),
    (NSD, lambda row: _nsd(row.robust)),
    (CLEAN_WORST, lambda row: _worst(row.clean, row.seeds)),
    (CLEAN_NSD, lambda row: _nsd(row.clean)),
    (ECE, lambda row: _ece(row.robust)),
    (DIVERGENCE, lambda row: _divergence(row.robust)),
    (KEPT, lambda row: Cell(row.selection or MISSING, row.selection or None)),
)
_UNATTACKED: tuple[tuple[Heading, Reader], ...] = (
    (MODEL, lambda row: Cell(row.model, row.model)),
    (SEEDS, lambda row: Cell(str(row.seeds), float(row.seeds))),
    (CLEAN, lambda row: _accuracy(row.robust)),
    (WORST, lambda row: _worst(row.robust, row.seeds)),
    (NSD, lambda row: _nsd(row.robust)),
    (CLEAN_ECE, lambda row: _ece(row.robust)),
    (KEPT, lambda row: Cell(row.selection or MISSING, row.selection or None)),
)


def board_table(board: Board, *, brief: bool = False) -> Table:
    """One board, a row per entry.

    Args:
        board: what to show.
        brief: for a narrow place: only the brief columns, and the model beside the name where it differs.
    """
    columns = [
        (heading, read)
        for heading, read in (_UNATTACKED if board.is_clean else _ATTACKED)
        if not brief or (heading.brief and heading is not MODEL)
    ]
    names = tell_apart(board.rows, shown=() if brief else ("model", "selection"))
    rows = tuple(
        (Cell(str(row.rank), float(row.rank)), Cell(name, name), *(read(row) for _, read in columns))
        for row, name in zip(board.rows, names, strict=True)
    )
    note = (
        f"{board.samples} samples, {len(board.class_names)} classes; "
        f"{'attack' if brief else 'attack fingerprint'} {board.attack_id}, data {board.dataset_id}"
        + (_common_model(board.rows) if brief else "")
        + _doubts(board.rows, names)
    )
    return Table(
        title_of(board), note, (RANK, METHOD, *(heading for heading, _ in columns)), rows, _doubtful(board.rows)
    )


def title_of(board: Board) -> str:
    """A board in words: `autoattack, Linf eps 8/255, on cifar10 test`."""
    return f"{board.attack}, {board.threat}, on {board.data}"


def overview_table(boards: Sequence[Board], *, brief: bool = False) -> Table | None:
    """All attacks on the same samples within the same budget, side by side: one fingerprint per column.

    Args:
        boards: boards of one arena, the strongest first; see `bench.report.boards.arenas`.
        brief: for a narrow place: the model beside the name, where it differs.

    Returns:
        A row per entry, in the order of the strongest board; None where one board says it all.
    """
    if len(boards) < 2:
        return None
    strongest = boards[0]
    under = [{row.entry: row for row in board.rows} for board in boards]
    entries = {entry: row for board in reversed(under) for entry, row in board.items()}
    order = [row.entry for row in strongest.rows]
    order += sorted(entry for entry in entries if entry not in under[0])
    listed = [entries[entry] for entry in order]
    names = tell_apart(listed, shown=() if brief else ("model", "selection"))
    known = [row.best_known for row in listed if row.best_known]
    over = [one.attacks for one in known] if len(known) == len(listed) else []
    rows = tuple(
        (
            Cell(name, name),
            *(() if brief else (Cell(row.model, row.model),)),
            _plain(row.clean),
            *(_plain(board[row.entry].robust if row.entry in board else None) for board in reversed(under)),
            *((_plain(row.best_known.score if row.best_known else None),) if over else ()),
            *_fairness(under[0].get(row.entry), brief=brief),
        )
        for row, name in zip(listed, names, strict=True)
    )
    attacks = [
        Heading(name, f"Percent classified correctly under the attack {name}.", "high")
        for name in reversed(_attack_names(boards))
    ]
    note = (
        f"percent of {strongest.samples} samples; worst class and NSD under {strongest.attack}; lower NSD is fairer"
        + (f"; best known: over {_span(over)} attacks" if over else "")
        + (_common_model(listed) if brief else "")
        + _doubts(listed, names)
    )
    title = f"all attacks, {strongest.threat}, on {strongest.data}"
    headings = (
        *((METHOD,) if brief else (METHOD, MODEL)),
        *(CLEAN, *attacks),
        *((BEST_KNOWN,) if over else ()),
        *(WORST_BRIEF if brief else WORST, NSD),
    )
    return Table(title, note, headings, rows, _doubtful(listed))


def class_table(board: Board) -> Table:
    """One board class by class: a row per entry, a column per class, accuracy in percent."""
    names = tell_apart(board.rows)
    rows = tuple(
        (Cell(name, name), *(Cell(percent(value, 0), value) for value in row.robust.class_accuracy))
        for row, name in zip(board.rows, names, strict=True)
    )
    under = "unattacked" if board.is_clean else f"under {board.attack}"
    note = (
        f"percent of each class's samples classified correctly {under}; the worst class of each row is underlined"
        + _doubts(board.rows, names)
    )
    headings = (METHOD, *(Heading(name, "", "high") for name in board.class_names))
    return Table(f"class by class, {title_of(board)}", note, headings, rows, _doubtful(board.rows))


_CONFIDENCE = Heading("confidence", "Mean confidence of the predictions, in percent.")
_ECE_MASS = Heading("equal mass", "Expected calibration error over 15 bins of equal numbers of samples.", "low")
_ERROR_CONFIDENCE = Heading("on errors", "Mean confidence of the wrong predictions, in percent.", "low")


def calibration_table(board: Board) -> Table:
    """Whether the confidences of each entry of a board can be believed, for a narrow place."""
    names = tell_apart(board.rows)

    def read(score: Score | None, of: Callable[[Calibration], float | None]) -> Cell:
        value = of(score.calibration) if score and score.calibration else None
        return Cell(percent(value), value)

    rows = tuple(
        (
            Cell(name, name),
            _plain(row.robust),
            read(row.robust, lambda of: of.mean_confidence),
            _ece(row.robust),
            read(row.robust, lambda of: of.ece_mass),
            read(row.robust, lambda of: of.error_confidence),
            _ece(row.clean),
            _divergence(row.robust),
        )
        for row, name in zip(board.rows, names, strict=True)
    )
    headings = (METHOD, ROBUST, _CONFIDENCE, ECE, _ECE_MASS, _ERROR_CONFIDENCE, CLEAN_ECE, DIVERGENCE)
    note = (
        "percent, but KL in nats; ECE: expected calibration error over 15 bins of equal width, or of equal mass; on "
        "errors: mean confidence where wrong; KL: of the clean from the attacked output" + _doubts(board.rows, names)
    )
    return Table(f"calibration, {title_of(board)}", note, headings, rows, _doubtful(board.rows))


def _doubtful(rows: Sequence[Row]) -> frozenset[int]:
    return frozenset(number for number, row in enumerate(rows) if row.failed_checks)


def _doubts(rows: Sequence[Row], names: Sequence[str]) -> str:
    """What the sign after some names means: which soundness checks these rows fail."""
    failing = [
        f"{name.removesuffix(DOUBTFUL).rstrip()} ({', '.join(row.failed_checks)})"
        for row, name in zip(rows, names, strict=True)
        if row.failed_checks
    ]
    return f"; {DOUBTFUL} fails soundness checks, do not trust its figures: {', '.join(failing)}" if failing else ""


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _attack_names(boards: Sequence[Board]) -> list[str]:
    """Names of the attacks; with the fingerprint's beginning where two attacks of one name differ."""
    names = [board.attack for board in boards]
    return [
        f"{board.attack} {board.attack_id[:6]}" if names.count(board.attack) > 1 else board.attack for board in boards
    ]


def _common_model(rows: Sequence[Row]) -> str:
    """The model, where the names of the rows do not say it because it is the same in all."""
    models = sorted({row.model for row in rows})
    return f"; model {models[0]}" if len(models) == 1 else ""


def _accuracy(score: Score | None) -> Cell:
    if score is None:
        return Cell(MISSING, None)
    return Cell(with_spread(score.accuracy, score.accuracy_std), score.accuracy)


def _plain(score: Score | None) -> Cell:
    return Cell(MISSING, None) if score is None else Cell(percent(score.accuracy), score.accuracy)


def _fairness(row: Row | None, *, brief: bool) -> tuple[Cell, Cell]:
    if row is None:
        return Cell(MISSING, None), Cell(MISSING, None)
    lowest = row.robust.worst_accuracy
    return Cell(percent(lowest), lowest) if brief else _worst(row.robust, row.seeds), _nsd(row.robust)


def _worst(score: Score | None, seeds: int) -> Cell:
    return Cell(worst(score, seeds), score.worst_accuracy if score else None)


def _nsd(score: Score | None) -> Cell:
    return Cell(figure(score.nsd if score else None), score.nsd if score else None)


def _ece(score: Score | None) -> Cell:
    value = score.calibration.ece if score and score.calibration else None
    return Cell(percent(value), value)


def _divergence(score: Score | None) -> Cell:
    value = score.calibration.divergence if score and score.calibration else None
    return Cell(figure(value), value)
