"""Running a study: what is lacking is done once, to the same result in any number of processes."""

from __future__ import annotations

import pandas as pd
import pytest

from bench.errors import BadStore, DiskFull, OutOfBudget, TimedOut
from bench.store.database import Store
from bench.study import runner
from bench.study.file import load_study
from bench.study.plan import Agenda, agenda_of
from bench.study.pool import Inline, Pool, Processes
from bench.study.runner import Report, run_study
from bench.study.work import Checking, Judging

from .shown import Shown

HEAD = """
name = "runner"
dataset = "digits"
checks = "none"
model = "convnet-2"
eps = "0.15"
attacks = ["fgsm", "pgd-sat"]
n = 30
train_n = 100
batch_size = 12
epochs = 1
"""
PAIR = """
[entries.rslad]
teacher = "wide"
[entries.wide]
method = "pgd-at"
model = "convnet-3"
evaluate = false
"""
ALL = """
SELECT method, model, attack, attack_id, sample, label, predicted, o.correct, confidence, broken_by
FROM outcomes o JOIN evaluations USING (evaluation_id) JOIN checkpoints USING (checkpoint_id)
JOIN attacks a(attack_id, attack) USING (attack_id) ORDER BY ALL
"""


@pytest.fixture
def study(tmp_path):
    def made(entries: str, name: str = "b", head: str = HEAD) -> Agenda:
        path = tmp_path / "s.toml"
        path.write_text(head + entries)
        return agenda_of(load_study(path), Store(tmp_path / f"{name}.duckdb"), tmp_path / name)

    return made


def run(agenda: Agenda, pool: Pool | None = None) -> tuple[Report, Shown]:
    shown = Shown()
    return run_study(agenda, pool or Inline(), shown), shown


def outcomes(cells: Agenda) -> pd.DataFrame:
    return cells.store.query(ALL)


def test_everything_is_done_once(study):
    first, shown = run(study(PAIR))
    assert (first.trained, first.judged, first.failures) == (2, 9, [])
    assert shown.shares[-1] == pytest.approx(1)
    cells = study(PAIR)
    stored = outcomes(cells)
    assert len(stored) == 3 * 30
    assert not stored.duplicated(["attack", "sample"]).any()
    assert list(cells.store.query("SELECT method, attack, n FROM summary ORDER BY attack").itertuples(index=False)) == [
        ("rslad", "clean", 30),
        ("rslad", "fgsm", 30),
        ("rslad", "pgd-sat", 30),
    ]
    before = cells.store.path.read_bytes()
    second, _ = run(cells)
    assert (second.trained, second.judged, second.failures) == (0, 0, [])
    pd.testing.assert_frame_equal(outcomes(cells), stored)
    assert len(cells.store.path.read_bytes()) == len(before)


def test_a_judged_network_is_checked_once_and_anew_when_more_was_judged(study):
    def checked(attacks: str = '"fgsm", "pgd-sat"') -> tuple[int, int]:
        head = HEAD.replace('"none"', '"default"').replace('"fgsm", "pgd-sat"', attacks)
        cells = study(PAIR, head=head)
        report, _ = run(cells)
        assert report.failures == []
        return report.checked, cells.store.rows("SELECT count(*) FROM checks")[0][0]

    assert run(study(PAIR))[0].checked == 0  # where none are asked for
    once, verdicts = checked()
    assert once == 1
    assert verdicts > 20
    assert checked() == (0, verdicts)
    assert checked('"fgsm", "pgd-sat", "cw"') == (1, verdicts)


def test_real_workers_come_to_the_same_outcomes_as_none(study):
    run(study(PAIR, "inline"))
    cells = study(PAIR, "workers")
    report, _ = run(cells, Processes(2))
    assert (report.trained, report.judged, report.failures) == (2, 9, [])
    pd.testing.assert_frame_equal(outcomes(cells), outcomes(study(PAIR, "inline")))


def test_a_failure_stops_what_depends_on_it_and_nothing_else(study):
    cells = study(PAIR + 'set = { "schedule.lr" = 1e38, "schedule.batch_size" = 16 }\n[entries.natural]\n')
    report, shown = run(cells)
    assert [line.split(": ")[0] for line in report.failures] == ["wide (seed 0)", "rslad (seed 0)"]
    assert "loss became NaN" in report.failures[0]
    assert report.failures[1] == "rslad (seed 0): its teacher wide (seed 0) failed"
    assert set(cells.store.query("SELECT method FROM summary")["method"]) == {"natural"}
    assert shown.shares[-1] == pytest.approx(1)


def test_a_unit_that_fails_otherwise_fails_its_cell_only(study, monkeypatch):
    judge = Judging.run

    def sometimes(self, report, stop):
        if self.trial.name == "fgsm" and self.network.row.method == "natural":
            raise RuntimeError("out of luck")
        return judge(self, report, stop)

    monkeypatch.setattr(Judging, "run", sometimes)
    cells = study("[entries.natural]\n[entries.pgd-at]\n")
    report, _ = run(cells)
    assert report.failures == ["natural (seed 0): RuntimeError: out of luck"]
    found = cells.store.query("SELECT method, attack FROM summary")
    assert len(found[found["method"] == "pgd-at"]) == 3
    monkeypatch.undo()
    again, _ = run(study("[entries.natural]\n[entries.pgd-at]\n"))
    assert (again.trained, again.failures) == (0, [])
    assert len(cells.store.query("SELECT 1 FROM summary")) == 6


def test_a_lost_checkpoint_is_trained_again_only_when_needed_with_its_teachers(study):
    chain = PAIR.replace('method = "pgd-at"', 'method = "rslad"\nteacher = "root"') + (
        '[entries.root]\nmethod = "pgd-at"\nmodel = "convnet-4"\nevaluate = false\n'
    )
    cells = study(chain)
    run(cells)
    before = outcomes(cells)
    for path in (cells.store.path.with_suffix("") / "checkpoints").iterdir():
        path.unlink()
    report, _ = run(study(chain))
    assert (report.trained, report.judged) == (0, 0)
    more = study(chain.replace('teacher = "wide"', 'teacher = "wide"\nseeds = [0, 1]'))
    report, _ = run(more)
    assert (report.trained, report.judged, report.failures) == (3, 9, [])  # root, wide, and rslad with seed 1
    assert len(outcomes(more)) == 2 * len(before)


def test_what_the_evaluator_remarks_is_told_with_the_cell(study, monkeypatch):
    judge = Judging.run
    monkeypatch.setattr(Judging, "run", lambda self, *rest: (judge(self, *rest)[0], ["looks odd"]))
    _, shown = run(study("[entries.natural]\n"))
    assert "natural (seed 0): looks odd" in shown.lines


@pytest.mark.parametrize("problem", [DiskFull("no space left"), BadStore("read-only")])
def test_a_store_that_takes_no_more_stops_the_run(study, monkeypatch, problem):
    cells = study("[entries.natural]\n[entries.pgd-at]\n")
    add, calls = Store.add_missing, []

    def full(self, number, chunk):
        calls.append(number)
        if len(calls) > 2:
            raise problem
        add(self, number, chunk)

    monkeypatch.setattr(Store, "add_missing", full)
    with pytest.raises(type(problem), match=str(problem)):
        run(cells)
    assert len(calls) == 3
    assert len(cells.store.query("FROM chunks")) == 2
    monkeypatch.setattr(Store, "add_missing", add)
    report, _ = run(study("[entries.natural]\n[entries.pgd-at]\n"))
    assert report.judged == 18 - 2
    assert len(outcomes(cells)) == 2 * 3 * 30


def test_an_entry_is_judged_before_the_next_one_is_trained(study, monkeypatch):
    monkeypatch.setattr(runner, "OFTEN", 0.0)
    _, shown = run(study("[entries.natural]\n[entries.pgd-at]\n"))
    heard = list(dict.fromkeys(filter(None, shown.doing)))
    assert heard == [
        f"{name} (seed 0): {doing}"
        for name in ("natural", "pgd-at")
        for doing in ("training", "clean", "fgsm", "pgd-sat")
    ]


def test_code_that_leaves_the_process_fails_its_cell_and_not_the_run(study, monkeypatch):
    judge = Judging.run

    def leaving(self, report, stop):
        if self.network.row.method == "natural":
            raise SystemExit(0)
        return judge(self, report, stop)

    monkeypatch.setattr(Judging, "run", leaving)
    report, _ = run(study("[entries.natural]\n[entries.pgd-at]\n"))
    assert report.failures == ["natural (seed 0): SystemExit: 0"]
    assert report.judged == 9


@pytest.mark.parametrize("problem", [OutOfBudget("attack 'fgsm' moved sample 3 by 0.5"), TimedOut("the model hangs")])
def test_an_attack_that_fails_costs_only_itself(study, monkeypatch, problem):
    judge, seen = Judging.run, []

    def cheating(self, report, stop):
        if self.trial.name == "fgsm":
            raise problem
        return judge(self, report, stop)

    def told(self, report, stop):
        seen.append({trial.name: len(run) for trial, run in self.asked.runs.items()})
        return []

    monkeypatch.setattr(Judging, "run", cheating)
    monkeypatch.setattr(Checking, "run", told)
    agenda = study("[entries.natural]\n", head=HEAD.replace('"none"', '"default"'))
    report, _ = run(agenda)
    assert report.failures == [f"natural (seed 0), fgsm: {problem}"]
    (runs,) = seen
    assert runs.pop("fgsm") == 0
    assert set(runs.values()) == {30}


def test_a_network_that_hangs_without_attack_fails_as_a_whole(study, monkeypatch):
    judge = Judging.run

    def hanging(self, report, stop):
        if self.trial.attack is None:
            raise TimedOut("it hangs")
        return judge(self, report, stop)

    monkeypatch.setattr(Judging, "run", hanging)
    report, _ = run(study("[entries.natural]\n"))
    assert (report.failures, report.judged) == (["natural (seed 0): it hangs"], 0)


def test_checks_wait_for_chunks_that_end_at_the_same_time(study, monkeypatch):
    class Together(Inline):
        workers = 9  # all chunks of a network end in one turn

    seen = []

    def told(self, report, stop):
        seen.append({trial.name: len(run) for trial, run in self.asked.runs.items()})
        return []

    monkeypatch.setattr(Checking, "run", told)
    report, _ = run(study("[entries.natural]\n", head=HEAD.replace('"none"', '"default"')), Together())
    assert report.judged == 9
    assert seen == [{"clean": 30, "fgsm": 30, "pgd-sat": 30}]


def test_a_run_that_is_asked_to_stop_stores_what_is_in_hand_and_goes_on_later(study, monkeypatch):
    judge, done = Judging.run, []
    monkeypatch.setattr(Judging, "run", lambda self, *rest: done.append(self) or judge(self, *rest))
    cells = study("[entries.natural]\n")
    with pytest.raises(KeyboardInterrupt):
        run_study(cells, Inline(), Shown(), lambda: len(done) == 4)
    assert cells.store.rows("SELECT count(*) FROM chunks") == [(4,)]
    report, _ = run(study("[entries.natural]\n"))
    assert (report.trained, report.judged) == (0, 5)


def test_a_run_that_is_asked_to_stop_when_all_is_done_is_done(study, monkeypatch):
    judge, done = Judging.run, []
    monkeypatch.setattr(Judging, "run", lambda self, *rest: done.append(self) or judge(self, *rest))
    assert run_study(study("[entries.natural]\n"), Inline(), Shown(), lambda: len(done) == 9).judged == 9
