"""What must hold of a bundle before anything of it is entered.

A bundle comes from somebody else. Its hashes say that it arrived as it was written, not that it is true; so whatever is
said in it twice must be said alike, and what it says of a data set must be what the database holds of it. The first
contradiction is the error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb

from bench.budget import show_eps
from bench.errors import BadStore
from bench.fingerprint import canonical, fingerprint

UNATTACKED = "clean"
"""What the attack that is none is called."""
LONGEST = 200
"""Characters of what a bundle says that an error repeats."""

_KEYS = {
    "datasets": "dataset_id",
    "attacks": "attack_id",
    "checkpoints": "checkpoint_id",
    "epochs": "checkpoint_id, epoch, split, class",
    "evaluations": "evaluation_key",
    "checks": "checkpoint_id, dataset_id, norm, eps_exact, check_name",
}
"""What no two rows of a table share."""
_RADIUS = re.compile(r"[0-9]{1,40}/[0-9]{1,40}")
"""A radius as the spec of an attack has it."""

_CLAIMS = (
    """SELECT 'data set ' || dataset_id, CASE
            WHEN n IS NULL OR n < 1 THEN 'has no images'
            WHEN coalesce(len(class_names), 0) NOT BETWEEN 1 AND 65536 THEN 'has no classes, or more than 65536'
            ELSE 'has a class without a name' END
        FROM new_datasets WHERE n IS NULL OR n < 1 OR coalesce(len(class_names), 0) NOT BETWEEN 1 AND 65536
            OR len(list_filter(class_names, lambda name: coalesce(name, '') = '')) > 0""",
    """SELECT 'data set ' || dataset_id, CASE
            WHEN new.n != mine.n THEN format('has {} images, but {} in this database', new.n, mine.n)
            ELSE format('has the classes {}, but {} in this database', new.class_names, mine.class_names) END
        FROM new_datasets new JOIN datasets mine USING (dataset_id)
        WHERE new.n != mine.n OR new.class_names != mine.class_names""",
    """SELECT 'attack ' || attack_id, format('has {} names in its line-up, but {} in this database',
            len(new.lineup), len(mine.lineup))
        FROM new_attacks new JOIN attacks mine USING (attack_id) WHERE len(new.lineup) != len(mine.lineup)""",
    """SELECT 'checkpoint ' || checkpoint_id, CASE
            WHEN epoch > epochs OR epoch < 0 THEN format('is of epoch {} of {}', epoch, epochs)
            ELSE 'has a recipe, a schedule or a provenance that is no JSON' END
        FROM new_checkpoints WHERE epoch > epochs OR epoch < 0
            OR NOT (json_valid(recipe) AND json_valid(schedule) AND json_valid(provenance))""",
    """SELECT 'checkpoint ' || checkpoint_id, CASE
            WHEN checkpoint_id NOT IN (SELECT checkpoint_id FROM new_checkpoints) THEN 'has epochs, but is not in it'
            ELSE format('has {} and {} hits of {} images in epoch {}, split {}',
                        hits_clean, hits_adv, n, epoch, split) END
        FROM new_epochs WHERE checkpoint_id NOT IN (SELECT checkpoint_id FROM new_checkpoints)
            OR NOT coalesce(epoch >= 1 AND n >= 0 AND split IN ('train', 'valid'), false)
            OR hits_clean NOT BETWEEN 0 AND n OR hits_adv NOT BETWEEN 0 AND n""",
    """SELECT 'evaluation ' || e.evaluation_key, CASE
            WHEN d.n IS NULL OR a.attack_id IS NULL OR k.checkpoint_id IS NULL
                THEN 'names a data set, attack or checkpoint that it does not hold'
            WHEN e.n IS DISTINCT FROM d.n THEN format('has {} images, but its data set {}', e.n, d.n)
            ELSE format('took {} forward and {} backward passes', e.forwards, e.backwards) END
        FROM new_evaluations e LEFT JOIN new_datasets d USING (dataset_id) LEFT JOIN new_attacks a USING (attack_id)
            LEFT JOIN new_checkpoints k USING (checkpoint_id)
        WHERE d.n IS NULL OR a.attack_id IS NULL OR k.checkpoint_id IS NULL OR e.n IS DISTINCT FROM d.n
            OR NOT coalesce(e.forwards >= 0 AND e.backwards >= 0, false)""",
    """SELECT 'evaluation ' || evaluation_key,
            format('is of {} images, but was planned with another number of samples in this database ({})', e.n, mine.n)
        FROM new_evaluations e JOIN evaluations mine USING (evaluation_key) WHERE mine.n != e.n""",
    """SELECT format('evaluation number {}', evaluation_id), 'has outcomes, but is not in it'
        FROM seen ANTI JOIN new_evaluations USING (evaluation_id)""",
    """SELECT 'evaluation ' || e.evaluation_key, CASE
            WHEN s.rows IS DISTINCT FROM e.n OR s.samples IS DISTINCT FROM e.n
                THEN format('does not hold each planned sample exactly once ({} outcomes of {} samples, {} planned)',
                            coalesce(s.rows, 0), coalesce(s.samples, 0), e.n)
            WHEN d.subset = '' AND s.last >= d.n
                THEN format('holds sample {} of a data set whose last is {}', s.last, d.n - 1)
            WHEN NOT coalesce(s.class < len(d.class_names), false)
                THEN format('holds class {}, which is outside its data set of {}', s.class, len(d.class_names))
            WHEN s.confidence THEN 'holds a confidence that is not in [0, 1]'
            WHEN s.divergence THEN 'holds a divergence that is negative or not finite'
            WHEN s.contradicts
                THEN 'holds outcomes that contradict themselves: correct is not whether the prediction is the label'
            WHEN s.unbroken
                THEN 'holds outcomes that contradict themselves: broken_by is not 0 just where the prediction is right'
            WHEN NOT coalesce(s.broken_by <= len(a.lineup) + 1, false)
                THEN format('holds outcomes broken by number {}, but its attack has a line-up of {}',
                            s.broken_by, len(a.lineup))
            ELSE format('took {} and {} passes, but its outcomes {} and {}',
                        e.forwards, e.backwards, s.forwards, s.backwards) END
        FROM new_evaluations e JOIN new_datasets d USING (dataset_id) JOIN new_attacks a USING (attack_id)
            LEFT JOIN seen s USING (evaluation_id)
        WHERE s.rows IS DISTINCT FROM e.n OR s.samples IS DISTINCT FROM e.n OR (d.subset = '' AND s.last >= d.n)
            OR NOT coalesce(s.class < len(d.class_names), false) OR s.confidence OR s.divergence OR s.contradicts
            OR s.unbroken OR NOT coalesce(s.broken_by <= len(a.lineup) + 1, false)
            OR s.forwards != e.forwards OR s.backwards != e.backwards""",
    """SELECT 'data set ' || dataset_id, CASE
            WHEN l.lowest != l.highest
                THEN format('has sample {} with the labels {} and {}', l.sample, l.lowest, l.highest)
            ELSE format('has sample {} in some evaluations only', l.sample) END
        FROM labels l JOIN (SELECT dataset_id, count(*) AS evaluations FROM new_evaluations GROUP BY dataset_id) e
            USING (dataset_id)
        WHERE l.lowest != l.highest OR l.evaluations != e.evaluations""",
    """SELECT 'data set ' || dataset_id, CASE
            WHEN l.sample IS NULL THEN format('lacks sample {}, which this database has', m.sample)
            ELSE format('has sample {} with label {}, but {} in this database', l.sample, l.lowest, m.label) END
        FROM mine m LEFT JOIN labels l USING (dataset_id, sample) WHERE l.lowest IS DISTINCT FROM m.label""",
    """SELECT format('soundness check {} of checkpoint {}', check_name, checkpoint_id), CASE
            WHEN checkpoint_id NOT IN (SELECT checkpoint_id FROM new_checkpoints)
                OR dataset_id NOT IN (SELECT dataset_id FROM new_datasets)
                THEN 'is of a checkpoint or a data set that it does not hold'
            WHEN NOT coalesce(verdict IN ('pass', 'warn', 'fail', 'not-run'), false)
                THEN 'says ' || coalesce(verdict, 'nothing')
            ELSE format('measured {} against {} on {} images', value, threshold, n) END
        FROM new_checks
        WHERE checkpoint_id NOT IN (SELECT checkpoint_id FROM new_checkpoints)
            OR dataset_id NOT IN (SELECT dataset_id FROM new_datasets)
            OR NOT coalesce(verdict IN ('pass', 'warn', 'fail', 'not-run') AND n >= 0, false)
            OR NOT coalesce(isfinite(value), true) OR NOT coalesce(isfinite(threshold), true)""",
)
"""What must not be: each query answers with the cases of a contradiction: what it is of, and what is wrong with it."""

_SEEN = """
CREATE TEMP TABLE seen AS
    SELECT evaluation_id, count(*) AS rows, count(DISTINCT sample) AS samples, max(sample) AS last,
           max(greatest(label, predicted)) AS class, max(broken_by) AS broken_by,
           NOT bool_and(coalesce(confidence BETWEEN 0 AND 1, false)) AS confidence,
           NOT bool_and(coalesce(divergence >= 0 AND isfinite(divergence), true)) AS divergence,
           NOT bool_and(coalesce(correct = (label = predicted), false)) AS contradicts,
           NOT bool_and(coalesce((broken_by = 0) = (label = predicted), false)) AS unbroken,
           sum(forwards)::BIGINT AS forwards, sum(backwards)::BIGINT AS backwards
    FROM new_outcomes GROUP BY evaluation_id;
CREATE TEMP TABLE labels AS
    SELECT dataset_id, sample, min(label) AS lowest, max(label) AS highest, count(*) AS evaluations
    FROM new_outcomes JOIN new_evaluations USING (evaluation_id) GROUP BY dataset_id, sample;
CREATE TEMP TABLE mine AS
    SELECT r.dataset_id, o.sample, o.label
    FROM outcomes o JOIN (
        SELECT DISTINCT ON (dataset_id) dataset_id, evaluation_id
        FROM evaluations SEMI JOIN new_evaluations USING (dataset_id) SEMI JOIN chunks USING (evaluation_id)
        ORDER BY dataset_id, evaluation_id NOT IN (SELECT evaluation_id FROM complete_evaluations), evaluation_id
    ) r USING (evaluation_id);
"""
"""What the outcomes say, by evaluation and by data set, and what one evaluation in the database says of the same data.

The database's first complete evaluation of a data set stands for all of them: they agree, as each was checked.
"""


def refuse_contradictions(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Refuse a bundle whose facts, in the views `new_TABLE`, contradict each other or this database.

    Args:
        connection: to the database, in a transaction; temporary tables are left in it.
        folder: of the bundle, for the message.

    Raises:
        BadStore: with the first contradiction.
    """
    for table in ("datasets", "attacks", "checkpoints", "epochs", "evaluations", "checks"):
        needed = [str(name) for name, _, null, *_ in connection.execute(f"DESCRIBE {table}").fetchall() if null == "NO"]
        for name in needed:
            if connection.execute(f'SELECT 1 FROM new_{table} WHERE "{name}" IS NULL LIMIT 1').fetchall():
                raise _contradiction(folder, f"the table {table}", f"has a row without {name}")
    for table, key in _KEYS.items():
        found = connection.execute(
            f"SELECT {key} FROM new_{table} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 1"
        )
        for row in found.fetchall():
            raise _contradiction(folder, f"the table {table}", f"has {' '.join(map(str, row))} more than once")
    names = ("attack_id", "name", "norm", "eps_exact", "eps", "lineup", "spec")
    for row in connection.execute(f"SELECT {', '.join(names)} FROM new_attacks ORDER BY attack_id").fetchall():
        attack = dict(zip(names, row, strict=True))
        if said := _of_attack(attack):
            raise _contradiction(folder, f"attack {attack['attack_id']}", said)
    keys = connection.execute(
        "SELECT evaluation_key, checkpoint_id, dataset_id, attack_id FROM new_evaluations ORDER BY evaluation_key"
    )
    for key, *parts in keys.fetchall():
        if key != fingerprint(parts):
            raise _contradiction(folder, f"evaluation {key}", "is not what its key says")
    connection.execute(_SEEN)
    for query in _CLAIMS:
        for subject, said in connection.execute(f"{query} ORDER BY ALL LIMIT 1").fetchall():
            raise _contradiction(folder, str(subject), str(said))


def _contradiction(folder: Path, subject: str, said: str) -> BadStore:
    return BadStore(
        f"{subject[:LONGEST]} of the bundle {folder} {said[:LONGEST]}; nothing of it was taken, export it again"
    )


def _of_attack(attack: Mapping[str, Any]) -> str:
    """What is wrong with an attack by what its spec says of it; "" where nothing is."""
    try:
        spec = json.loads(attack["spec"])
        genuine = canonical(spec) == attack["spec"] and fingerprint(spec) == attack["attack_id"]
    except (TypeError, ValueError, RecursionError):
        genuine = False
    if not genuine or not isinstance(spec, dict) or "attack" not in spec:
        return "is not what its id says: that is the hash of another spec"
    if spec["attack"] is None:
        norm, exact, eps, named = "none", "0", 0.0, attack["name"] == UNATTACKED and attack["lineup"] == []
    else:
        if not _RADIUS.fullmatch(str(spec.get("eps"))) or not int(spec["eps"].partition("/")[2]):
            return f"has the radius {spec.get('eps')} in its spec, which is none"
        radius = Fraction(spec["eps"])
        norm, exact, eps = str(spec.get("norm")), show_eps(radius), float(radius)
        named = attack["name"] != UNATTACKED
    if not named:
        return f"is called {attack['name']}, with the line-up {attack['lineup']}, but its spec is of another attack"
    if attack["norm"] != norm:
        return f"has the norm {attack['norm']}, but {norm} in its spec"
    if (attack["eps_exact"], attack["eps"]) != (exact, eps):
        return f"has eps {attack['eps_exact']} ({attack['eps']}), but {exact} ({eps}) in its spec"
    return ""
