"""A study file: which methods are trained on which data and judged by which attacks.

    name = "demo"
    dataset = "digits"              # a name, a Parquet path or glob, hub:owner/name, or a folder of class folders
    model = "convnet-6"
    eps = "0.15"                    # of the evaluation, and of the training unless an entry sets its own
    suite = "standard"              # or attacks = ["pgd-sat", "cw"]
    seeds = [0, 1, 2]

    [entries.teacher]
    method = "pgd-at"
    model = "convnet-16"
    evaluate = false

    [entries.rslad]                 # method = "rslad", as the entry is called
    teacher = "teacher"             # another entry, a checkpoint file, or foreign weights and network, w.pt@wrn-34-10
    set = { "objective.alpha" = 0.5 }

Everything is checked on loading, before any work; nothing here imports torch until a recipe is composed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from bench.attacks.trial import Trial, plan
from bench.budget import parse_eps
from bench.errors import BadOption, BadStudy, BenchError, UnknownName, brief
from bench.evaluation.patience import USUAL, check_timeout
from bench.files import LONGEST
from bench.soundness.examination import Checks
from bench.training.method import Plan, compose


@dataclass(frozen=True)
class StudyEntry:
    """One line of a study: a method in a setting."""

    name: str
    method: str = ""
    model: str = ""
    preset: str = ""
    epochs: int = 0
    set: dict[str, Any] = field(default_factory=dict)
    teacher: str | dict[str, str] = ""
    evaluate: bool = True
    seeds: list[int] = field(default_factory=list)

    def teachers(self, roles: tuple[str, ...]) -> dict[str, str]:
        """What teaches in each role: another entry's name or a file; one name alone fills the first role."""
        if isinstance(self.teacher, dict):
            return dict(self.teacher)
        return {roles[0] if roles else "teacher": self.teacher} if self.teacher else {}


@dataclass(frozen=True)
class Study:
    """A validated study.

    Attributes:
        name: also the folder of its results.
        dataset: what is trained and evaluated on.
        revision: of a data set on the Hub.
        split: evaluated split.
        n: size of a stratified subset of it; 0 for all.
        n_seed: which subset.
        train_n: the same for the training split.
        model: network of entries that name none.
        preset: of entries that name none; "" for the data set's default.
        eps: radius, exact; "" for 8/255 in evaluation and the presets' own in training.
        norm: of the evaluation.
        suite: named line-up of attacks.
        attacks: attacks by name, instead of a suite.
        seeds: of the trainings.
        attack_seed: of the attacks.
        batch_size: images attacked at a time, and the most that a kill loses.
        precision: of the attacks' search.
        checks: soundness checks that follow the attacks: "none", "default" or "all".
        device: where to compute.
        timeout: seconds that a model or an attack may go on without a sign of progress.
        epochs: for every entry; 0 for the presets' own.
        set: overrides for every entry.
        entries: in the order in which they are listed.
    """

    name: str
    dataset: str
    entries: dict[str, StudyEntry]
    model: str = ""
    revision: str = ""
    split: str = "test"
    n: int = 0
    n_seed: int = 0
    train_n: int = 0
    preset: str = ""
    eps: str = ""
    norm: str = "Linf"
    suite: str = "standard"
    attacks: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    attack_seed: int = 0
    batch_size: int = 250
    precision: str = "fp32"
    checks: str = "default"
    device: str = "cpu"
    timeout: int = USUAL
    epochs: int = 0
    set: dict[str, Any] = field(default_factory=dict)

    @property
    def examined(self) -> Checks:
        """Which soundness checks follow the attacks.

        Raises:
            BadStudy: none are called so.
        """
        for known in get_args(Checks):
            if self.checks == known:
                return cast("Checks", known)
        raise BadStudy(f"checks are {self.checks!r}; choose one of {', '.join(get_args(Checks))}")

    def trials(self) -> tuple[Trial, ...]:
        """The attacks, clean first."""
        return plan(
            self.attacks or self.suite,
            norm=self.norm,
            eps=parse_eps(self.eps) if self.eps else Fraction(8, 255),
            seed=self.attack_seed,
            precision=self.precision,
            batch_size=self.batch_size,
        )

    def plan_of(self, entry: StudyEntry, dataset: str) -> Plan:
        """An entry's recipe and schedule on a data set of that name."""
        settings: dict[str, Any] = {"schedule.eps": str(parse_eps(self.eps))} if self.eps else {}
        if epochs := entry.epochs or self.epochs:
            settings["schedule.epochs"] = epochs
        settings.update({**self.set, **entry.set})
        return compose(
            entry.method or entry.name, dataset=dataset, preset=entry.preset or self.preset or None, settings=settings
        )

    def model_of(self, entry: StudyEntry) -> str:
        """The network that an entry trains."""
        return entry.model or self.model

    def seeds_of(self, entry: StudyEntry) -> list[int]:
        """The seeds that an entry is trained with."""
        return entry.seeds or self.seeds

    def order(self) -> list[StudyEntry]:
        """Entries with every teacher before its students.

        Raises:
            BadStudy: a circle of teachers.
        """
        done: dict[str, StudyEntry] = {}
        for first in self.entries:
            path = {first: self._teachers_of(first)}  # no recursion: a chain may be as long as it likes
            while path:
                name, left = next(reversed(path.items()))
                teacher = next(left, None)
                if teacher is None:
                    done[name] = self.entries[name]
                    del path[name]
                elif teacher in path:
                    circle = " → ".join((*[*path][[*path].index(teacher) :], teacher))
                    raise BadStudy(
                        f"study {self.name!r}: entries teach each other in a circle: {brief(circle)}; break it"
                    )
                elif teacher not in done:
                    path[teacher] = self._teachers_of(teacher)
        return list(done.values())

    def _teachers_of(self, name: str) -> Iterator[str]:
        """The entries that teach an entry."""
        return iter([t for t in self.entries[name].teachers(()).values() if t in self.entries])


def load_study(path: Path) -> Study:
    """Read and validate a study file.

    Raises:
        BadStudy: no such file, no TOML, an unknown or mistyped key, or a circle of teachers.
        BenchError: an unknown method, attack or model, or a value out of range; the message names the entry.
    """
    try:
        if not path.exists():
            raise BadStudy(f"no study at {path}; name a TOML file, such as one in results/studies/")
        if not path.is_file():  # reading a pipe or a device may never end
            raise BadStudy(f"{path} is no file; name a TOML file, such as one in results/studies/")
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadStudy(
            f"{brief(str(path))} cannot be read ({problem.strerror}); mend its permissions or name another"
        ) from None
    except RecursionError:
        raise BadStudy(
            f"{path} is no TOML study: it is nested too deeply; write tables and lists of plain values"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadStudy(f"{path} is no TOML study: {brief(str(problem))}; mend it there") from None
    where = f"study {path.name}"
    tables = raw.pop("entries", {})
    if not isinstance(tables, dict) or not tables:
        raise BadStudy(f"{where} has no entries; add at least one table [entries.NAME]")
    entries = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise BadStudy(f"{where}: entry {name!r} is no table; write [entries.{name}]")
        values = typed(StudyEntry, table, f"{where}, entry {name!r}", skip=("name",))
        entries[name] = StudyEntry(name=name, **values)
    values = typed(Study, raw, where, skip=("entries",))
    for key in ("name", "dataset"):
        if not values.get(key):
            raise BadStudy(f'{where} has no {key!r}; add {key} = "..."')
    study = Study(entries=entries, **values)
    validate(study, where)
    return study


def typed(kind: type, table: Mapping[str, Any], where: str, skip: tuple[str, ...]) -> dict[str, Any]:
    """The values of a TOML table for a dataclass, each of its field's type.

    Raises:
        BadStudy: an unknown key or a value of another type.
    """
    hints = {key: hint for key, hint in get_type_hints(kind).items() if key not in skip}
    for key, value in table.items():
        if key not in hints:
            raise BadStudy(f"{where}: {UnknownName.among('key', key, hints)}")
        kinds = get_args(hints[key]) if isinstance(hints[key], UnionType) else (hints[key],)
        plain = tuple(get_origin(k) or k for k in kinds)
        items = get_args(kinds[0]) if plain == (list,) else ()
        if isinstance(value, str) and "\0" in value:
            raise BadStudy(
                f"{where}: {key} = {brief(repr(value))} holds a NUL character, which no name can; leave it out"
            )
        fits = isinstance(value, plain) and (bool in plain or not isinstance(value, bool))
        if not fits or (items and not all(type(item) is items[0] for item in value)):
            wanted = " or ".join(getattr(k, "__name__", str(k)) if not get_args(k) else str(k) for k in kinds)
            raise BadStudy(f"{where}: {key} = {brief(repr(value))} is of the wrong kind; it must be {wanted}")
    return dict(table)


def validate(study: Study, where: str) -> None:
    """Refuse what could only fail later.

    Raises:
        BenchError: see `load_study`.
    """
    from bench.models.architecture import check_name

    if min(study.batch_size, study.n + 1, study.train_n + 1) < 1:
        raise BadStudy(f"{where}: batch_size must be at least 1, n and train_n at least 0")
    if not study.seeds:
        raise BadStudy(f"{where}: seeds is empty; give at least one, seeds = [0]")
    for seed in (study.attack_seed, *study.seeds, *(seed for entry in study.entries.values() for seed in entry.seeds)):
        if not 0 <= seed < 2**63:
            raise BadStudy(f"{where}: seed {seed} is out of range; give whole numbers from 0 to 2^63 - 1")
    if not re.fullmatch(r"\w[\w.+-]*", study.name):
        raise BadStudy(
            f"{where}: name {brief(repr(study.name))} cannot name a folder; use letters, digits, '.', '_', '+' and '-'"
        )
    if len(study.name.encode()) > LONGEST:
        raise BadStudy(
            f"{where}: name {brief(repr(study.name))} is too long for a folder; use {LONGEST} letters at most"
        )
    try:
        check_timeout(study.timeout)
    except BadOption as problem:
        raise BadStudy(f"{where}: {problem}") from None
    study.trials()
    _ = study.examined
    study.order()
    dataset = Path(study.dataset).resolve().name  # what data of a path or hub:owner/name will be called
    judged: dict[str, str] = {}
    for entry in study.entries.values():
        at = f"{where}, entry {entry.name!r}"
        if not study.model_of(entry):
            raise BadStudy(f"{at}: no model; set model in the entry or for the whole study")
        try:
            check_name(study.model_of(entry))
            wanted = study.plan_of(entry, dataset)
        except BenchError as problem:
            raise type(problem)(f"{at}: {problem}") from None
        roles = wanted.teachers
        teachers = entry.teachers(roles)
        if missing := [role for role in roles if role not in teachers]:
            raise BadStudy(
                f'{at}: {entry.method or entry.name!r} needs a {missing[0]}; set teacher = {{ {missing[0]} = "ENTRY" }}'
            )
        if spare := [role for role in teachers if role not in roles]:
            raise BadStudy(f"{at}: {entry.method or entry.name!r} has no use for a {spare[0]}; leave it out")
        for teacher in teachers.values():
            files = (Path(teacher), Path(teacher.rpartition("@")[0]))  # a checkpoint, or weights@model
            if teacher not in study.entries and not any(map(Path.is_file, files)):
                raise BadStudy(f"{at}: {UnknownName.among('entry', teacher, study.entries)}, and no such file exists")
            if teacher in study.entries:
                lacking = set(study.seeds_of(entry)) - set(study.seeds_of(study.entries[teacher]))
                if lacking and len(study.seeds_of(study.entries[teacher])) > 1:
                    raise BadStudy(
                        f"{at}: its teacher {teacher!r} is not trained with seed {min(lacking)}; add it to its seeds"
                    )
        for seed in study.seeds_of(entry) if entry.evaluate else ():
            same = judged.setdefault(repr((wanted, study.model_of(entry), sorted(teachers.items()), seed)), entry.name)
            if same != entry.name:
                raise BadStudy(f"{at}: the same training as entry {same!r}; leave one of them out, or change one")
