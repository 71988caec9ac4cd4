"""The tables and views of schema.sql: lifted from version 1 without loss, and what the views compute."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from bench.errors import BadStore
from bench.fingerprint import canonical, fingerprint
from bench.outcomes import Outcomes
from bench.store import schema as store_module
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow, evaluation_key
from bench.verdict import Verdict

CHECKPOINT = ("c1", "rslad", "", "p", "m", "digits", 0, "run", "recipe", 3, 3, "last", None, "{}", "{}", "{}")
VIEWS = (
    *("class_accuracy", "summary", "leaderboard", "complete_evaluations"),
    *("best_known", "best_known_class_accuracy", "best_known_summary", "calibration"),
)


def marks(n: int) -> str:
    return ", ".join("?" * n)


# Version 1

VERSION_1 = """
CREATE TABLE meta (schema_version INTEGER NOT NULL);
CREATE TABLE datasets (
    dataset_id  VARCHAR PRIMARY KEY,
    name        VARCHAR NOT NULL,
    split       VARCHAR NOT NULL,
    subset      VARCHAR NOT NULL,
    n           INTEGER NOT NULL,
    class_names VARCHAR[] NOT NULL
);
CREATE TABLE attacks (
    attack_id   VARCHAR PRIMARY KEY,
    name        VARCHAR NOT NULL,
    norm        VARCHAR NOT NULL,
    eps_exact   VARCHAR NOT NULL,
    eps         DOUBLE NOT NULL,
    lineup      VARCHAR[] NOT NULL,
    spec        VARCHAR NOT NULL
);
CREATE TABLE checkpoints (
    checkpoint_id    VARCHAR PRIMARY KEY,
    method           VARCHAR NOT NULL,
    variant          VARCHAR NOT NULL,
    preset           VARCHAR NOT NULL,
    model            VARCHAR NOT NULL,
    trained_on       VARCHAR NOT NULL,
    seed             BIGINT,
    run_id           VARCHAR,
    recipe_id        VARCHAR NOT NULL,
    epoch            INTEGER,
    epochs           INTEGER,
    selection        VARCHAR NOT NULL,
    teacher_id       VARCHAR,
    recipe           VARCHAR NOT NULL,
    schedule         VARCHAR NOT NULL,
    provenance       VARCHAR NOT NULL
);
CREATE TABLE epochs (
    checkpoint_id VARCHAR NOT NULL,
    epoch         INTEGER NOT NULL,
    split         VARCHAR NOT NULL,
    class         USMALLINT NOT NULL,
    n             INTEGER NOT NULL,
    hits_clean    INTEGER,
    hits_adv      INTEGER
);
CREATE TABLE evaluations (
    evaluation_id  INTEGER PRIMARY KEY,
    evaluation_key VARCHAR NOT NULL UNIQUE,
    checkpoint_id  VARCHAR NOT NULL,
    dataset_id     VARCHAR NOT NULL,
    attack_id      VARCHAR NOT NULL,
    n              INTEGER NOT NULL
);
CREATE TABLE chunks (
    evaluation_id INTEGER NOT NULL,
    n             INTEGER NOT NULL,
    forwards      BIGINT NOT NULL,
    backwards     BIGINT NOT NULL,
    seconds       DOUBLE
);
CREATE TABLE outcomes (
    evaluation_id INTEGER NOT NULL,
    sample        UINTEGER NOT NULL,
    label         USMALLINT NOT NULL,
    predicted     USMALLINT NOT NULL,
    correct       BOOLEAN NOT NULL,
    confidence    FLOAT NOT NULL,
    broken_by     UTINYINT NOT NULL
);
CREATE TABLE checks (
    checkpoint_id VARCHAR NOT NULL,
    check_name    VARCHAR NOT NULL,
    value         DOUBLE,
    threshold     DOUBLE,
    verdict       VARCHAR NOT NULL,
    n             INTEGER NOT NULL
);
CREATE TABLE published (
    source   VARCHAR NOT NULL,
    method   VARCHAR NOT NULL,
    dataset  VARCHAR NOT NULL,
    model    VARCHAR NOT NULL,
    attack   VARCHAR NOT NULL,
    norm     VARCHAR NOT NULL,
    eps      DOUBLE NOT NULL,
    metric   VARCHAR NOT NULL,
    value    DOUBLE NOT NULL
);
CREATE OR REPLACE VIEW complete_evaluations AS
SELECT e.*, c.forwards, c.backwards, c.seconds
FROM evaluations e
JOIN (SELECT evaluation_id, sum(n) AS done, sum(forwards)::BIGINT AS forwards, sum(backwards)::BIGINT AS backwards,
             sum(seconds) AS seconds
      FROM chunks GROUP BY evaluation_id) c USING (evaluation_id)
WHERE c.done = e.n;
CREATE OR REPLACE VIEW class_accuracy AS
SELECT e.checkpoint_id, k.method, d.name AS dataset, k.model, k.seed, a.name AS attack, a.norm, a.eps,
       o.label AS class, d.class_names[o.label + 1] AS class_name, o.n, o.correct, o.correct / o.n AS accuracy,
       k.variant, d.split, d.subset, e.dataset_id, e.attack_id, a.eps_exact, e.evaluation_id, k.preset, k.recipe_id,
       k.selection
FROM (SELECT evaluation_id, label, count(*) AS n, count(*) FILTER (correct) AS correct
      FROM outcomes GROUP BY evaluation_id, label) o
JOIN complete_evaluations e USING (evaluation_id)
JOIN checkpoints k USING (checkpoint_id)
JOIN datasets d USING (dataset_id)
JOIN attacks a USING (attack_id);
CREATE OR REPLACE VIEW summary AS
SELECT checkpoint_id, method, dataset, model, seed, attack, norm, eps,
       sum(n)::BIGINT AS n, sum(correct) / sum(n) AS accuracy,
       arg_min(class_name, (accuracy, class)) AS worst_class, min(accuracy) AS worst_accuracy,
       stddev_pop(accuracy) / nullif(avg(accuracy), 0) AS nsd,
       variant, split, subset, dataset_id, attack_id, eps_exact, evaluation_id, preset, recipe_id,
       selection
FROM class_accuracy
GROUP BY ALL;
CREATE OR REPLACE VIEW leaderboard AS
SELECT method, dataset, model, count(*) AS seeds, attack, norm, eps,
       avg(accuracy) AS accuracy, stddev_samp(accuracy) AS accuracy_std,
       avg(worst_accuracy) AS worst_accuracy, avg(nsd) AS nsd,
       rank() OVER (PARTITION BY dataset_id, attack_id ORDER BY avg(accuracy) DESC) AS rank,
       variant, split, subset, dataset_id, attack_id, eps_exact, preset, recipe_id, selection
FROM summary
GROUP BY method, variant, preset, recipe_id, dataset, model, attack, norm, eps, split, subset, dataset_id, attack_id,
         eps_exact, selection;
"""
"""schema.sql as it was in version 1, without its comments."""


def spec(name: str) -> dict[str, Any]:
    return {"attack": {"is": name}, "norm": "Linf", "eps": "8/255", "seed": 0}


UNATTACKED, CW = fingerprint({"attack": None}), fingerprint(spec("cw"))

OLD: dict[str, list[tuple[Any, ...]]] = {
    "meta": [(1,)],
    "datasets": [("d1", "digits", "test", "", 3, ["a", "b"])],
    "attacks": [
        (UNATTACKED, "clean", "none", "0", 0.0, [], canonical({"attack": None})),
        (CW, "cw", "Linf", "8/255", 8 / 255, ["cw"], canonical(spec("cw"))),
    ],
    "checkpoints": [CHECKPOINT],
    "epochs": [("c1", 1, "valid", 0, 9, 8, None)],
    "evaluations": [
        (1, evaluation_key("c1", "d1", UNATTACKED), "c1", "d1", UNATTACKED, 3),
        (2, evaluation_key("c1", "d1", CW), "c1", "d1", CW, 3),
    ],
    "chunks": [(1, 3, 3, 0, 0.5), (2, 2, 40, 20, 1.5), (2, 1, 20, 10, 1.0)],
    "outcomes": [
        *((1, 0, 0, 0, True, 0.5, 0), (1, 1, 1, 1, True, 0.75, 0), (1, 2, 1, 0, False, 0.5, 1)),
        *((2, 0, 0, 1, False, 0.5, 2), (2, 1, 1, 1, True, 0.75, 0), (2, 2, 1, 0, False, 0.5, 1)),
    ],
    "published": [("paper", "m", "d", "r", "aa", "Linf", 0.1, "accuracy", 0.5)],
}  # fmt: skip


@pytest.fixture
def old(tmp_path: Path) -> Store:
    """A database as version 1 left it."""
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(VERSION_1)
        for table, rows in OLD.items():
            connection.executemany(f"INSERT INTO {table} VALUES ({marks(len(rows[0]))})", rows)
    return Store(path)


def test_version_1_is_migrated_without_loss(old: Store) -> None:
    before = duckdb.connect(str(old.path), read_only=True)
    views = {view: before.execute(f"SELECT * FROM {view} ORDER BY ALL").fetchall() for view in VIEWS[:4]}
    columns = {view: [name for name, *_ in before.execute(f"SELECT * FROM {view}").description] for view in VIEWS[:4]}
    before.close()
    old.create()
    assert old.rows("SELECT schema_version FROM meta") == [(store_module.SCHEMA_VERSION,)]
    for table in OLD.keys() - {"meta", "outcomes"}:
        assert old.rows(f"SELECT * FROM {table}") == OLD[table]
    assert old.rows("SELECT * FROM outcomes") == [(*row, None, None, None) for row in OLD["outcomes"]]
    for view, rows in views.items():
        assert old.rows(f"SELECT {', '.join(columns[view])} FROM {view} ORDER BY ALL") == rows
    assert old.rows("SELECT forwards, backwards FROM complete_evaluations ORDER BY 1") == [(3, 0), (60, 30)]


def test_a_migrated_database_answers_every_view_and_goes_on(old: Store, tmp_path: Path) -> None:
    for view in VIEWS:
        assert old.rows(f"SELECT * FROM {view}")
    assert old.rows("SELECT ece, divergence FROM calibration WHERE attack = 'clean'") == [
        (pytest.approx((0.25 + 0) / 3), None)  # 0.5 twice with one right: no gap; 0.75 right: 0.25
    ]
    verdict = Verdict("ordering", None, None, "not-run", 0, "no attacks to order")
    old.add_verdicts("c1", "d1", "none", "0", [verdict])
    assert old.verdicts("c1", "d1", "none", "0") == [verdict]
    fgsm = fingerprint(spec("fgsm"))
    old.add_attack(AttackRow(fgsm, "fgsm", "Linf", "8/255", 8 / 255, ("fgsm",), canonical(spec("fgsm"))))
    columns: tuple[Any, ...] = ([0, 1, 2], [0, 1, 1], [0, 0, 0], [0.5] * 3, [0, 2, 1], [0.1, 0.2, 0.0], 2, 1)
    old.add_chunk(old.begin("c1", "d1", fgsm, 3), Outcomes(*columns))
    assert old.rows("SELECT accuracy, attacks FROM best_known_summary") == [(0.0, 2)]
    old.export(tmp_path / "bundle")
    new = Store(tmp_path / "new.duckdb")
    new.create()
    assert new.merge(tmp_path / "bundle") == 3
    facts = "SELECT * EXCLUDE (evaluation_id) FROM outcomes ORDER BY ALL"
    assert new.rows(facts) == old.rows(facts)


VERSION_2 = """
CREATE OR REPLACE VIEW summary AS
SELECT checkpoint_id, method, dataset, model, seed, attack, norm, eps,
       sum(n)::BIGINT AS n, sum(correct) / sum(n) AS accuracy,
       arg_min(class_name, (accuracy, class)) AS worst_class, min(accuracy) AS worst_accuracy,
       stddev_pop(accuracy) / nullif(avg(accuracy), 0) AS nsd,
       variant, split, subset, dataset_id, attack_id, eps_exact, evaluation_id, preset, recipe_id,
       selection
FROM (SELECT * EXCLUDE (divergence) FROM class_accuracy)
GROUP BY ALL;
CREATE OR REPLACE VIEW best_known_summary AS
SELECT checkpoint_id, method, dataset, model, seed, norm, eps,
       sum(n)::BIGINT AS n, sum(correct) / sum(n) AS accuracy,
       arg_min(class_name, (accuracy, class)) AS worst_class, min(accuracy) AS worst_accuracy,
       stddev_pop(accuracy) / nullif(avg(accuracy), 0) AS nsd, attacks,
       variant, split, subset, dataset_id, eps_exact, preset, recipe_id, selection
FROM best_known_class_accuracy
GROUP BY ALL;
DROP MACRO nsd;
DROP MACRO worst_class;
DROP MACRO worst_accuracy;
UPDATE meta SET schema_version = 2;
"""
"""What was different in version 2: no macros, so that the two views spelled their formulas."""


@pytest.mark.parametrize("act", ["read", "write"])
def test_version_2_gets_the_macros_and_nothing_else_changes(tmp_path: Path, act: str) -> None:
    labels = [0, 0, 1, 1, 2, 2]
    store = stored(tmp_path, {attack("clean", "k"): [0] * 6, attack("cw", "x", "cw"): [0, 2, 2, 2, 0, 0]}, 6, labels)
    with duckdb.connect(str(store.path)) as connection:
        connection.execute(VERSION_2)
        views = {view: connection.execute(f"FROM {view} ORDER BY ALL").fetchall() for view in VIEWS}
    if act == "write":
        store.add_attack(attack("fgsm", "y", "fgsm"))
    assert store.rows("SELECT schema_version FROM meta") == [(store_module.SCHEMA_VERSION,)]
    assert {view: store.rows(f"FROM {view} ORDER BY ALL") for view in VIEWS} == views
    assert views["summary"]
    assert views["best_known_summary"]
    assert store.rows("SELECT nsd(a) FROM (VALUES (0.5), (0.5)) AS t(a)") == [(0.0,)]


def test_a_migrated_database_has_the_tables_of_a_new_one(old: Store, tmp_path: Path) -> None:
    new = Store(tmp_path / "new.duckdb")
    for store in (old, new):
        store.create()
    about = (
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns ORDER BY ALL",
        "SELECT table_name, constraint_text FROM duckdb_constraints() ORDER BY ALL",
        "SELECT table_name, column_name, column_index FROM duckdb_columns() WHERE NOT internal ORDER BY ALL",
    )
    for sql in about:
        assert old.rows(sql) == new.rows(sql)


# Views


def stored(path: Path, attacks: dict[AttackRow, list[int]], n: int, label: list[int]) -> Store:
    """One checkpoint on n samples of three classes; per attack its `broken_by`."""
    store = Store(path / "bench.duckdb")
    store.create()
    store.add_dataset(DatasetRow("d1", "digits", "test", "", n, ("a", "b", "c")))
    store.add_checkpoint(CheckpointRow(*CHECKPOINT))
    for attack, broken in attacks.items():
        store.add_attack(attack)
        predicted = np.where(np.array(broken) == 0, label, (np.array(label) + 1) % 3)
        columns: tuple[Any, ...] = (np.arange(n), label, predicted, np.full(n, 0.5), broken)
        store.add_chunk(store.begin("c1", "d1", attack.attack_id, n), Outcomes(*columns))
    return store


def attack(name: str, key: str, *lineup: str, eps: str = "8/255", norm: str = "Linf") -> AttackRow:
    return AttackRow(key, name, norm, eps, float(Fraction(eps)), lineup or (name,), "{}")


def test_best_known_names_the_first_attack_that_broke_each_sample(tmp_path: Path) -> None:
    label = [0, 1, 2, 0, 1]
    store = stored(
        tmp_path,
        {
            attack("pgd-sat", "1"): [0, 1, 2, 0, 2],
            attack("autoattack", "3", "apgd-ce", "fab-t"): [0, 1, 3, 0, 0],
            attack("autoattack", "2", "apgd-ce", "fab-t"): [0, 1, 2, 3, 0],
            attack("pgd-sat", "4", eps="4/255"): [2, 1, 0, 0, 0],
            attack("pgd-sat", "5", norm="L2"): [0, 1, 0, 0, 0],
            AttackRow("0", "clean", "none", "0", 0.0, (), "{}"): [0, 1, 0, 0, 0],
        },
        5,
        label,
    )
    found = store.rows(
        "SELECT sample, label, correct, attacks, broken_by FROM best_known "
        "WHERE norm = 'Linf' AND eps_exact = '8/255' ORDER BY sample"
    )
    assert found == [
        (0, 0, True, 3, None),
        (1, 1, False, 3, "clean"),
        (2, 2, False, 3, "autoattack: apgd-ce"),  # fingerprint 2 before 3
        (3, 0, False, 3, "autoattack: fab-t"),
        (4, 1, False, 3, "pgd-sat"),
    ]
    # classes: a 1 of 2, b 0 of 2, c 0 of 1
    names = "method, dataset, seed, norm, eps_exact, n, accuracy, worst_class, worst_accuracy, nsd, attacks"
    summary = store.rows(f"SELECT {names} FROM best_known_summary ORDER BY norm DESC, eps DESC")
    nsd = pytest.approx(np.std([0.5, 0, 0]) / np.mean([0.5, 0, 0]))
    assert summary[0] == ("rslad", "digits", 0, "Linf", "8/255", 5, 0.2, "b", 0.0, nsd, 3)
    assert [(row[3], row[4], row[6], row[10]) for row in summary[1:]] == [
        ("Linf", "4/255", 0.6, 1),
        ("L2", "8/255", 0.8, 1),
    ]


def test_best_known_is_the_literal_and_and_only_of_complete_attacks(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 60
    broken = {attack(f"a{k}", f"id{k}"): rng.choice([0, 2], n, p=[0.8, 0.2]).tolist() for k in range(4)}
    label = rng.integers(0, 3, n).tolist()
    store = stored(tmp_path, broken, n, label)
    late = attack("late", "id9")
    store.add_attack(late)
    columns: tuple[Any, ...] = ([0], [label[0]], [(label[0] + 1) % 3], [0.5], [2])
    store.add_chunk(store.begin("c1", "d1", "id9", n), Outcomes(*columns))
    found = store.rows("SELECT correct, broken_by, attacks FROM best_known ORDER BY sample")
    for row, sample in zip(found, range(n), strict=True):
        by = [one.name for one, rows in broken.items() if rows[sample]]
        assert row == (not by, by[0] if by else None, 4)


def test_the_new_views_have_the_columns_that_others_rely_on(tmp_path: Path) -> None:
    store = stored(tmp_path, {attack("cw", "1"): [0]}, 1, [0])
    known = "checkpoint_id method dataset model seed norm eps n accuracy worst_class worst_accuracy nsd attacks"
    calibration = (
        "checkpoint_id method dataset model seed attack norm eps n mean_confidence accuracy ece ece_mass "
        "error_confidence divergence"
    )
    for view, names in (("best_known_summary", known), ("calibration", calibration)):
        columns = list(store.query(f"SELECT * FROM {view}").columns)
        assert columns[: len(names.split())] == names.split()
        assert {"dataset_id", "eps_exact", "variant", "preset", "recipe_id", "selection", "split"} <= set(columns)


# Verdicts


def test_a_newer_run_of_a_check_replaces_the_older_one_of_the_same_key(tmp_path: Path) -> None:
    store = stored(tmp_path, {attack("cw", "1"): [0]}, 1, [0])
    first = [Verdict("a", 0.1, 0.2, "pass", 5, "fine"), Verdict("b", None, None, "not-run", 0, "no gradient")]
    for norm, eps in (("Linf", "8/255"), ("none", "0")):
        store.add_verdicts("c1", "d1", norm, eps, first)
    second = [Verdict("b", 3.0, 2.0, "fail", 7, "too large", 2), Verdict("c", 1.0, None, "warn", 7, "hm")]
    store.add_verdicts("c1", "d1", "Linf", "8/255", second)
    assert store.verdicts("c1", "d1", "Linf", "8/255") == [first[0], *second]
    assert store.verdicts("c1", "d1", "none", "0") == first
    assert store.verdicts("c1", "d1", "L2", "1") == []


def test_verdicts_enter_all_or_nothing_and_only_of_what_is_known(tmp_path: Path) -> None:
    store = stored(tmp_path, {attack("cw", "1"): [0]}, 1, [0])
    good, bad = Verdict("a", None, None, "pass", 5, "fine"), Verdict("b", None, None, "pass", 5, "fine")
    object.__setattr__(bad, "verdict", "maybe")
    with pytest.raises(BadStore, match="CHECK"):
        store.add_verdicts("c1", "d1", "none", "0", [good, bad])
    assert store.verdicts("c1", "d1", "none", "0") == []
    for ids in (("c9", "d1"), ("c1", "d9")):
        with pytest.raises(BadStore, match="9'; enter it before"):
            store.add_verdicts(*ids, "none", "0", [good])
