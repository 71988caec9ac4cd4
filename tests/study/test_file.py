"""Study files: what a good one means, and that each kind of bad one is refused in one line before any work."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from textwrap import dedent

import pytest

from bench.errors import BadBudget, BadOption, BadRecipe, BadStudy, BenchError, UnknownName
from bench.models.architecture import Architecture, build
from bench.study.file import Study, StudyEntry, load_study
from bench.training.checkpoint import Checkpoint, write

ROOT = Path(__file__).parents[2]
HEAD = """
name = "s"
dataset = "digits"
model = "convnet-2"
eps = "0.15"
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def loaded(text: str, head: str = HEAD) -> Study:
        path = tmp_path / "s.toml"
        path.write_text(dedent(head) + dedent(text))
        return load_study(path)

    return loaded


def test_an_empty_entry_is_the_method_of_its_name_in_the_setting_of_the_study(load):
    study = load("epochs = 3\nseeds = [4, 5]\n[entries.pgd-at]")
    (entry,) = study.order()
    plan = study.plan_of(entry, "digits")
    assert (plan.method, plan.preset, study.model_of(entry), study.seeds_of(entry)) == (
        "pgd-at",
        "digits",
        "convnet-2",
        [4, 5],
    )
    assert (plan.schedule.epochs, plan.schedule.eps) == (3, Fraction(3, 20))


def test_an_entry_overrides_the_study(load):
    study = load(
        """
        epochs = 3
        set = { "schedule.lr" = 0.1, "schedule.momentum" = 0.5 }
        [entries.mine]
        method = "trades+wa"
        model = "convnet-3"
        preset = "short"
        epochs = 2
        seeds = [9]
        set = { "schedule.lr" = 0.3, "schedule.eps" = "4/255" }
        """
    )
    (entry,) = study.order()
    plan = study.plan_of(entry, "digits")
    assert (plan.method, plan.preset, study.model_of(entry), study.seeds_of(entry)) == (
        "trades+wa",
        "short",
        "convnet-3",
        [9],
    )
    schedule = plan.schedule
    assert (schedule.epochs, schedule.lr, schedule.momentum, schedule.eps) == (2, 0.3, 0.5, Fraction(4, 255))


def test_without_eps_the_evaluation_is_at_8_255_and_the_training_at_its_preset(load):
    study = load('[entries.natural]\npreset = "short"', HEAD.replace('eps = "0.15"', ""))
    assert {trial.eps for trial in study.trials()} == {Fraction(0), Fraction(8, 255)}
    assert study.plan_of(study.entries["natural"], "digits").schedule.eps == Fraction(8, 255)


def test_attacks_by_name_stand_instead_of_a_suite_and_clean_comes_first(load):
    assert [t.name for t in load('attacks = ["cw", "fgsm"]\n[entries.natural]').trials()] == ["clean", "cw", "fgsm"]
    assert [t.name for t in load('suite = "smoke"\n[entries.natural]').trials()] == ["clean", "fgsm", "pgd-sat"]


def test_teachers_come_before_their_students_however_they_are_listed(load):
    study = load(
        """
        [entries.absld]
        teacher = { teacher = "rslad" }
        [entries.rslad]
        teacher = "wide"
        [entries.natural]
        [entries.wide]
        method = "pgd-at"
        model = "convnet-4"
        """
    )
    names = [entry.name for entry in study.order()]
    assert sorted(names) == ["absld", "natural", "rslad", "wide"]
    assert names.index("wide") < names.index("rslad") < names.index("absld")


def test_a_teacher_may_be_a_file(load, tmp_path):
    architecture = Architecture("convnet-2", 10, 1)
    weights = build(architecture).state_dict()
    write(Checkpoint(architecture, {"model": weights}, "model", {"seed": 0}), tmp_path / "t.safetensors")
    study = load('[entries.rslad]\nteacher = "t.safetensors"')
    assert study.entries["rslad"].teachers(("teacher",)) == {"teacher": "t.safetensors"}


def test_data_of_a_path_take_the_presets_of_their_name(load):
    text = '[entries.pgd-at]\npreset = "paper"'
    for dataset in ("cifar10", "some/where/cifar10", "hub:somebody/cifar10"):
        study = load(text, HEAD.replace("digits", dataset))
        assert study.plan_of(study.entries["pgd-at"], "cifar10").schedule.epochs == 200


@pytest.mark.parametrize("path", [*(ROOT / "results" / "studies").glob("*.toml"), ROOT / "bench/study/demo.toml"])
def test_our_own_studies_are_valid(path):
    assert load_study(path).order()


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[entries.natural]\nepoch = 3", BadStudy, "no key is called 'epoch'; did you mean 'epochs'?"),
        ("atacks = ['cw']\n[entries.natural]", BadStudy, "no key is called 'atacks'; did you mean 'attacks'?"),
        ("n = '20'\n[entries.natural]", BadStudy, "n = '20' is of the wrong kind; it must be int"),
        ("n = true\n[entries.natural]", BadStudy, "n = True is of the wrong kind; it must be int"),
        ("seeds = [0, 'a']\n[entries.natural]", BadStudy, "seeds = [0, 'a'] is of the wrong kind"),
        ("[entries.natural]\nteacher = 3", BadStudy, "teacher = 3 is of the wrong kind; it must be str or dict"),
        ("", BadStudy, "has no entries; add at least one table [entries.NAME]"),
        ("entries = 3", BadStudy, "has no entries"),
        ("[entries]\nnatural = 3", BadStudy, "entry 'natural' is no table; write [entries.natural]"),
        ("n = -1\n[entries.natural]", BadStudy, "n and train_n at least 0"),
        ("batch_size = 0\n[entries.natural]", BadStudy, "batch_size must be at least 1"),
        ("seeds = []\n[entries.natural]", BadStudy, "seeds is empty"),
        ("seeds = [-1]\n[entries.natural]", BadStudy, "seed -1 is out of range"),
        ("[entries.natural]\nseeds = [9223372036854775808]", BadStudy, "seed 9223372036854775808 is out of range"),
        ("[entries.trade]", UnknownName, "entry 'trade': no method is called 'trade'; did you mean 'trades'?"),
        (
            "[entries.natural]\nmodel = 'convnet'",
            UnknownName,
            "no model is called 'convnet'; did you mean 'convnet-6'?",
        ),
        ("[entries.natural]\npreset = 'papr'", BadRecipe, "entry 'natural': 'natural' has no preset 'papr'"),
        ("[entries.natural]\nepochs = -1", BadRecipe, "schedule.epochs is -1; at least 1 is needed"),
        ("[entries.natural]\nset = { 'schedule.lrr' = 1 }", UnknownName, "no field of Schedule is called 'lrr'"),
        ("[entries.natural]\nset = { 'nowhere.lr' = 1 }", BadRecipe, "addresses no slot"),
        ("attacks = ['pgd']\n[entries.natural]", UnknownName, "no attack is called 'pgd'"),
        (
            "suite = 'standart'\n[entries.natural]",
            UnknownName,
            "no suite is called 'standart'; did you mean 'standard'",
        ),
        ("norm = 'L7'\n[entries.natural]", BadBudget, "L7"),
        ("precision = 'fp8'\n[entries.natural]", BadOption, "fp8"),
        ("[entries.rslad]", BadStudy, "'rslad' needs a teacher; set teacher = { teacher = \"ENTRY\" }"),
        ("[entries.rslad]\nteacher = 'nobody'", BadStudy, "no entry is called 'nobody'"),
        ("[entries.natural]\nteacher = 'x'\n[entries.x]\nmethod = 'pgd-at'", BadStudy, "has no use for a teacher"),
        ("[entries.rslad]\nteacher = 'rslad'", BadStudy, "in a circle: rslad → rslad; break it"),
        (
            "[entries.rslad]\nteacher = 'absld'\n[entries.absld]\nteacher = 'rslad'",
            BadStudy,
            "in a circle: rslad → absld → rslad",
        ),
        (
            "[entries.rslad]\nteacher = 't'\nseeds = [0, 7]\n[entries.t]\nmethod = 'pgd-at'\nseeds = [0, 1]",
            BadStudy,
            "its teacher 't' is not trained with seed 7",
        ),
        ("[entries.pgd-at]\n[entries.again]\nmethod = 'pgd-at'", BadStudy, "the same training as entry 'pgd-at'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(load, text, kind, said):
    with pytest.raises(kind) as caught:
        load(text)
    line = str(caught.value)
    assert said in line
    assert "\n" not in line
    if kind is BadStudy:
        assert "s.toml" in line or "study 's'" in line


@pytest.mark.parametrize("eps", ["0", "-0.1", "8/0", "eight", ""])
def test_eps_is_a_positive_number(load, eps):
    head = HEAD.replace("0.15", eps)
    if not eps:
        assert load("[entries.natural]", head).eps == ""
        return
    with pytest.raises(BadBudget, match="8/255"):
        load("[entries.natural]", head)


@pytest.mark.parametrize("missing", ["name", "dataset", "model"])
def test_what_every_study_needs(load, missing):
    head = "\n".join(line for line in HEAD.splitlines() if not line.startswith(missing)) + "\n"
    with pytest.raises(BadStudy, match=missing):
        load("[entries.natural]", head)


def test_files_that_are_no_study(tmp_path):
    for name, content in (("a.toml", b"name = "), ("b.toml", b"\xff\xfe"), ("c.toml", None), ("d.toml", "folder")):
        path = tmp_path / name
        if content == "folder":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        with pytest.raises(BenchError, match=name) as caught:
            load_study(path)
        assert "\n" not in str(caught.value)


def test_what_reading_would_not_end_of_is_no_study(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path("/dev/zero")):
        with pytest.raises(BadStudy, match="is no file; name a TOML file"):
            load_study(path)


@pytest.mark.parametrize("deep", ["x = " + "[" * 5000 + "]" * 5000, "[" + "a." * 50_000 + "b]"])
def test_a_study_that_is_nested_too_deeply(tmp_path, deep):
    (tmp_path / "deep.toml").write_text(deep)
    with pytest.raises(BadStudy, match=r"deep\.toml") as refused:
        load_study(tmp_path / "deep.toml")
    assert len(str(refused.value)) < 1000


def test_a_chain_of_teachers_may_be_long():
    entries = {f"e{k}": StudyEntry(f"e{k}", method="rslad", teacher=f"e{k + 1}") for k in range(3000)}
    study = Study("long", "digits", {**entries, "e3000": StudyEntry("e3000", method="pgd-at")})
    assert [entry.name for entry in study.order()] == [f"e{k}" for k in range(3000, -1, -1)]
    entries["e3000"] = StudyEntry("e3000", method="rslad", teacher="e0")
    with pytest.raises(BadStudy, match="in a circle: e0 → e1 → ") as refused:
        Study("long", "digits", entries).order()
    assert len(str(refused.value)) < 400


def test_a_nul_character_is_no_part_of_a_name(load):
    with pytest.raises(BadStudy, match=r"dataset = .* holds a NUL character, which no name can; leave it out"):
        load("[entries.natural]", HEAD.replace('"digits"', '"a\\u0000b"'))
