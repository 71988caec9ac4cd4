from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest

from bench.attacks import suite
from bench.attacks.base import Attack
from bench.attacks.pgd import PGD
from bench.attacks.reference import LINEUP
from bench.attacks.suite import ATTACKS, SUITES
from bench.attacks.trial import CLEAN, Order, Trial, checked, fitted, plan
from bench.errors import BadBudget, BadOption, UnknownName
from bench.fingerprint import canonical, fingerprint

EPS = Fraction(8, 255)


def trials(wanted="standard", **options) -> dict[str, Trial]:
    return {trial.name: trial for trial in plan(wanted, **{"eps": EPS, "batch_size": 100, **options})}


def test_suites_hold_registered_attacks_and_grow():
    for names in SUITES.values():
        assert {Order.parse(name).name for name in names} <= set(ATTACKS.names())
    assert set(SUITES["smoke"]) < set(SUITES["standard"]) < set(SUITES["full"])
    assert SUITES["standard"] == ("fgsm", "pgd-sat", "pgd-trades", "cw", "autoattack")


def test_a_plan_begins_with_clean_and_keeps_the_order():
    assert [trial.name for trial in plan(["cw", "fgsm"], eps=EPS, batch_size=1)] == ["clean", "cw", "fgsm"]
    assert list(trials("smoke")) == ["clean", "fgsm", "pgd-sat"]
    assert [trial.name for trial in plan(["clean", "cw", "cw"], eps=EPS, batch_size=1)] == ["clean", "cw"]
    assert [trial.name for trial in plan(["clean"], eps=EPS, batch_size=1)] == ["clean"]


def test_the_fingerprint_holds_what_changes_the_result():
    base = trials()["pgd-sat"]
    assert base.spec == {
        "attack": {
            "is": "bench:PGD",
            "version": 2,
            "fields": {"steps": 20, "stride": 0.25, "loss": "cross_entropy", "start": "uniform", "restarts": 1},
        },
        "norm": "Linf",
        "eps": "8/255",
        "seed": 0,
        "precision": "fp32",
    }
    assert base.attack_id == fingerprint(base.spec)
    others = [
        trials(norm="L2"),
        trials(eps=Fraction("0.031")),
        trials(seed=1),
        trials(precision="bf16"),
    ]
    ids = (
        {base.attack_id}
        | {(other.get("pgd-sat") or other["pgd-sat-bf16"]).attack_id for other in others}
        | {t.attack_id for t in trials().values()}
    )
    assert len(ids) == len(others) + 6
    assert len({replace(base, attack=PGD(steps=steps)).attack_id for steps in (20, 21)}) == 2


def test_the_name_and_equal_radii_change_nothing():
    base = trials()["pgd-sat"]
    assert replace(base, name="other").attack_id == base.attack_id
    assert trials(eps=Fraction(16, 510))["pgd-sat"].attack_id == base.attack_id


def test_only_the_reference_autoattack_depends_on_the_batch_size():
    small, large = (trials(ATTACKS.names(), batch_size=size) for size in (10, 100))
    unlike = [name for name in small if small[name].attack_id != large[name].attack_id]
    assert unlike == ["autoattack-reference"]
    assert small["autoattack-reference"].batch_size == 10
    assert small["cw"].batch_size is None
    assert "pyautoattack" in small["autoattack-reference"].spec["attack"]["uses"]


def test_an_attack_may_bring_its_own_budget():
    own, rest = plan(["pgd-sat@L2:1/2", "cw"], eps=EPS, batch_size=10)[1:]
    assert (own.name, own.norm, own.eps) == ("pgd-sat", "L2", Fraction(1, 2))
    assert (rest.name, rest.norm, rest.eps) == ("cw", "Linf", EPS)
    assert own.attack_id == plan(["pgd-sat"], norm="L2", eps=Fraction(1, 2), batch_size=10)[1].attack_id
    twice = plan(["cw", "cw@Linf:8/255"], eps=EPS, batch_size=10)
    assert len(twice) == 2  # one trial beside the clean one


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cw@L2", "names no budget after the @; write attack@norm:eps"),
        ("cw@:0.5", "names no budget after the @"),
        ("cw@L2:much", "eps 'much' is no number"),
        ("cw@L7:0.5", "norm 'L7' is not supported"),
    ],
)
def test_a_budget_that_is_none_is_refused(text, complaint):
    with pytest.raises(BadBudget, match=complaint):
        plan([text], eps=EPS, batch_size=10)


def test_too_few_classes_change_the_attack_and_its_fingerprint():
    before = plan(["autoattack", "fgsm"], eps=EPS, batch_size=10)
    ten, three = (fitted(before, classes) for classes in (10, 3))
    assert ten == before
    assert [a.attack_id == b.attack_id for a, b in zip(before, three, strict=True)] == [True, False, True]
    parts = three[1].spec["attack"]["fields"]
    assert (parts["apgd_t"]["fields"]["loss"], parts["apgd_t"]["fields"]["targets"]) == ("margin", 2)


def test_clean_is_always_the_same_trial():
    assert trials(seed=3, precision="bf16", norm="L2")["clean"] is CLEAN
    assert (CLEAN.norm, CLEAN.eps, CLEAN.lineup) == ("none", 0, ())
    assert CLEAN.attack_id == fingerprint({"attack": None})


def test_a_new_version_of_the_code_is_another_attack():
    @dataclass(frozen=True)
    class Mine(Attack):
        version = 2

    @dataclass(frozen=True)
    class Yours(Attack):
        pass

    Yours.__qualname__ = Mine.__qualname__
    specs = [Trial("x", kind(), "Linf", EPS).spec["attack"] for kind in (Mine, Yours)]
    assert specs[0] != specs[1]
    assert [spec["version"] for spec in specs] == [2, 1]


def test_lineups_are_what_broken_by_counts():
    assert trials()["autoattack"].lineup == LINEUP
    assert trials()["fgsm"].lineup == ("fgsm",)


def test_a_trial_can_be_sent_to_a_worker_and_its_spec_stored():
    for trial in plan("full", eps=EPS, batch_size=100):
        again = pickle.loads(pickle.dumps(trial))
        assert (again, again.attack_id) == (trial, trial.attack_id)
        assert fingerprint(json.loads(canonical(trial.spec))) == trial.attack_id


def test_forecasts_in_passes():
    assert {trial.name: sum(trial.attack.passes(10)) for trial in trials("standard").values() if trial.attack} == {
        "fgsm": 2,
        "pgd-sat": 40,
        "pgd-trades": 40,
        "cw": 60,
        "autoattack": 101 + 910 + 910 + 5001 + 100 + 900 + 900,
    }
    reference = trials(["autoattack-reference", "pgd-100"])
    assert sum(reference["autoattack-reference"].attack.passes(10)) == 7857 + 1910
    assert sum(reference["pgd-100"].attack.passes(10)) == 5 * 201


def test_unknown_names_are_told_with_the_nearest_one():
    with pytest.raises(
        UnknownName, match=r"no attack is called 'pgd-stat'; did you mean 'pgd-sat'. 'evenbench list att"
    ):
        plan(["pgd-stat"], eps=EPS, batch_size=1)
    with pytest.raises(UnknownName, match="no suite is called 'standart'; did you mean 'standard'"):
        plan("standart", eps=EPS, batch_size=1)


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"eps": Fraction(0)}, BadBudget, "eps is 0"),
        ({"eps": Fraction(-1, 255)}, BadBudget, "eps is -1/255"),
        ({"norm": "L7"}, BadBudget, "norm 'L7' is not supported"),
        ({"precision": "fp8"}, BadOption, "precision 'fp8' is not supported; choose fp32 or bf16"),
        ({"batch_size": 0}, BadOption, "batch size 0 is too small"),
    ],
)
def test_budgets_and_options_that_are_none(options, error, complaint):
    with pytest.raises(error, match=complaint):
        trials(**options)


def test_a_list_without_attacks_is_refused():
    with pytest.raises(BadOption, match="no attack was named"):
        plan([], eps=EPS, batch_size=1)


@pytest.mark.parametrize("thing", [PGD, len, PGD(stride=float("inf"))], ids=["class", "function", "infinite"])
def test_what_cannot_be_fingerprinted_is_refused(thing):
    with pytest.raises(BadOption, match="attack 'mine' cannot be fingerprinted"):
        checked("mine", thing)


def test_listing_names_imports_no_torch():
    code = f"import sys, {suite.__name__} as s; s.ATTACKS.names(); print('torch' in sys.modules, sorted(s.SUITES))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False ['autoattack', 'full', 'quick', 'screen', 'smoke', 'standard']"
