"""Check: has a candidate become worse than a baseline? A verdict with an exit code, for a gate.

Every figure under every attack is held against a margin by its interval: the accuracy, each class, the worst class and
the NSD, in one family at one level (`changes`, `margins`). Which question the intervals answer is the first line: with
three seeds or more of each, what another training on other images would bring; with fewer, these checkpoints only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, get_args

from bench.errors import BadOption, UnknownName
from bench.report.changes import POWER, Change, Kind, changes
from bench.report.inference.crossed import FEWEST_SEEDS, Question
from bench.report.inference.paired import mcnemar
from bench.report.margins import Margins, Word, judged, together
from bench.report.names import Entry, calls_attack, find
from bench.report.tables import Table, text_table
from bench.report.trials import Met, Trials, meet
from bench.store.database import Store

EXIT_CODES: dict[Word, int] = {"better": 0, "not worse": 0, "inconclusive": 0, "worse": 1, "incomparable": 2}
"""What the command exits with; not where the check is strict, or vetoed."""
EXIT_INCONCLUSIVE = 3
"""Of an inconclusive check that is strict, or whose candidate fails a soundness check."""

_HEADER = ("figure", "baseline", "candidate", "difference", "interval", "margin", "verdict")
_MOST_NAMED = 4


@dataclass(frozen=True)
class Finding:
    """One figure under one attack, judged.

    Attributes:
        change: the figure of both and the intervals of the difference.
        margin: what may be lost of it.
        verdict: worse, not worse, better or inconclusive.
    """

    change: Change
    margin: float
    verdict: Word

    @property
    def name(self) -> str:
        """What it is of."""
        return f"class {self.change.name}" if self.change.kind == "class" else self.change.kind

    def shown(self, value: float, *, signed: bool = False) -> str:
        """A value in the unit of the figure: percent or points, or an NSD."""
        if self.change.kind == "NSD":
            return f"{value:+.3f}" if signed else f"{value:.3f}"
        return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"

    @property
    def row(self) -> tuple[str, ...]:
        """A row of the table."""
        one = self.change
        low, high = one.interval
        named = one.name.split(" ") if one.kind == "worst class" else [""]
        sides = [
            self.shown(value) + (f" ({name})" if name else "")
            for value, name in ((one.baseline, named[0]), (one.candidate, named[-1]))
        ]
        interval = f"{self.shown(low, signed=True)} to {self.shown(high, signed=True)}"
        margin = f"{self.margin:g}" if one.kind == "NSD" else f"{100 * self.margin:g}"
        return (self.name, *sides, self.shown(one.difference, signed=True), interval, margin, self.verdict)


@dataclass(frozen=True)
class Judged:
    """One data set and attack.

    Attributes:
        trials: who took part, and what became of every image.
        findings: accuracy, worst class, NSD and the classes.
    """

    trials: Trials
    findings: tuple[Finding, ...]

    def table(self) -> Table:
        """Accuracy, worst class, NSD, the class that lost most, and every class that is worse; points or NSD."""
        classes = [one for one in self.findings if one.change.kind == "class"]
        lowest = min(classes, key=lambda one: one.change.difference, default=None)
        rows = [one for one in self.findings if one.change.kind != "class" or one is lowest or one.verdict == "worse"]
        title = f"{self.trials.setting.title}, {self.trials.labels.size} images"
        return text_table(title, _HEADER, [one.row for one in rows], words=("verdict",))


@dataclass(frozen=True)
class Decision:
    """What a check decides.

    Attributes:
        candidate: the entry that is judged.
        baseline: the entry it is judged against.
        question: what is answered.
        seeds_vary: whether the intervals allow for other seeds.
        alpha: level, for all figures together.
        strict: whether an inconclusive check fails.
        judged: one per data set and attack that both met; clean first.
        verdict: as `bench.report.margins.together` has it; what is better or not worse only with sound figures.
        unsound: soundness checks that the candidate fails on this data within these budgets.
        doubtful: those that the baseline fails.
        reason: why nothing could be compared; "" where something could.
        unshared: titles of what only one of the two was evaluated on, and which.
        left_out: spellings of checkpoints that take part nowhere.
    """

    candidate: Entry
    baseline: Entry
    question: Question
    seeds_vary: bool
    alpha: float
    strict: bool
    judged: tuple[Judged, ...]
    verdict: Word
    unsound: tuple[str, ...]
    doubtful: tuple[str, ...]
    reason: str
    unshared: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for better, not worse, and inconclusive; 1 for worse; 2 for incomparable.

        3 for inconclusive where the check is strict or the candidate fails a soundness check.
        """
        if self.verdict == "inconclusive" and (self.strict or self.unsound):
            return EXIT_INCONCLUSIVE
        return EXIT_CODES[self.verdict]

    @property
    def findings(self) -> list[tuple[Judged, Finding]]:
        """Every figure with what it is under."""
        return [(each, one) for each in self.judged for one in each.findings]

    @property
    def heading(self) -> str:
        """Which question is answered, in one line."""
        many = len({one.trials.seeds for one in self.judged}) > 1
        seeds = min((one.trials.seeds for one in self.judged), default=0)
        count = f"{seeds} {'or more ' if many else ''}{'seed' if seeds == 1 else 'seeds'} of each"
        paired = all(one.trials.paired for one in self.judged)
        how = "paired by seed and image" if paired else "paired by image only, as the seeds differ: less is seen so"
        match self.question:
            case "method":
                return f"About the methods, on other seeds and other images: {count}, {how}."
            case "images":
                return f"About the methods, on other seeds and these images: {count}, {how}."
        why = f"; a verdict on a method needs {FEWEST_SEEDS} seeds of each" if seeds < FEWEST_SEEDS else ""
        more = ". Intervals allow for other seeds as far as two tell" if self.seeds_vary else ""
        return f"About these checkpoints only, on other images: {count}, {how}{why}{more}."

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        names = f"{self.candidate.spelled} against {self.baseline.spelled}"
        if self.verdict == "incomparable":
            return f"incomparable: {self.reason}"
        if self.unsound and self.verdict == "inconclusive":
            failed = ", ".join(self.unsound)
            return f"inconclusive: {names}, as the candidate fails {failed}; do not trust it before the reason is known"
        if self.verdict == "not worse":
            return f"not worse: {names}, no figure by its margin"
        found = [(each, one) for each, one in self.findings if one.verdict == self.verdict]
        found.sort(key=lambda pair: pair[1].change.sense * pair[1].change.difference / max(pair[1].change.error, 1e-9))
        if self.verdict == "better":
            found.reverse()
        if self.verdict == "inconclusive":
            share = f"{len(found)} of {len(self.findings)} figures may be worse by more than their margins"
            return f"inconclusive: {names}, {share}; most of all {_named(*found[0])}"
        listed = ", ".join(_named(*pair) for pair in found[:_MOST_NAMED])
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        return f"{self.verdict}: {names}, {listed}{more}"

    def tables(self) -> list[Table]:
        """One per data set and attack."""
        return [one.table() for one in self.judged]

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        said = [f"Not compared: {title}." for title in self.unshared]
        if self.left_out:
            said.append(f"Left out, as the other has no such seed: {', '.join(self.left_out)}.")
        if self.doubtful:
            said.append(f"The baseline fails {', '.join(self.doubtful)}: its figures may be too high.")
        if self.judged:
            figures = len(self.findings)
            said.append(
                f"Intervals hold for all {figures} figures at once with {100 * (1 - self.alpha):g} %: differences in "
                "points, of the NSD as it is."
            )
            said.append(f"The smallest loss that would have been called worse (power {POWER:g}): {self._visible()}.")
        return said

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; fractions for accuracies."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "question": self.question,
            "seeds_vary": self.seeds_vary,
            "reason": self.reason,
            "candidate": self.candidate.spelled,
            "baseline": self.baseline.spelled,
            "alpha": self.alpha,
            "strict": self.strict,
            "unsound": list(self.unsound),
            "doubtful": list(self.doubtful),
            "findings": [_as_dict(one) for one in self.judged],
            "unshared": list(self.unshared),
            "left_out": list(self.left_out),
        }

    def _visible(self) -> str:
        """By kind, under the attack where the least could be seen."""
        kinds: tuple[Kind, ...] = ("accuracy", "class", "worst class", "NSD")
        units = {"accuracy": "accuracy", "class": "a class", "worst class": "the worst class", "NSD": "NSD"}
        parts = []
        for kind in kinds:
            of_kind = [one for _, one in self.findings if one.change.kind == kind]
            if of_kind:
                loss, one = max(((one.change.visible(one.margin), one) for one in of_kind), key=lambda pair: pair[0])
                if kind != "NSD" and loss >= 1:
                    parts.append(f"{units[kind]} none")
                else:
                    parts.append(f"{units[kind]} {one.shown(loss)}" + ("" if kind == "NSD" else " points"))
        return ", ".join(parts)


def check(
    store: Store,
    candidate: str,
    baseline: str,
    *,
    attack: str | None = None,
    alpha: float = 0.05,
    margins: Margins = Margins(),  # noqa: B008 - a frozen value
    question: Question | None = None,
    strict: bool = False,
) -> Decision:
    """Judge a candidate against a baseline on the same images under the same attacks.

    A candidate no different anywhere is called worse, or better, with the probability `alpha` at most, and one that is
    worse by more than a margin anywhere is called not worse with `alpha` at most.

    Args:
        store: where the outcomes are.
        candidate: the entry to judge, in any spelling that `bench.report.names.find` understands.
        baseline: the entry to judge it against.
        attack: name of an attack, or the first four or more digits of its fingerprint; None for every attack that
            both met, clean included.
        alpha: level, in (0, 0.5).
        margins: what may be lost.
        question: what may vary; None for the method where there are seeds enough. With fewer than three of either side
            these checkpoints are what is answered, with intervals that allow for other seeds where there are two.
        strict: whether an inconclusive check fails.

    Raises:
        UnknownName: nothing is called `candidate` or `baseline`, or no attack is called `attack`.
        AmbiguousName: more than one entry is called so.
        BadOption: alpha is out of range.
        BadStore: evaluations on the same images contradict each other.
    """
    if not 0 < alpha < 0.5:
        raise BadOption(f"alpha is {alpha}; a level of significance lies between 0 and 0.5, such as 0.05")
    one, other = find(store, candidate), find(store, baseline)
    if attack is not None:
        _refuse_unknown(store, attack)
    met = meet(store, one, other, attack=attack)
    fewest = min((trials.seeds for trials in met.trials), default=0)
    asked_for: Question = question or "method"
    answered: Question = asked_for if fewest >= FEWEST_SEEDS else "checkpoints"
    found = changes(met.trials, asked_for if answered == asked_for else "method", alpha)
    judgements = tuple(
        Judged(trials, tuple(_finding(change, margins) for change in row))
        for trials, row in zip(met.trials, found, strict=True)
    )
    unsound, doubtful = (_failed(store, side, met) for side in (one, other))
    verdict = together([finding.verdict for each in judgements for finding in each.findings])
    if unsound and verdict in ("better", "not worse"):
        verdict = "inconclusive"
    return Decision(
        candidate=one,
        baseline=other,
        question=answered,
        seeds_vary=asked_for != "checkpoints" and fewest > 1,
        alpha=alpha,
        strict=strict,
        judged=judgements,
        verdict=verdict,
        unsound=unsound,
        doubtful=doubtful,
        reason="" if met.trials else _reason(one, other, attack),
        unshared=tuple(
            f"{title}, which only the {who} met"
            for who, titles in (("baseline", met.only_baseline), ("candidate", met.only_candidate))
            for title in titles
        ),
        left_out=met.left_out,
    )


def asked(question: str | None) -> Question | None:
    """The question that a person names; None for none.

    Raises:
        UnknownName: there is no such question.
    """
    if question is None:
        return None
    for known in get_args(Question):
        if question == known:
            return cast(Question, known)
    raise UnknownName.among("question", question, get_args(Question))


def _finding(change: Change, margins: Margins) -> Finding:
    margin = margins.of(change.kind)
    return Finding(change, margin, judged(change, margin))


def _named(each: Judged, one: Finding) -> str:
    low, high = one.change.interval
    setting = each.trials.setting
    ends = f"{one.shown(low, signed=True)} to {one.shown(high, signed=True)}"
    return f"{one.name} under {setting.attack} by {one.shown(one.change.difference, signed=True)} ({ends})"


def _reason(one: Entry, other: Entry, attack: str | None) -> str:
    if attack is not None:
        return f"the two share no complete evaluation under {attack!r}"
    return f"{other.spelled} and {one.spelled} share no complete evaluation: same data set, same attack"


def _failed(store: Store, entry: Entry, met: Met) -> tuple[str, ...]:
    """Names of the soundness checks that an entry fails on the data and within the budgets of the check."""
    taking_part = {
        member.checkpoint_id
        for trials in met.trials
        for side in (trials.baseline, trials.candidate)
        for member in side.members
        if member in entry.members
    }
    settings = {(one.setting.dataset_id, one.setting.norm, one.setting.eps_exact) for one in met.trials}
    if not settings:
        return ()
    rows = store.rows(
        "SELECT check_name, dataset_id, norm, eps_exact FROM checks "
        "WHERE verdict = 'fail' AND checkpoint_id IN (SELECT unnest(?)) ORDER BY check_name",
        [sorted(taking_part)],
    )
    data = {dataset_id for dataset_id, _, _ in settings}
    return tuple(
        dict.fromkeys(
            name
            for name, dataset_id, norm, eps in rows
            if (dataset_id, norm, eps) in settings or (norm == "none" and dataset_id in data)
        )
    )


def _refuse_unknown(store: Store, attack: str) -> None:
    known = [(str(name), str(attack_id)) for name, attack_id in store.rows("SELECT name, attack_id FROM attacks")]
    if not any(calls_attack(attack, name, attack_id) for name, attack_id in known):
        raise UnknownName.among("attack", attack, {name for name, _ in known})


def _as_dict(each: Judged) -> dict[str, Any]:
    trials = each.trials
    return {
        **trials.setting.as_dict(),
        "n": int(trials.labels.size),
        "paired": trials.paired,
        "seeds_candidate": [member.seed for member in trials.candidate.members],
        "seeds_baseline": [member.seed for member in trials.baseline.members],
        **_discordant(trials),
        "figures": [
            {
                "figure": one.change.kind,
                "name": one.change.name,
                "baseline": one.change.baseline,
                "candidate": one.change.candidate,
                "difference": one.change.difference,
                "interval": list(one.change.interval),
                "single_interval": list(one.change.single),
                "standard_error": one.change.error,
                "margin": one.margin,
                "visible": one.change.visible(one.margin),
                "verdict": one.verdict,
            }
            for one in each.findings
        ],
    }


def _discordant(trials: Trials) -> dict[str, Any]:
    """What a single pair of checkpoints differs in, with McNemar's exact p-value; nothing of several seeds."""
    if not (trials.paired and trials.seeds == 1):
        return {}
    candidate, baseline = trials.candidate.correct[0], trials.baseline.correct[0]
    won, lost = int((candidate & ~baseline).sum()), int((baseline & ~candidate).sum())
    return {"only_candidate": won, "only_baseline": lost, "p": mcnemar(lost, won)}
