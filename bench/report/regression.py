"""Check: has a candidate become worse than a baseline? A verdict with an exit code, for a gate.

The test is McNemar's, exact: of the samples that one of the two gets right and the other wrong, is the share of
either further from one half than chance would have it? A difference counts only when it is both significant and
larger than a floor, so that neither noise nor a trifle on many samples decides.

What it does not say: the test is about these checkpoints on samples like these. Over several seeds the discordant
pairs are pooled; they come from the same images, so a pooled p is a little too small, and how much a training would
differ when repeated is not tested. The differences of the single seeds are given beside the pooled one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.errors import BadOption, UnknownName
from bench.report.names import Entry, calls_attack, find
from bench.report.pairing import Counts, Meeting, pair
from bench.report.tables import Table, text_table
from bench.store.database import Store

Word = Literal["better", "same", "worse", "incomparable"]

EXIT_CODES: dict[Word, int] = {"better": 0, "same": 0, "worse": 1, "incomparable": 2}
"""What the command exits with."""

_HEADER = ("attack", "n", "baseline %", "candidate %", "difference", "lost", "won", "p", "adjusted p", "verdict")
"""`lost` counts the samples that only the baseline gets right, `won` the others."""


@dataclass(frozen=True)
class SeedDifference:
    """One pair of checkpoints under one attack, for orientation: the verdict is on all seeds together.

    Attributes:
        candidate: seed of the candidate's checkpoint, None when unknown.
        baseline: seed of the baseline's.
        difference: accuracy of the candidate minus that of the baseline.
        p: exact two-sided p-value of McNemar's test on this pair alone.
    """

    candidate: int | None
    baseline: int | None
    difference: float
    p: float


@dataclass(frozen=True)
class Difference:
    """The two under one attack.

    Attributes:
        meeting: data, attack and counts; a is the baseline, b the candidate.
        p: exact two-sided p-value of McNemar's test, discordant samples of all seeds pooled.
        adjusted: p after Holm's correction over all attacks of the check.
        verdict: better, same or worse.
        seeds: each pair of checkpoints for itself.
    """

    meeting: Meeting
    p: float
    adjusted: float
    verdict: Word
    seeds: tuple[SeedDifference, ...]


@dataclass(frozen=True)
class Decision:
    """What a check decides.

    Attributes:
        candidate: the entry that is judged.
        baseline: the entry it is judged against.
        alpha: level of significance, for all attacks together.
        floor: smallest difference of accuracies that counts, as a fraction.
        differences: one per data set and attack that both met; clean first.
        verdict: worse if any difference is; incomparable if there is none; else better if any is, else same.
        reason: why nothing could be compared; "" where something could.
        unshared: titles of what only one of the two was evaluated on, and which.
        unpaired: spellings of checkpoints whose seed the other entry lacks.
    """

    candidate: Entry
    baseline: Entry
    alpha: float
    floor: float
    differences: tuple[Difference, ...]
    verdict: Word
    reason: str
    unshared: tuple[str, ...]
    unpaired: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for better and same, 1 for worse, 2 for incomparable."""
        return EXIT_CODES[self.verdict]

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        names = f"{self.candidate.spelled} against {self.baseline.spelled}"
        if self.verdict == "incomparable":
            return f"incomparable: {self.reason}"
        worse = [one.meeting.title for one in self.differences if one.verdict == "worse"]
        better = [one.meeting.title for one in self.differences if one.verdict == "better"]
        rule = f"p at most {self.alpha:g} after correction, and more than {100 * self.floor:g} points"
        if self.verdict == "same":
            return f"same: {names}, no difference counts ({rule})"
        return f"{self.verdict}: {names}, on {', '.join(worse or better)} ({rule})"

    def table(self) -> Table:
        """One row per data set and attack; the difference in percentage points."""
        return text_table("", _HEADER, map(_row, self.differences))

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        said = [f"Not compared: {title}." for title in self.unshared]
        if self.unpaired:
            said.append(f"Left out, as the other has no such seed: {', '.join(self.unpaired)}.")
        if self.differences and all(len(one.seeds) == 1 for one in self.differences):
            said.append("One training seed each: how much another seed would differ is not tested.")
        return said

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; fractions for accuracies."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "candidate": self.candidate.spelled,
            "baseline": self.baseline.spelled,
            "alpha": self.alpha,
            "floor": self.floor,
            "findings": [_as_dict(one) for one in self.differences],
            "unshared": list(self.unshared),
            "unpaired": list(self.unpaired),
        }


def check(
    store: Store,
    candidate: str,
    baseline: str,
    *,
    attack: str | None = None,
    alpha: float = 0.05,
    floor: float = 0.005,
) -> Decision:
    """Judge a candidate against a baseline on the same samples under the same attacks.

    Per attack the candidate is worse, or better, when the exact McNemar p, after Holm's correction over all attacks,
    is at most `alpha` and the accuracies differ by more than `floor`; else it is the same. With the correction the
    chance that a candidate no different anywhere is called worse on any attack is at most `alpha`, however the attacks
    depend on each other.

    Args:
        store: where the outcomes are.
        candidate: the entry to judge, in any spelling that `bench.report.names.find` understands.
        baseline: the entry to judge it against.
        attack: name of an attack, or the first four or more digits of its fingerprint; None for every attack that
            both met, clean included.
        alpha: level of significance, in (0, 1).
        floor: fraction in [0, 1) that accuracies must differ by more than.

    Raises:
        UnknownName: nothing is called `candidate` or `baseline`, or neither met an attack called `attack`.
        AmbiguousName: more than one entry is called so.
        BadOption: alpha or floor is out of range.
    """
    if not 0 < alpha < 1:
        raise BadOption(f"alpha is {alpha}; a level of significance lies between 0 and 1, such as 0.05")
    if not 0 <= floor < 1:
        raise BadOption(f"floor is {floor}; it is a fraction of the samples, at least 0 and below 1, such as 0.005")
    pairing = pair(store, find(store, baseline), find(store, candidate))
    meetings = pairing.meetings
    reason = pairing.reason
    if attack is not None and meetings:
        _refuse_unknown(store, attack)
        meetings = tuple(meeting for meeting in meetings if meeting.is_under(attack))
        reason = "" if meetings else f"the two share no complete evaluation under {attack!r}"
    differences = _differences(meetings, alpha, floor)
    return Decision(
        candidate=pairing.b,
        baseline=pairing.a,
        alpha=alpha,
        floor=floor,
        differences=differences,
        verdict=_overall([one.verdict for one in differences]),
        reason=reason,
        unshared=tuple(
            f"{title}, which only the {who} met"
            for who, titles in (("baseline", pairing.only_a), ("candidate", pairing.only_b))
            for title in titles
        ),
        unpaired=pairing.unpaired,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    p = min(1, 2 P(X <= min(only_a, only_b))) with X ~ Binomial(only_a + only_b, 1/2).

    Args:
        only_a: samples that only a got right.
        only_b: samples that only b got right.

    Returns:
        p in (0, 1]; 1 when no sample is discordant. It underflows to 0 beyond some thousand one-sided ones.
    """
    from scipy.special import bdtr  # 0.1 s to import, and only checks need it

    if only_a == only_b:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values, by Holm's step-down: rejecting those at most alpha errs anywhere with at most alpha.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    """
    adjusted = [1.0] * len(p)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = highest
    return adjusted


def _differences(meetings: Sequence[Meeting], alpha: float, floor: float) -> tuple[Difference, ...]:
    raw = [_p(meeting.total) for meeting in meetings]
    return tuple(
        Difference(
            meeting,
            p,
            adjusted,
            _judged(meeting.total, significant=adjusted <= alpha, floor=floor),
            tuple(
                SeedDifference(pair.b.seed, pair.a.seed, pair.total.difference, _p(pair.total))
                for pair in meeting.pairs
            ),
        )
        for meeting, p, adjusted in zip(meetings, raw, holm(raw), strict=True)
    )


def _p(counts: Counts) -> float:
    return mcnemar(counts.only_a, counts.only_b)


def _judged(counts: Counts, *, significant: bool, floor: float) -> Word:
    gained = counts.only_b - counts.only_a
    if not significant or abs(gained) <= floor * counts.n:
        return "same"
    return "better" if gained > 0 else "worse"


def _overall(words: Sequence[Word]) -> Word:
    if not words:
        return "incomparable"
    order: tuple[Word, ...] = ("worse", "better", "same")
    return next(word for word in order if word in words)


def _refuse_unknown(store: Store, attack: str) -> None:
    known = [(str(name), str(attack_id)) for name, attack_id in store.rows("SELECT name, attack_id FROM attacks")]
    if not any(calls_attack(attack, name, attack_id) for name, attack_id in known):
        raise UnknownName.among("attack", attack, {name for name, _ in known})


def _row(one: Difference) -> tuple[str, ...]:
    total = one.meeting.total
    return (
        one.meeting.title,
        str(total.n),
        f"{100 * total.accuracy_a:.2f}",
        f"{100 * total.accuracy_b:.2f}",
        f"{100 * total.difference:+.2f}",
        str(total.only_a),
        str(total.only_b),
        f"{one.p:.2g}",
        f"{one.adjusted:.2g}",
        one.verdict,
    )


def _as_dict(one: Difference) -> dict[str, Any]:
    total = one.meeting.total
    return {
        **one.meeting.as_dict(),
        "n": total.n,
        "accuracy_candidate": total.accuracy_b,
        "accuracy_baseline": total.accuracy_a,
        "difference": total.difference,
        "only_candidate": total.only_b,
        "only_baseline": total.only_a,
        "p": one.p,
        "p_adjusted": one.adjusted,
        "verdict": one.verdict,
        "seeds": [vars(seed) for seed in one.seeds],
    }
