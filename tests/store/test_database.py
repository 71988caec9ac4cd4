"""The database: what goes in comes out, nothing half, nothing twice, and every trouble in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bench.duck import connect
from bench.errors import BadQuery, BadStore, DiskFull, StoreBusy
from bench.outcomes import COLUMNS, Outcomes
from bench.store import schema as store_module
from bench.store.database import Store
from bench.store.rows import AttackRow, CheckpointRow, DatasetRow, EpochRow, evaluation_key

ROOT = Path(__file__).parents[2]
DATASET = DatasetRow("d1", "digits", "test", "", 6, ("zero", "one", "two"))
CLEAN = AttackRow("a0", "clean", "none", "0", 0.0, (), "{}")
PGD = AttackRow("a1", "pgd-sat", "Linf", "8/255", 8 / 255, (), '{"steps":20}')
CHECKPOINT = CheckpointRow(
    "c1", "rslad", "", "short", "convnet-6", "digits", 0, "run1", "recipe1", 3, 3, "last", None, "{}", "{}", "{}"
)


def of(*columns: Any) -> Outcomes:
    """Outcomes from columns of any integer type, which the constructor narrows."""
    return Outcomes(*columns)


def outcomes(sample: list[int], label: list[int], predicted: list[int]) -> Outcomes:
    broken = np.where(np.array(label) == np.array(predicted), 0, 1)
    return of(
        np.array(sample),
        np.array(label),
        np.array(predicted),
        np.linspace(0.5, 1, len(sample)),
        broken,
        0.5,
        7,
        3,
        0.25,
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Store(tmp_path_factory.mktemp("template") / "results" / "bench.duckdb")
    made.create()
    made.add_dataset(DATASET)
    made.add_attack(CLEAN)
    made.add_attack(PGD)
    made.add_checkpoint(CHECKPOINT)
    return made.path


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Store:
    path = tmp_path / "results" / "bench.duckdb"
    path.parent.mkdir()
    shutil.copy(template, path)
    return Store(path, patience=0.0)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


# What goes in comes out


def test_blocks_are_small_so_that_small_chunks_do_not_leave_them_empty(store: Store) -> None:
    assert store.rows("SELECT block_size FROM pragma_database_size()") == [(store_module.BLOCK,)]


def test_create_twice_keeps_what_is_there(store: Store) -> None:
    store.create()
    assert store.rows("SELECT count(*) FROM checkpoints") == [(1,)]
    assert [path.name for path in store.path.parent.iterdir()] == ["bench.duckdb"]


def test_rows_mirror_the_tables(store: Store) -> None:
    for row, table in ((DATASET, "datasets"), (CLEAN, "attacks"), (CHECKPOINT, "checkpoints")):
        columns = [name for (name,) in store.rows(f"SELECT column_name FROM (DESCRIBE {table})")]
        assert columns == [field.name for field in fields(row)]
    (found,) = store.rows("SELECT * FROM datasets")
    assert found == ("d1", "digits", "test", "", 6, ["zero", "one", "two"])
    (found,) = store.rows("SELECT * FROM attacks WHERE attack_id = ?", ["a1"])
    assert found == ("a1", "pgd-sat", "Linf", "8/255", 8 / 255, [], '{"steps":20}')


def test_the_same_id_again_changes_nothing(store: Store) -> None:
    store.add_dataset(replace(DATASET, name="other"))
    store.add_attack(replace(CLEAN, name="other"))
    store.add_checkpoint(replace(CHECKPOINT, method="other"))
    assert store.rows("SELECT name FROM datasets") == [("digits",)]
    assert store.rows("SELECT method FROM checkpoints") == [("rslad",)]


def test_epochs_are_kept_once_and_none_is_null(store: Store) -> None:
    epochs = [EpochRow(1, "train", 0, 10, None, 4), EpochRow(1, "valid", 1, 9, 8, None)]
    store.add_checkpoint(CHECKPOINT, epochs)
    store.add_checkpoint(CHECKPOINT, epochs)
    assert store.rows("SELECT * FROM epochs ORDER BY class") == [
        ("c1", 1, "train", 0, 10, None, 4),
        ("c1", 1, "valid", 1, 9, 8, None),
    ]


def test_epochs_whose_counts_are_all_missing(store: Store) -> None:
    store.add_checkpoint(CHECKPOINT, [EpochRow(1, "train", 0, 10, None, None)])
    assert store.rows("SELECT hits_clean, hits_adv FROM epochs") == [(None, None)]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_outcomes_come_back_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 40))
    store = Store(tmp_path_factory.mktemp("round") / "bench.duckdb")
    store.create()
    store.add_dataset(replace(DATASET, n=n))
    store.add_attack(CLEAN)
    store.add_checkpoint(CHECKPOINT)
    sample = np.array(data.draw(st.permutations(range(0, 3 * n, 3))))
    label, predicted = (np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))) for _ in range(2))
    confidence = np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)))
    rng = np.random.default_rng(n)
    costs = (rng.exponential(size=n), *rng.integers(0, 2**32, (2, n)))
    broken = np.where(label == predicted, 0, data.draw(st.integers(1, 255)))
    whole = of(sample, label, predicted, confidence, broken, *costs)
    evaluation = store.begin("c1", "d1", "a0", n)
    cut = data.draw(st.integers(0, n))
    for part in (slice(0, cut), slice(cut, n)):
        store.add_chunk(evaluation, whole.select(np.arange(n)[part]))
    found = store.query("SELECT * FROM outcomes ORDER BY sample")
    order = np.argsort(sample)
    for name in ("correct", *COLUMNS):
        wanted = getattr(whole, name)[order]
        assert found[name].to_numpy().dtype == wanted.dtype
        np.testing.assert_array_equal(found[name].to_numpy(), wanted)
    assert store.complete("c1", "d1", "a0")
    np.testing.assert_array_equal(store.done("c1", "d1", "a0"), np.sort(sample))


def test_begin_finds_what_has_begun(store: Store) -> None:
    first = store.begin("c1", "d1", "a0", 6)
    assert store.begin("c1", "d1", "a0", 6) == first
    assert store.begin("c1", "d1", "a1", 6) != first
    assert store.rows("SELECT count(*) FROM evaluations") == [(2,)]
    assert store.rows("SELECT evaluation_key FROM evaluations WHERE evaluation_id = ?", [first]) == [
        (evaluation_key("c1", "d1", "a0"),)
    ]


def test_begin_from_many_threads_is_one_evaluation(store: Store) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(store.begin("c1", "d1", "a0", 6))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_begin_from_several_processes_is_one_evaluation(store: Store) -> None:
    code = f"""
        from pathlib import Path
        from bench.store.database import Store
        print(Store(Path({str(store.path)!r}), patience=30).begin("c1", "d1", "a0", 6))
    """
    runs = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(3)
    ]
    assert {run.communicate()[0].strip() for run in runs} == {"1"}
    assert store.rows("SELECT count(*) FROM evaluations") == [(1,)]


@pytest.mark.parametrize("ids", [("c9", "d1", "a0"), ("c1", "d9", "a0"), ("c1", "d1", "a9")])
def test_begin_wants_what_it_names(store: Store, ids: tuple[str, str, str]) -> None:
    with pytest.raises(BadStore, match="9") as error:
        store.begin(*ids, 6)
    one_line(error)


def test_begin_with_another_number_of_samples(store: Store) -> None:
    store.begin("c1", "d1", "a0", 6)
    with pytest.raises(BadStore, match="begun with 6 samples"):
        store.begin("c1", "d1", "a0", 5)
    with pytest.raises(BadStore, match="at least 1"):
        store.begin("c1", "d1", "a1", 0)


def test_incomplete_evaluations_are_invisible_to_the_views(store: Store) -> None:
    evaluation = store.begin("c1", "d1", "a0", 6)
    assert list(store.done("c1", "d1", "a0")) == []
    store.add_chunk(evaluation, outcomes([5, 0, 2], [0, 1, 2], [0, 1, 1]))
    assert list(store.done("c1", "d1", "a0")) == [0, 2, 5]
    assert store.done("c1", "d1", "a0").dtype == np.uint32
    assert not store.complete("c1", "d1", "a0")
    for view in ("class_accuracy", "summary", "leaderboard"):
        assert store.query(f"SELECT * FROM {view}").empty
    store.add_chunk(evaluation, outcomes([1, 3, 4], [0, 1, 2], [0, 0, 0]))
    assert store.complete("c1", "d1", "a0")
    assert store.rows("SELECT method, attack, n, accuracy, worst_class, worst_accuracy FROM summary") == [
        ("rslad", "clean", 6, 0.5, "two", 0.0)
    ]
    assert store.rows("SELECT n, forwards, backwards, seconds FROM complete_evaluations") == [(6, 42, 18, 0.5)]


def test_the_views_have_the_columns_that_others_rely_on(store: Store) -> None:
    wanted = {
        "class_accuracy": "checkpoint_id method dataset model seed attack norm eps class class_name n correct accuracy",
        "summary": "checkpoint_id method dataset model seed attack norm eps n accuracy worst_class worst_accuracy nsd",
        "leaderboard": ("method dataset model seeds attack norm eps accuracy accuracy_std worst_accuracy nsd rank"),
    }
    for view, names in wanted.items():
        columns = list(store.query(f"SELECT * FROM {view}").columns)
        assert columns[: len(names.split())] == names.split()


def test_seeds_of_a_recipe_are_averaged_and_ranked(store: Store) -> None:
    store.add_checkpoint(replace(CHECKPOINT, checkpoint_id="c2", seed=1))
    store.add_checkpoint(replace(CHECKPOINT, checkpoint_id="c3", method="adr", recipe_id="recipe2"))
    for checkpoint, predicted in (("c1", [0, 1, 1]), ("c2", [0, 1, 2]), ("c3", [1, 1, 1])):
        store.add_chunk(store.begin(checkpoint, "d1", "a0", 3), outcomes([0, 1, 2], [0, 1, 2], predicted))
    board = store.rows("SELECT method, seeds, accuracy, accuracy_std, rank FROM leaderboard ORDER BY rank")
    assert board[0] == ("rslad", 2, pytest.approx(5 / 6), pytest.approx(np.std([2 / 3, 1], ddof=1)), 1)
    assert board[1] == ("adr", 1, pytest.approx(1 / 3), None, 2)


def test_checkpoint_of_run(store: Store) -> None:
    assert store.checkpoint_of_run("run1") == ("c1", CHECKPOINT.recipe_id)
    assert store.checkpoint_of_run("run2") is None


# All or nothing


def test_samples_that_are_there_already_are_refused_whole(store: Store) -> None:
    evaluation = store.begin("c1", "d1", "a0", 6)
    store.add_chunk(evaluation, outcomes([0, 1], [0, 1], [0, 1]))
    with pytest.raises(BadStore, match=r"sample 1 .* already in") as error:
        store.add_chunk(evaluation, outcomes([2, 1], [0, 1], [0, 1]))
    one_line(error)
    with pytest.raises(BadStore, match=r"sample 4 .* already in"):
        store.add_chunk(evaluation, outcomes([4, 3, 4], [0, 1, 0], [0, 1, 0]))
    assert list(store.done("c1", "d1", "a0")) == [0, 1]
    assert store.rows("SELECT count(*) FROM chunks") == [(1,)]


def test_the_same_samples_of_another_evaluation_are_welcome(store: Store) -> None:
    for attack in ("a0", "a1"):
        store.add_chunk(store.begin("c1", "d1", attack, 6), outcomes([0, 1], [0, 1], [0, 1]))
    assert store.rows("SELECT count(*) FROM outcomes") == [(4,)]


def test_misfits_are_refused_whole(store: Store) -> None:
    evaluation = store.begin("c1", "d1", "a0", 3)
    with pytest.raises(BadStore, match="4 more are too many"):
        store.add_chunk(evaluation, outcomes([0, 1, 2, 3], [0] * 4, [0] * 4))
    with pytest.raises(BadStore, match="predicted 3 is outside the 3 classes"):
        store.add_chunk(evaluation, outcomes([0], [0], [3]))
    with pytest.raises(BadStore, match="label 7"):
        store.add_chunk(evaluation, outcomes([0], [7], [0]))
    with pytest.raises(BadStore, match="no evaluation 99"):
        store.add_chunk(99, outcomes([0], [0], [0]))
    assert store.rows("SELECT (SELECT count(*) FROM outcomes), (SELECT count(*) FROM chunks)") == [(0, 0)]


def test_an_error_within_a_transaction_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = store.begin("c1", "d1", "a0", 3)
    bad = outcomes([0], [0], [0])
    object.__setattr__(bad, "seconds", "soon")  # the chunk's row comes after its outcomes
    with pytest.raises(BadStore, match="soon"):
        store.add_chunk(evaluation, bad)
    assert list(store.done("c1", "d1", "a0")) == []


def test_killed_between_and_within_transactions(store: Store) -> None:
    store.begin("c1", "d1", "a0", 6)
    code = f"""
        import os, duckdb
        from pathlib import Path
        import numpy as np
        from bench.store.database import Store
        from bench.outcomes import Outcomes
        store = Store(Path({str(store.path)!r}))
        def chunk(i):
            return Outcomes(np.array([i]), np.array([0]), np.array([0]), np.array([1.0]), np.array([0]))
        store.add_chunk(1, chunk(3))
        with store._writing() as connection:
            connection.execute("INSERT INTO outcomes VALUES (1, 5, 0, 0, true, 1.0, 0, 0, 0, 0)")
            os.kill(os.getpid(), 9)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, check=False)
    assert run.returncode == -9, run.stderr
    assert list(store.done("c1", "d1", "a0")) == [3]
    store.add_chunk(1, outcomes([5], [0], [0]))
    assert list(store.done("c1", "d1", "a0")) == [3, 5]


# Held by another


HOLD = """
    import sys, duckdb
    connection = duckdb.connect({path!r})
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(store: Store) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD.format(path=str(store.path)))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate("\n")


def test_a_held_file_is_waited_for_once_said_and_then_refused(store: Store, holder: subprocess.Popen[str]) -> None:
    said: list[str] = []
    waiting = Store(store.path, patience=0.3, say=said.append)
    began = time.monotonic()
    with pytest.raises(StoreBusy, match=rf"PID {holder.pid}.*--db") as error:
        waiting.rows("SELECT 1")
    assert 0.3 <= time.monotonic() - began < 3
    assert said == [f"{store.path} is held by another process (PID {holder.pid}); waiting up to 0.3 s"]
    one_line(error)
    with pytest.raises(StoreBusy):
        waiting.begin("c1", "d1", "a0", 6)


def test_a_file_let_go_in_time_is_used(store: Store, holder: subprocess.Popen[str]) -> None:
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()

    waiting = Store(store.path, patience=20, say=say)
    assert waiting.begin("c1", "d1", "a0", 6) == 1
    assert len(said) == 1


def test_another_connection_of_this_process_is_named(store: Store) -> None:
    other = duckdb.connect(str(store.path))
    try:
        with pytest.raises(StoreBusy, match="another connection of this process"):
            store.rows("SELECT 1")
    finally:
        other.close()


def test_readers_get_in_between_chunks(store: Store) -> None:
    evaluation = store.begin("c1", "d1", "a0", 6)
    for sample in range(3):
        store.add_chunk(evaluation, outcomes([sample], [0], [0]))
        code = f"import duckdb; print(duckdb.connect({str(store.path)!r}, read_only=True).sql('FROM outcomes').shape)"
        if sample == 1:
            run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            assert run.stdout.strip() == "(2, 10)"


# Files that are not what they should be


def test_no_database(tmp_path: Path) -> None:
    store = Store(tmp_path / "absent.duckdb")
    for act in (lambda: store.rows("SELECT 1"), lambda: store.begin("c", "d", "a", 1), lambda: store.export(tmp_path)):
        with pytest.raises(BadStore, match=r"there is no database at .*evenbench demo.*--db") as error:
            act()
        one_line(error)
    assert not store.path.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"not a database" * 10_000])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for act in (Store(path).create, lambda: Store(path).rows("SELECT 1")):
        with pytest.raises(BadStore, match="is not a DuckDB database") as error:
            act()
        one_line(error)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE songs (name VARCHAR)",
        "CREATE TABLE meta (owner VARCHAR)",
        "CREATE TABLE meta (schema_version INTEGER)",
        "CREATE TABLE meta (schema_version VARCHAR); INSERT INTO meta VALUES ('x')",
    ],
)
def test_a_database_of_somebody_else(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "songs.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(sql)
    for act in (Store(path).create, lambda: Store(path).rows("SELECT 1")):
        with pytest.raises(BadStore, match="not one of evenbench's") as error:
            act()
        one_line(error)
    with duckdb.connect(str(path)) as connection:
        assert len(connection.execute("SHOW TABLES").fetchall()) == 1


def test_a_truncated_file(store: Store) -> None:
    content = store.path.read_bytes()
    for length in (len(content) // 2, 5000):
        store.path.write_bytes(content[:length])
        with pytest.raises(BadStore, match=r"is damaged .*import") as error:
            store.rows("SELECT * FROM checkpoints")
        one_line(error)


def test_flipped_bytes_are_an_error_in_one_line_or_harmless(store: Store) -> None:
    evaluation = store.begin("c1", "d1", "a0", 6)
    store.add_chunk(evaluation, outcomes(list(range(6)), [0, 1, 2] * 2, [0, 1, 1] * 2))
    content = store.path.read_bytes()
    right = store.rows("SELECT * FROM summary")
    caught = 0
    for place in range(0, len(content), len(content) // 25):
        damaged = bytearray(content)
        damaged[place : place + 64] = bytes(255 - byte for byte in damaged[place : place + 64])
        store.path.write_bytes(damaged)
        said = None
        try:
            assert store.rows("SELECT * FROM summary") == right
        except BadStore as error:
            said = error
        if said is not None:
            caught += 1
            assert "\n" not in str(said)
            assert not isinstance(said, BadQuery)
    assert caught > 5


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    for act in (Store(tmp_path).create, lambda: Store(tmp_path).rows("SELECT 1")):
        with pytest.raises(BadStore, match="is no file") as error:
            act()
        one_line(error)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(BadStore, match="results") as error:
        Store(tmp_path / "results" / "bench.duckdb").create()
    one_line(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_without_permission_to_write(store: Store) -> None:
    store.path.chmod(0o444)
    assert store.rows("SELECT count(*) FROM checkpoints") == [(1,)]
    with pytest.raises(BadStore, match="permissions"):
        store.begin("c1", "d1", "a0", 6)


@pytest.mark.parametrize(
    ("said", "wanted", "match"),
    [
        ('IO Error: Cannot open file "x": Permission denied', BadStore, "permissions"),
        ('IO Error: Cannot open file "x": Read-only file system', BadStore, "permissions"),
        ('Failed to commit: Could not write file "x.wal": No space left on device', DiskFull, "free some"),
        (
            "Trying to read a database file with version number 999, but we can only read 64",
            BadStore,
            "version of DuckDB",
        ),
    ],
)
def test_what_duckdb_reports_becomes_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, said: str, wanted: type[Exception], match: str
) -> None:
    def connect(*_: object, **__: object) -> None:
        raise duckdb.IOException(said + "\n\nand more\nlines")

    monkeypatch.setattr(duckdb, "connect", connect)
    with pytest.raises(wanted, match=match) as error:
        store.begin("c1", "d1", "a0", 6)
    assert str(store.path) in one_line(error)


def test_a_full_disk_loses_nothing(store: Store) -> None:
    store.add_dataset(replace(DATASET, dataset_id="big", n=3_000_000))
    evaluation = store.begin("c1", "big", "a0", 3_000_000)
    code = f"""
        import resource, signal
        from pathlib import Path
        import numpy as np
        from bench.errors import DiskFull
        from bench.store.database import Store
        from bench.outcomes import Outcomes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = Path({str(store.path)!r})
        limit = path.stat().st_size + 5_000_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        store, n, rng = Store(path), 100_000, np.random.default_rng(0)
        for i in range(20):
            zeros = np.zeros(n, dtype=int)
            try:
                store.add_chunk({evaluation}, Outcomes(np.arange(n) + i * n, zeros, zeros, rng.random(n), zeros))
            except DiskFull as error:
                print(i, error)
                break
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    chunks, message = run.stdout.strip().split(" ", 1)
    assert "no space left" in message
    assert "\n" not in message
    assert 0 < int(chunks) < 20
    np.testing.assert_array_equal(store.done("c1", "big", "a0"), np.arange(int(chunks) * 100_000))
    n = 100_000
    rest = of(np.arange(n) + int(chunks) * n, np.zeros(n), np.zeros(n), np.ones(n), np.zeros(n))
    store.add_chunk(evaluation, rest)
    assert len(store.done("c1", "big", "a0")) == (int(chunks) + 1) * n


# Schema versions


def test_a_newer_schema_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(store_module, "SCHEMA_VERSION", 4)
        newer.setattr(store_module, "MIGRATIONS", {3: "ALTER TABLE checks ADD COLUMN remark VARCHAR"})
        store.create()
    for act in (store.create, lambda: store.rows("SELECT 1")):
        with pytest.raises(BadStore, match=r"newer evenbench \(schema 4.*upgrade") as error:
            act()
        one_line(error)


@pytest.mark.parametrize("act", ["create", "read", "write"])
def test_an_older_schema_is_migrated(store: Store, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    store.add_chunk(store.begin("c1", "d1", "a0", 3), outcomes([0, 1, 2], [0, 1, 2], [0, 1, 1]))
    before = store.rows("SELECT * FROM summary")
    with store._writing() as connection:
        connection.execute("DROP VIEW leaderboard")
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", 5)
    steps = {3: "ALTER TABLE checks ADD COLUMN remark VARCHAR", 4: "ALTER TABLE checks RENAME COLUMN remark TO note"}
    monkeypatch.setattr(store_module, "MIGRATIONS", steps)
    if act == "create":
        store.create()
    elif act == "write":
        store.add_attack(PGD)
    assert store.rows("SELECT note FROM checks") == []
    assert store.rows("SELECT schema_version FROM meta") == [(5,)]
    assert store.rows("SELECT * FROM summary") == before
    assert len(store.rows("SELECT * FROM leaderboard")) == 1


def test_a_migration_that_fails_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(store_module, "SCHEMA_VERSION", 5)
        newer.setattr(
            store_module, "MIGRATIONS", {3: "ALTER TABLE checks ADD COLUMN remark VARCHAR", 4: "DROP TABLE nope"}
        )
        with pytest.raises(BadStore, match="nope") as error:
            store.create()
        one_line(error)
    assert store.rows("SELECT schema_version FROM meta") == [(3,)]
    assert "remark" not in store.query("SELECT * FROM checks").columns


def test_a_schema_too_old_to_migrate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", 4)
    with pytest.raises(BadStore, match="schema 3, which this evenbench cannot migrate"):
        store.create()


# Queries


def test_query_answers_with_a_frame_and_parameters(store: Store) -> None:
    frame = store.query("SELECT name, eps FROM attacks WHERE name = ? ORDER BY name", ["clean"])
    assert list(frame.columns) == ["name", "eps"]
    assert frame["name"].tolist() == ["clean"]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO meta VALUES (2)",
        "DELETE FROM checkpoints",
        "DROP TABLE checkpoints",
        "CREATE TABLE mine (x INTEGER)",
        "UPDATE attacks SET eps = 1",
        "COPY (SELECT 1) TO '{path}.wal'",  # replayed at the next opening
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}.wal'",
        "explain/**/analyze COPY (SELECT 1) TO '{path}.wal'",
        "EXPLAIN ANALYZE DELETE FROM checkpoints",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{path}.wal'",
        "SELECT 1; COPY (SELECT 1) TO '{path}.wal'; SELECT 2",
        "CALL enable_logging('QueryLog', storage='file', storage_path='{path}.wal')",
        "PREPARE p AS DELETE FROM checkpoints",
        "SET threads = 1",
        "PRAGMA force_checkpoint",
    ],
)
def test_queries_cannot_write(store: Store, sql: str) -> None:
    before = store.path.read_bytes()
    with pytest.raises(BadQuery, match="only read") as error:
        store.query(sql.format(path=store.path))
    one_line(error)
    assert store.path.read_bytes() == before
    assert not Path(f"{store.path}.wal").exists()


def test_a_query_cannot_end_the_process_by_its_log(store: Store) -> None:
    code = (
        "from pathlib import Path; from bench.errors import BadQuery; from bench.store.database import Store\n"
        f"store = Store(Path({str(store.path)!r}))\n"
        "for sql in ('SELECT * FROM enable_logging()', \"SELECT * FROM enable_logging('QueryLog', storage='file')\"):\n"
        "    try:\n        store.rows(sql)\n    except BadQuery:\n        print('refused')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (run.returncode, run.stdout) == (0, "refused\nrefused\n"), run.stderr


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE summary",
        "SUMMARIZE attacks",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN (FORMAT json) SELECT 1",
        "SHOW TABLES",
    ],
)
def test_queries_that_read_are_answered(store: Store, sql: str) -> None:
    assert store.rows(sql)


def test_the_database_of_somebody_else_reaches_no_file(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    copy = Store(tmp_path / "theirs.duckdb")
    shutil.copy(store.path, copy.path)
    with duckdb.connect(str(copy.path)) as connection:
        connection.execute("ALTER TABLE published RENAME TO hidden")
        connection.execute(
            "CREATE VIEW published AS SELECT content AS source, content AS method, content AS dataset, "
            "content AS model, content AS attack, content AS norm, 0.0 AS eps, content AS metric, 0.0 AS value "
            f"FROM read_text('{secret}')"
        )
    for act in (lambda: copy.export(tmp_path / "out"), lambda: copy.rows("FROM published")):
        with pytest.raises(BadStore):
            act()
    assert not (tmp_path / "out").exists()


def test_a_path_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("md:x"))
    store.create()
    assert store.rows("SELECT 1") == [(1,)]
    assert (tmp_path / "md:x").is_file()


def test_duckdb_is_opened_in_one_place() -> None:
    found = [path.name for path in (ROOT / "bench").rglob("*.py") if "duckdb.connect(" in path.read_text("utf-8")]
    assert found == ["duck.py"]
    with connect() as connection:
        for name in ("autoinstall_known_extensions", "autoload_known_extensions"):
            assert connection.execute("SELECT current_setting(?)", [name]).fetchall() == [(False,)]


def test_queries_reach_no_other_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    out = tmp_path / "out"
    for sql in (
        f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",
        f"SELECT * FROM read_text('{tmp_path}/secret.csv')",
        f"SELECT * FROM glob('{tmp_path}/*')",
        f"COPY attacks TO '{out}'",
        f"ATTACH '{out}' AS other",
        f"EXPORT DATABASE '{out}'",
        f"SELECT * FROM '{tmp_path}/secret.csv'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ):
        with pytest.raises(BadQuery) as error:
            store.query(sql)
        one_line(error)
    assert not out.exists()


def test_queries_do_not_see_variables_of_the_program(store: Store) -> None:
    params = {"x": np.arange(3)}
    with pytest.raises(BadQuery, match="does not exist"):
        store.query("SELECT * FROM params")
    assert len(params) == 1


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        ("", "no SQL statement"),
        ("-- nothing", "no SQL statement"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM sumary", "Did you mean .*summary"),
        ("SELECT acuracy FROM summary", "acuracy"),
        ("SELECT 'x'::INTEGER", "Could not convert"),
        ("SELECT ?", "parameters"),
    ],
)
def test_bad_sql_is_one_line(store: Store, sql: str, match: str) -> None:
    with pytest.raises(BadQuery, match=match) as error:
        store.rows(sql)
    one_line(error)


# Cost


def test_a_transaction_is_cheap_and_rows_go_in_fast(store: Store) -> None:
    n = 400_000
    store.add_dataset(replace(DATASET, dataset_id="big", n=n + 500))
    evaluation = store.begin("c1", "big", "a0", n + 500)
    zeros = np.zeros(n, dtype=int)
    began = time.process_time()
    store.add_chunk(evaluation, of(np.arange(n), zeros, zeros, np.random.default_rng(0).random(n), zeros))
    assert time.process_time() - began < 2.0
    costs = []
    for sample in range(n, n + 5):
        began = time.process_time()
        store.add_chunk(evaluation, outcomes([sample], [0], [0]))
        costs.append(time.process_time() - began)
    assert min(costs) < 0.15  # 0.03 s where nothing else runs


def test_reading_modules_never_import_torch_or_pandas() -> None:
    code = (
        "import sys, bench.store.bundle, bench.store.database\n"
        "import bench.report.compare, bench.report.metrics\n"
        "print(sorted({'torch', 'pandas', 'scipy'} & set(sys.modules)))\n"
        "import bench.report.regression\n"  # intervals need scipy
        "print(sorted({'torch', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == ["[]", "[]"]


def test_a_store_is_a_value(store: Store) -> None:
    import pickle

    plain = Store(store.path)
    assert pickle.loads(pickle.dumps(plain)) == plain


def test_what_a_killed_import_left_goes_with_the_next(tmp_path: Path) -> None:
    store = Store(tmp_path / "bench.duckdb")
    store.create()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f"bench.duckdb.{ended.pid}.1.partial.wal"
    left.touch()
    store.create()
    assert not left.exists()


def test_a_pipe_or_a_folder_is_no_database(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        for use in (lambda store: store.rows("SELECT 1"), lambda store: store.add_attack(CLEAN)):
            with pytest.raises(BadStore, match="is no file, so it is no database; name another with --db"):
                use(Store(path))
