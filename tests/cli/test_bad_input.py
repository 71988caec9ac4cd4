"""Whatever is wrong with what came: one line that says so, exit code 2, and everything on disk as it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image

from bench.cli import evaluation, reading, run, study
from bench.data import source
from bench.data.load import load
from bench.models.architecture import Architecture, build
from bench.store.database import Store
from bench.training.checkpoint import read, write

ROOT = Path(__file__).parents[2]
STUDY = """
name = "s"
dataset = "digits"
checks = "none"
model = "convnet-2"
eps = "0.15"
attacks = ["fgsm"]
n = 20
train_n = 60
epochs = 1
[entries.natural]
"""
MODELS = """
import torch
from torch import nn

class Answer(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.linear = nn.Linear(64, 10)
        nn.init.constant_(self.linear.weight, 0.1)
        nn.init.constant_(self.linear.bias, 0.1)

    def forward(self, x):
        return self.answer(self.linear(x.flatten(1)))

def nan(): return Answer(lambda z: z * float("nan"))
def few(): return Answer(lambda z: z[:, :9])
def flat(): return Answer(lambda z: z[0])
def text(): return Answer(lambda z: "logits")
def fails(): return Answer(lambda z: z @ z)
def soft(): return Answer(lambda z: z.softmax(1))
def stiff(): return Answer(lambda z: nn.functional.one_hot(torch.zeros(len(z), dtype=torch.long), 10) + z.detach())
def number(): return 3
"""


def parquet(path: Path, rows: str, names: list[str] | None = None) -> None:
    about = json.dumps({"info": {"features": {"label": {"names": names}}}})
    extra = f", KV_METADATA {{huggingface: '{about}'}}" if names else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    duckdb.sql(f"COPY ({rows}) TO '{path}' (FORMAT parquet{extra})")


def rows(labels: list[object], content: bytes) -> str:
    one = f"{{'bytes': from_hex('{content.hex()}')::BLOB, 'path': NULL::VARCHAR}}"
    return " UNION ALL ".join(f"SELECT {one} AS image, {label}::BIGINT AS label" for label in labels)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A good checkpoint, a good database with its evaluation, and much that is not good."""
    place = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("EVENBENCH_CACHE", str(place / "cache"))
        train = "train pgd-at --dataset digits --n 60 --model convnet-2 --epochs 1 --out at.safetensors"
        assert run(shlex.split(train)) == 0
        assert run(shlex.split(train.replace("at.safe", "blind.safe") + " --set schedule.holdout=0")) == 0
        assert run(shlex.split(JUDGE.format("at.safetensors"))) == 0
    (place / "model.py").write_text(MODELS)
    held = read(place / "at.safetensors")
    worse = [{**row, "epoch": 2, "hits_adv": [0] * 10} for row in held.history]
    longer = {**held.run, "schedule": {**held.run["schedule"], "epochs": 2}}
    write(replace(held, run=longer, epoch=2, history=[*held.history, *worse]), place / "lone.safetensors")
    good = (place / "at.safetensors").read_bytes()
    (place / "text.safetensors").write_text("no checkpoint at all")
    (place / "empty.safetensors").touch()
    (place / "short.safetensors").write_bytes(good[:-50])
    (place / "flipped.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    state = build(Architecture("convnet-2", 10, 1)).state_dict()
    torch.save(state, place / "two.pt")
    torch.save(build(Architecture("convnet-2", 7, 1)).state_dict(), place / "seven.pt")
    torch.save({"lr": 0.1}, place / "config.pt")
    torch.save(torch.nn.Linear(2, 2), place / "pickled.pt")
    (place / "short.pt").write_bytes((place / "two.pt").read_bytes()[:-300])

    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, "PNG")
    png = file.getvalue()
    parquet(place / "two" / "test.parquet", rows([0, 1, 0, 1], png))
    parquet(place / "none.parquet", rows([0, 1], png) + " LIMIT 0")
    parquet(place / "noimage.parquet", rows([0, 1], b"not an image"))
    parquet(place / "halfimage.parquet", rows([0, 1], png[:-30]))
    parquet(place / "nocolumn.parquet", "SELECT 1 AS label")
    parquet(place / "negative.parquet", rows([0, -1, 1], png))
    parquet(place / "beyond.parquet", rows([0, 1, 2], png), ["a", "b"])
    parquet(place / "unlabelled.parquet", rows([0, 1, "NULL"], png))
    parquet(place / "lacking.parquet", rows([0, 2], png), ["a", "b", "c"])
    (place / "zero.parquet").touch()
    (place / "cut.parquet").write_bytes((place / "two" / "test.parquet").read_bytes()[:-40])
    for name in ("folder/a", "folder/b"):
        (place / name).mkdir(parents=True)
    (place / "folder/a/1.png").write_bytes(png)

    (place / "s.toml").write_text(STUDY)
    for name, old, new in (
        ("key", "epochs", "epoch"),
        ("method", "entries.natural", "entries.naturl"),
        ("attack", "fgsm", "fgms"),
        ("data", "digits", "diggits"),
        ("network", "convnet-2", "convnet"),
        ("radius", "0.15", "8/0"),
        ("many", "n = 20", "n = 20000"),
    ):
        (place / f"{name}.toml").write_text(STUDY.replace(old, new))
    (place / "circle.toml").write_text(STUDY + '[entries.rslad]\nteacher = "rslad"\n')
    (place / "broken.toml").write_text("name = ")

    (place / "foreign.duckdb").write_bytes(b"some other file " * 500)
    with duckdb.connect(str(place / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE mine (x INTEGER)")
    whole = (place / "b.duckdb").read_bytes()
    (place / "cut.duckdb").write_bytes(whole[: len(whole) // 3])
    (place / "garbled.duckdb").write_bytes(whole[:4096] + os.urandom(1 << 16) + whole[4096 + (1 << 16) :])
    (place / "newer.duckdb").write_bytes(whole)
    with duckdb.connect(str(place / "newer.duckdb")) as connection:
        connection.execute("UPDATE meta SET schema_version = 999")
    return place


FACTS = """
SELECT attack_id, sample, predicted, confidence FROM outcomes JOIN evaluations USING (evaluation_id)
JOIN checkpoints USING (checkpoint_id) WHERE method = 'pgd-at' ORDER BY ALL
"""


def state_of(place: Path) -> dict[str, Any]:
    """Every file's hash; of the database, the outcomes of the good checkpoint."""
    found: dict[str, Any] = {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in place.rglob("*")
        if path.is_file() and path.name != "b.duckdb" and "cache" not in path.parts and "__pycache__" not in path.parts
    }
    return {**found, "facts": Store(place / "b.duckdb").rows(FACTS)}


@pytest.fixture
def refused(workspace, monkeypatch, capsys):
    """Run a command line that must be refused; what it said."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("EVENBENCH_CACHE", str(workspace / "cache"))
    before = state_of(workspace)

    def check(line: str) -> str:
        assert run(shlex.split(line)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        said = [line for line in err.splitlines() if not re.match(r" *\d+% done|.* passes ahead, ", line)]
        assert len(said) == 1, err
        assert said[0].startswith("evenbench: ")
        return said[0]

    yield check
    monkeypatch.undo()
    assert state_of(workspace) == before


TRAIN = "train {} --dataset {} --model {} --n 60 --epochs 1 --out new.safetensors"
JUDGE = "evaluate {} --dataset digits --n 20 --attacks fgsm --checks none --db b.duckdb"

NAMES = [
    (TRAIN.format("trade", "digits", "convnet-2"), "no method is called 'trade'; did you mean 'trades'?"),
    (TRAIN.format("trades+", "digits", "convnet-2"), "has an empty part; write it as"),
    (TRAIN.format("trades+pgd-at", "digits", "convnet-2"), "fill the slot 'objective'; name only one"),
    (TRAIN.format("natural", "digit", "convnet-2"), "no data set is called 'digit'; did you mean 'digits'?"),
    (TRAIN.format("natural", "./no/at.parquet", "convnet-2"), "no data at './no/at.parquet'; wanted a name"),
    (TRAIN.format("natural", "digits", "resnet18"), "no model is called 'resnet18'; did you mean 'resnet-18'?"),
    (TRAIN.format("natural", "digits", "wrn-33-10"), "no model is called 'wrn-33-10'"),
    (TRAIN.format("natural", "digits", "convnet-2") + " --preset long", "has no preset 'long'"),
    (TRAIN.format("natural", "digits", "convnet-2") + " --set lr=1", "'lr' addresses no slot; use one of"),
    (TRAIN.format("natural", "digits", "convnet-2") + " --set schedule.lr", "is no assignment; write slot.field=value"),
    (TRAIN.format("natural", "digits", "convnet-2") + " --set schedule.lr=x", "cannot be read as a number"),
    (TRAIN.format("natural", "digits", "convnet-2") + " --device tpu9", "device 'tpu9' is not supported"),
    (TRAIN.format("natural", "digits", "convnet-2") + " --precision fp8", "choose one of fp32, bf16"),
    (
        TRAIN.format("rslad", "digits", "convnet-2"),
        "name its checkpoint with --teacher teacher=FILE",
    ),
    (TRAIN.format("rslad", "digits", "convnet-2") + " --teacher no.safetensors", "no checkpoint at no.safetensors"),
    (TRAIN.format("natural", "digits", "convnet-2") + " --teacher at.safetensors", "has no use for a teacher"),
    (TRAIN.format("natural", "digits", "convnet-2").replace("--n 60", "--n -5"), "a subset of -5 images"),
    (JUDGE.format("at.safetensors").replace("fgsm", "fgms"), "no attack is called 'fgms'; did you mean 'fgsm'?"),
    (JUDGE.format("at.safetensors").replace("--attacks fgsm", "--suite all"), "no suite is called 'all'"),
    (JUDGE.format("at.safetensors") + " --split dev", "no split of digits is called 'dev'"),
    (JUDGE.format("at.safetensors") + " --norm L1", "L1"),
    (JUDGE.format("at.safetensors") + " --precision fp8", "'fp8' is not supported; choose fp32 or bf16"),
    (JUDGE.format("at.safetensors") + " --batch-size 0", "at least 1"),
    (JUDGE.format("at.safetensors").replace("--n 20", "--n 5"), "a subset of 5 images"),
    ("select at.safetensors --rule best", "no selection rule is called 'best'; did you mean 'best-robust'?"),
    ("select none.safetensors --rule last", "no checkpoint at none.safetensors"),
    ("select two.pt --rule last", "two.pt is no readable safetensors file"),
    ("select blind.safetensors --rule best-robust", "blind.safetensors has no held-out figures to select by"),
    ("select lone.safetensors --rule best-robust", "best-robust keeps epoch 1 of lone.safetensors, whose weights"),
    ("select at.safetensors --rule best-robust --out lone.safetensors", "lone.safetensors holds another checkpoint"),
    (TRAIN.format("natural", "digits", "convnet-2").replace("new.s", "at.safetensors/new.s"), "is no folder; choose"),
    (TRAIN.format("natural", "digits", "convnet-2").replace("new", "n" * 250), "file names have 200 at most"),
    (TRAIN.format("natural", "digits", "convnet-2").replace("new.safetensors", "folder"), "folder is a folder; name a"),
    (TRAIN.format("natural", "digits", "wrn-34-1000000"), "at most 1e+09 are built, name a smaller network"),
    (TRAIN.format("natural", "~nosuchuser/x", "convnet-2"), "no data at '~nosuchuser/x'"),
    (TRAIN.format("natural", "x" * 5000, "convnet-2"), "no data"),
    (TRAIN.format("n" * 5000, "digits", "convnet-2"), "no method is called 'nnn"),
    (TRAIN.format("natural", "digits", "convnet-2") + " --set schedule.lr=1e9999999999", "cannot be read as a number"),
    (JUDGE.format("at.safetensors") + " --keep-adversarials at.safetensors", "is no folder; choose another place"),
    (JUDGE.format("at.safetensors").replace("--attacks fgsm", "--suite ''"), "no suite is called ''"),
    (JUDGE.format("n" * 300), "no path may be so long; choose a shorter one"),
    (JUDGE.format("n" * 300 + ".py:make"), "no path may be so long; choose a shorter one"),
    ("select at.safetensors --rule last --out folder", "folder is a folder; name a file in it"),
    ("show tradez", "no method is called 'tradez'; did you mean 'trades'?"),
    ("list method", "did you mean 'methods'?"),
    ("leaderboard --db b.duckdb --sort colour", "colour"),
    ("leaderboard --db b.duckdb --format pdf", "no format is called 'pdf'"),
    ("leaderboard --db b.duckdb --out board.txt", "--out needs a file format; add --format"),
    ("leaderboard --db b.duckdb --dataset cifar10", "cifar10"),
    ("plot pie --db b.duckdb --out f", "pie"),
    ("compare pgd-at trades --db b.duckdb", "no entry is called 'trades'"),
    ("compare pgd-at pgd-at --db b.duckdb --format pdf", "no format is called 'pdf'"),
    ("check pgd-at --against pgd-at --db b.duckdb --alpha 2", "lies between 0 and 0.5, such as 0.05"),
    ("check pgd-at --against pgd-at --db b.duckdb --margin -1", "the margin of accuracy is -0.01"),
    ("check pgd-at --against pgd-at --db b.duckdb --attack cw", "no attack is called 'cw'"),
    ('sql "SELECT nothing FROM nowhere" --db b.duckdb', "the query cannot be answered"),
    ('sql "" --db b.duckdb', "no SQL statement came"),
    ("export . --db b.duckdb", "."),
    ("import folder --db b.duckdb", "folder"),
]

RADII = [
    (verb.format("at.safetensors" if verb is JUDGE else "natural", "digits", "convnet-2") + f" --eps={eps}", said)
    for verb in (TRAIN, JUDGE)
    for eps, said in (
        ("0", "eps is 0; a budget must be larger than 0, such as 8/255"),
        ("-0.1", "must be larger than 0"),
        ("8/0", "eps '8/0' is no number; give a positive fraction or decimal such as 8/255"),
        ("big", "eps 'big' is no number"),
        ("inf", "eps 'inf' is no number"),
        ("nan", "eps 'nan' is no number"),
        ("8", "eps is 8 in Linf, where pixels lie in [0, 1]; did you mean 8/255?"),
        ("300/255", "eps is 300/255 in Linf"),
        ("8/255/1", "eps '8/255/1' is no number"),
        ("1e-400", "eps '1e-400' is too large or too small for pixels"),
        ("1e9999999999", "eps '1e9999999999' is too large or too small for pixels"),
    )
]

STUDIES = [
    ("key", "no key is called 'epoch'; did you mean 'epochs'?"),
    ("method", "entry 'naturl': no method is called 'naturl'; did you mean 'natural'?"),
    ("attack", "no attack is called 'fgms'; did you mean 'fgsm'?"),
    ("data", "no data set is called 'diggits'; did you mean 'digits'?"),
    ("network", "no model is called 'convnet'"),
    ("radius", "eps '8/0' is no number"),
    ("many", "a subset of 20000 images was asked for"),
    ("circle", "in a circle: rslad → rslad"),
    ("broken", "broken.toml is no TOML study"),
    ("absent", "no study at absent.toml; name a TOML file"),
]

TARGETS = [
    ("none.safetensors", "no checkpoint at none.safetensors"),
    ("text.safetensors", "is no readable safetensors file"),
    ("empty.safetensors", "is no readable safetensors file"),
    ("short.safetensors", "is no readable safetensors file"),
    ("flipped.safetensors", "does not hold what its record says"),
    ("folder", "no checkpoint at folder"),
    ("two.pt", "say with --model which network it belongs to"),
    ("two.pt --model convnet-3", "weights do not fit convnet-3 with 10 classes and 1 channels"),
    ("two.pt --model resnet-18", "weights do not fit resnet-18"),
    ("two.pt --model convnet", "no model is called 'convnet'"),
    ("seven.pt --model convnet-2", "they are for 7 classes; name the network and the data they were made for"),
    ("config.pt --model convnet-2", "holds no state dict; wanted tensors by name"),
    ("pickled.pt --model convnet-2", "would have to run code to load; save its state_dict() alone"),
    ("short.pt --model convnet-2", "it may be truncated, fetch it again"),
    ("none.pt --model convnet-2", "no weights at none.pt; name a file"),
    ("model.py", "name its function too, model.py:make"),
    ("model.py:none", "has no function 'none'"),
    ("none.py:make", "no file none.py; give file.py:function"),
    ("model.py:number", "returned int; it must return a torch.nn.Module"),
    ("model.py:nan", "returns NaN or infinite logits for 20 of 20 images; mend it"),
    ("model.py:few", "returns shape (20, 9) for 20 images; the data set has 10 classes"),
    ("model.py:flat", "returns shape (10,) for 20 images"),
    ("model.py:text", "returns str; it must return logits"),
    ("model.py:fails", "the model fails on images of shape (20, 1, 8, 8)"),
    ("model.py:stiff", "passes no gradient to its pixels"),
]

DATA = [
    ("zero.parquet", "zero.parquet is no Parquet file that can be read"),
    ("cut.parquet", "cut.parquet is no Parquet file that can be read"),
    ("none.parquet", "none.parquet holds no rows; at least one image is needed"),
    ("noimage.parquet", "row 0 of noimage.parquet is no image"),
    ("halfimage.parquet", "row 0 of halfimage.parquet cannot be decoded"),
    ("nocolumn.parquet", "nocolumn.parquet has no struct column"),
    ("negative.parquet", "label -1"),
    ("beyond.parquet", "image 2 has label 2, outside the 2 classes"),
    ("unlabelled.parquet", "row 2 of unlabelled.parquet has no label"),
    ("lacking.parquet", "'b'"),
    ("folder", "'b'"),
]

BASES = [
    ("foreign.duckdb", "foreign.duckdb is not a DuckDB database; move it away, or name another file with --db"),
    ("other.duckdb", "not one of evenbench's; name another file with --db"),
    ("cut.duckdb", "cut.duckdb"),
    ("garbled.duckdb", "garbled.duckdb is damaged"),
    ("newer.duckdb", "made by a newer evenbench (schema 999"),
]


@pytest.mark.parametrize(("line", "said"), [*NAMES, *RADII])
def test_names_and_numbers(refused, line, said):
    assert said in refused(line)


@pytest.mark.parametrize(("study", "said"), STUDIES)
@pytest.mark.parametrize("dry", ["", " --dry-run"])
def test_studies(refused, study, said, dry):
    assert said in refused(f"run {study}.toml --db b.duckdb --out out{dry}")


@pytest.mark.parametrize(("target", "said"), TARGETS)
def test_targets(refused, target, said):
    assert said in refused(JUDGE.format(target))


def test_a_checkpoint_of_other_data(refused):
    line = "evaluate at.safetensors --dataset two --db b.duckdb"
    assert "at.safetensors was made for 10 classes, two has 2; choose data that fit" in refused(line)
    line = "train rslad --dataset two --split test --model convnet-2 --teacher at.safetensors"
    refused(line)


@pytest.mark.parametrize(("data", "said"), DATA)
def test_data(refused, data, said):
    assert said in refused(f"evaluate at.safetensors --dataset {data} --db b.duckdb")
    assert said in refused(f"train natural --dataset {data} --model convnet-2 --out new.safetensors")


@pytest.mark.parametrize(("pixel", "said"), [(np.nan, "nan"), (1.5, "1.5"), (-0.5, "-0.5")])
def test_pixels_of_a_users_loader(refused, monkeypatch, pixel, said):
    images = load("digits", "test").take(20, 0)
    pixels = images.pixels.astype(np.float32) / 255
    pixels[7, 0, 3, 3] = pixel
    monkeypatch.setattr(source, "load", lambda *_, **__: replace(images, pixels=pixels))
    source._images.cache_clear()
    told = refused("evaluate at.safetensors --dataset mine --attacks fgsm --db b.duckdb")
    assert f"sample {images.sample[7]} has pixels from" in told
    assert said in told
    assert "normalisation belongs inside the model" in told


def test_probabilities_are_a_warning(workspace, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(workspace)
    assert run(shlex.split(JUDGE.format("model.py:soft").replace("b.duckdb", str(tmp_path / "s.duckdb")))) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "probabilities" in line]
    assert warnings == [
        "model.py:soft: the model seems to return probabilities; "
        "attacks need the logits before the softmax to be trusted"
    ]


@pytest.mark.parametrize(("base", "said"), BASES)
@pytest.mark.parametrize(
    "line",
    [
        "evaluate at.safetensors --dataset digits --n 20 --attacks fgsm --db {}",
        "run s.toml --out out --db {}",
        "leaderboard --db {}",
        "check a --against b --db {}",
    ],
)
def test_databases(refused, base, said, line):
    assert said in refused(line.format(base))


@pytest.mark.parametrize("line", ["leaderboard", "compare a b", "check a --against b", "sql 'SELECT 1'", "export x"])
def test_no_database(refused, line):
    assert "there is no database at none.duckdb; 'evenbench demo' makes one" in refused(f"{line} --db none.duckdb")


def test_a_locked_database(workspace, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    for module in (reading, evaluation, study):
        opened = module.store_at
        monkeypatch.setattr(module, "store_at", lambda path, *_, opened=opened: replace(opened(path), patience=0.2))
    code = f"import duckdb; c = duckdb.connect({str(workspace / 'b.duckdb')!r}); print('held', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        for line in ("leaderboard --db b.duckdb", JUDGE.format("at.safetensors"), "run s.toml --db b.duckdb --out out"):
            assert run(shlex.split(line)) == 2
            waiting, refusal = capsys.readouterr().err.splitlines()
            assert f"b.duckdb is held by another process (PID {holder.pid}); waiting" in waiting
            assert "is still held by another process" in refusal
    finally:
        holder.communicate("\n")
    assert len(Store(workspace / "b.duckdb").rows(FACTS)) == 40
    assert not (workspace / "out").exists()


def test_a_read_only_database(refused, monkeypatch, workspace):
    path = workspace / "b.duckdb"
    connect = duckdb.connect

    def denied(name: str = ":memory:", *, read_only: bool = False, **given: Any) -> Any:
        if Path(name).name != "b.duckdb" or read_only:  # as when it may be read
            return connect(name, read_only=read_only, **given)
        raise duckdb.IOException(f'IO Error: Cannot open file "{name}": Permission denied')

    if os.geteuid() == 0:  # permissions do not bind root
        monkeypatch.setattr(duckdb, "connect", denied)
    path.chmod(0o444)
    try:
        assert "change its permissions, or name another file" in refused(JUDGE.format("model.py:soft"))
        assert run(["leaderboard", "--db", "b.duckdb", "--json"]) == 0
    finally:
        path.chmod(0o644)


def test_a_full_disk_while_outcomes_are_stored(workspace, tmp_path):
    base = tmp_path / "b.duckdb"
    base.write_bytes((workspace / "b.duckdb").read_bytes())

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # less than 719 outcomes need in the log

    quiet = {"PYTHONDONTWRITEBYTECODE": "1"}  # bytecode cut off at the limit would break every later import

    line = f"evaluate model.py:soft --dataset digits --attacks fgsm --checks none --batch-size 719 --db {base}"
    done = subprocess.run(
        [sys.executable, "-c", "from bench.cli import main; main()", *shlex.split(line)],
        cwd=workspace,
        env={**os.environ, **quiet, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limited,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "no space left" in done.stderr.splitlines()[-1]
    assert len(Store(base).rows(FACTS)) >= 40


def test_a_full_disk_while_a_checkpoint_is_written(refused, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    told = refused(TRAIN.format("natural", "digits", "convnet-2"))
    assert "no space left to write new.safetensors; free some and run the same command again" in told
