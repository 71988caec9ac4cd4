"""The columns of a board: what each says of a row, declared once for every format.

The terminal, Markdown, the page, CSV, JSON, `--sort` and the explanations on the page are all made from these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.report.boards.values import Calibration, Row, Score
from bench.report.tables import MISSING, Datum, Heading, percent, plain

Fact = float | str | tuple[str, ...] | None
"""What a column says of a row; None where it is unknown."""
SortKey = tuple[bool, float, str]


@dataclass(frozen=True)
class Column:
    """One thing that a board says of each of its rows.

    Attributes:
        key: its name in CSV and in JSON, and for --sort unless `sort_names` gives others.
        read: the fact itself; fractions, not percentages.
        order: what a board sorted by it begins with: the highest figure, the lowest, or the first in the alphabet;
            None where boards are not sorted by it. The unknown is always last.
        heading: its head in tables; None where it is in CSV and JSON only.
        place: the tables it is in. "everywhere": also in the terminal, where width is short; "wide": on the page and in
            Markdown; "elsewhere": in none of a board's, but in another one, such as the overview.
        unattacked: its head on a board of unattacked images; "same" as under attack, or "none" where it has no place.
        form: how its fact is shown.
        text: what is shown where that takes more of the row than the fact.
        sort_names: its names for --sort, where they are not the key alone.
    """

    key: str
    read: Callable[[Row], Fact]
    order: Literal["high", "low", "text"] | None = None
    heading: Heading | None = None
    place: Literal["everywhere", "wide", "elsewhere"] = "everywhere"
    unattacked: Heading | Literal["same", "none"] = "same"
    form: Callable[[Any], str] = percent
    text: Callable[[Row], str] | None = None
    sort_names: tuple[str, ...] = ()

    @property
    def head(self) -> Heading:
        """Its heading; the key where it has none."""
        return self.heading or Heading(self.key)

    def heading_on(self, *, unattacked: bool) -> Heading | None:
        """Its heading on a board of unattacked images or another; None where it has no place there."""
        if not unattacked or self.unattacked == "same":
            return self.heading
        return None if self.unattacked == "none" else self.unattacked

    def datum(self, row: Row) -> Datum:
        """The cell of a row."""
        fact = self.read(row)
        text = self.form(fact) if self.text is None else self.text(row)
        return Datum(text, float(fact) if isinstance(fact, int | float) else str(fact) if fact else None)

    def exported(self, row: Row) -> Fact:
        """The fact as CSV and JSON give it."""
        fact = self.read(row)
        return rounded(fact) if isinstance(fact, float) else fact

    def sort_key(self, row: Row) -> SortKey:
        """What sorts a row by this column."""
        fact = self.read(row)
        if isinstance(fact, int | float):
            return (False, -fact if self.order == "high" else fact, "")
        return (fact is None, 0.0, str(fact or ""))


def rounded(figure: float | None) -> float | None:
    """A figure as CSV and JSON give it, with six decimals."""
    return None if figure is None else round(figure, 6)


def with_spread(score: Score | None) -> str:
    """`78.0 ± 0.4`, in percent; without the spread where there is one seed only."""
    if score is None or score.accuracy_std is None:
        return percent(score.accuracy if score else None)
    return f"{percent(score.accuracy)} ± {percent(score.accuracy_std)}"


def worst(score: Score | None, seeds: int) -> str:
    """`54.2 (cat)`; `54.2 (cat, 2/3)` where the seeds do not agree on the class."""
    if score is None:
        return MISSING
    agreed = "" if score.worst_seeds == seeds else f", {score.worst_seeds}/{seeds}"
    return f"{percent(score.worst_accuracy)} ({score.worst_class}{agreed})"


def _clean(of: Callable[[Score], Fact]) -> Callable[[Row], Fact]:
    """Reads the score of the unattacked images, which a row may lack."""
    return lambda row: of(row.clean) if row.clean else None


def _confidence(of: Callable[[Calibration], float | None]) -> Callable[[Row], Fact]:
    """Reads the calibration under the attack, which a row may lack."""
    return lambda row: of(row.robust.calibration) if row.robust.calibration else None


_CLEAN = Heading("clean", "Percent of the unattacked test images classified correctly.", "high")
_CLEAN_ECE = Heading("clean ECE", "Expected calibration error on the unattacked images, in percent.", "low")

METHOD = Column(
    "method",
    lambda row: row.method,
    "text",
    Heading("method", "Training method; in brackets what was changed from its preset.", numeric=False),
)
MODEL = Column(
    "model", lambda row: row.model, "text", Heading("model", "Network architecture.", numeric=False), "wide", form=str
)
SELECTION = Column(
    "selection",
    lambda row: row.selection,
    "text",
    Heading("kept epoch", "Rule that chose the training epoch that is judged.", numeric=False),
    "wide",
    form=lambda rule: rule or MISSING,
)
SEEDS = Column(
    "seeds",
    lambda row: row.seeds,
    "high",
    Heading("seeds", "Number of trainings averaged, which differ in the random seed only."),
    form=str,
)
RECIPE = Column("recipe_id", lambda row: row.recipe_id, "text")
ENTRY = (
    Column("rank", lambda row: row.rank, "low", Heading("#", "Rank by robust accuracy.", "low"), form=str),
    METHOD,
    Column("variant", lambda row: row.variant, "text"),
    Column("preset", lambda row: row.preset, "text"),
    MODEL,
)
"""Which entry a row is, and its place."""

CLEAN_ACCURACY = Column(
    "clean_accuracy",
    _clean(lambda score: score.accuracy),
    "high",
    _CLEAN,
    unattacked="none",
    text=lambda row: with_spread(row.clean),
    sort_names=("clean_accuracy", "clean"),
)
UNATTACKED = (CLEAN_ACCURACY, Column("clean_accuracy_std", _clean(lambda score: score.accuracy_std), "low"))
"""Accuracy on the unattacked images."""

_ROBUST = "Percent of the test images still classified correctly when attacked; ± is the standard deviation over seeds."
ACCURACY = Column(
    "accuracy",
    lambda row: row.robust.accuracy,
    "high",
    Heading("robust", _ROBUST, "high"),
    unattacked=_CLEAN,
    text=lambda row: with_spread(row.robust),
    sort_names=("accuracy", "robust"),
)
_WORST = (
    "Accuracy in percent of the class that fares worst, and which one that is; over several seeds the mean of each "
    "seed's worst class, named after the most frequent one (2/3: in two of three seeds)."
)
WORST = Column(
    "worst_accuracy",
    lambda row: row.robust.worst_accuracy,
    "high",
    Heading("worst class", _WORST, "high"),
    text=lambda row: worst(row.robust, row.seeds),
    sort_names=("worst_accuracy", "worst"),
)
_NSD = (
    "Normalized standard deviation of the class accuracies: their spread divided by their mean. "
    "0 means that all classes fare alike; lower is fairer."
)
NSD = Column("nsd", lambda row: row.robust.nsd, "low", Heading("NSD", _NSD, "low"), form=plain)
ATTACKED = (
    ACCURACY,
    Column("accuracy_std", lambda row: row.robust.accuracy_std, "low"),
    Column("worst_class", lambda row: row.robust.worst_class, "text"),
    Column("worst_seeds", lambda row: row.robust.worst_seeds),
    WORST,
    NSD,
    Column("nsd_std", lambda row: row.robust.nsd_std, "low"),
)
"""Accuracy under the board's attack, and how the classes share it."""

_ECE = (
    "Expected calibration error under the attack, in percent: how far the confidence of the predictions lies from the "
    "share of them that is right, on average over 15 bins of equal width. Lower is better."
)
_ECE_MASS = "Expected calibration error over 15 bins of equal numbers of samples."
_ON_ERRORS = "Mean confidence of the wrong predictions, in percent."
_KL = (
    "How far the attack moves the output: mean Kullback-Leibler divergence of the softmax on the clean image from that "
    "on the attacked one, in nats; 0 for images that were wrong unattacked."
)
CALIBRATION = (
    Column(
        "mean_confidence",
        _confidence(lambda of: of.mean_confidence),
        heading=Heading("confidence", "Mean confidence of the predictions, in percent."),
        place="elsewhere",
    ),
    Column("ece", _confidence(lambda of: of.ece), "low", Heading("ECE", _ECE, "low"), "wide", _CLEAN_ECE),
    Column("ece_mass", _confidence(lambda of: of.ece_mass), None, Heading("equal mass", _ECE_MASS, "low"), "elsewhere"),
    Column(
        "error_confidence",
        _confidence(lambda of: of.error_confidence),
        None,
        Heading("on errors", _ON_ERRORS, "low"),
        "elsewhere",
    ),
    Column(
        "divergence",
        _confidence(lambda of: of.divergence),
        "low",
        Heading("KL", _KL, "low"),
        "wide",
        "none",
        form=plain,
    ),
    Column(
        "clean_ece",
        _clean(lambda score: score.calibration.ece if score.calibration else None),
        None,
        _CLEAN_ECE,
        "elsewhere",
    ),
)
"""Whether the confidences under the board's attack can be believed."""

_BEST_KNOWN = (
    "Percent classified correctly under every one of several attacks: a sample counts as broken as soon as any of them "
    "broke it, whatever its strength. It is not an attack, so it compares with no attack's figure."
)
BEST_KNOWN = Column(
    "best_known_accuracy",
    lambda row: row.best_known.score.accuracy if row.best_known else None,
    "high",
    Heading("best known", _BEST_KNOWN, "high"),
    "elsewhere",
    sort_names=("best_known",),
)
OTHERS = (
    Column("clean_worst_class", _clean(lambda score: score.worst_class), "text"),
    Column(
        "clean_worst_accuracy",
        _clean(lambda score: score.worst_accuracy),
        "high",
        Heading("clean worst", "The worst class of the unattacked images.", "high"),
        "wide",
        "none",
        text=lambda row: worst(row.clean, row.seeds),
    ),
    Column(
        "clean_nsd",
        _clean(lambda score: score.nsd),
        "low",
        Heading("clean NSD", "NSD of the class accuracies on unattacked images.", "low"),
        "wide",
        "none",
        form=plain,
    ),
    *CALIBRATION,
    BEST_KNOWN,
    Column("best_known_attacks", lambda row: row.best_known.attacks if row.best_known else None),
    Column("checks", lambda row: row.checks),
    Column("failed_checks", lambda row: row.failed_checks),
)
"""Everything else."""

# The same columns in the order of each format, which programs and eyes have got used to.
IN_TABLES = (*ENTRY, SEEDS, *UNATTACKED, *ATTACKED, *OTHERS, SELECTION)
IN_CSV = (*ENTRY, SELECTION, SEEDS, *UNATTACKED, *ATTACKED, *OTHERS)
IN_JSON = (*ENTRY, SELECTION, RECIPE, SEEDS, *ATTACKED, *UNATTACKED, *OTHERS)

SORTS: Mapping[str, Callable[[Row], SortKey]] = {
    name: column.sort_key for column in IN_JSON if column.order for name in column.sort_names or (column.key,)
} | {"method": lambda row: (False, 0.0, row.name)}  # as the board shows it, with the variant
"""Column -> the key that sorts by it. The better figure of a column is always above the worse."""


def columns_of(*, unattacked: bool, brief: bool) -> list[tuple[Column, Heading]]:
    """The columns of a board's table, of unattacked images or not, and their headings; `brief` for a narrow place."""
    shown = [column for column in IN_TABLES if column.place in (("everywhere",) if brief else ("everywhere", "wide"))]
    found = [(column, column.heading_on(unattacked=unattacked)) for column in shown]
    return [(column, heading) for column, heading in found if heading]


EXPLAINED = (*(heading for _, heading in columns_of(unattacked=False, brief=False)), BEST_KNOWN.head)
"""Every heading that a board or its overview can have, for a page that explains them."""
