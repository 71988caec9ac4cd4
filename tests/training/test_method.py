from __future__ import annotations

import re
from fractions import Fraction

import pytest

from bench.errors import BadRecipe, UnknownName
from bench.training.method import METHODS, Method, Preset, compose, default_preset, lineage
from bench.training.recipe import Descend, Last, OneHot, Span, Uniform
from bench.training.schedule import Schedule
from methods.absld import BalancedTeacher
from methods.adr import ADR
from methods.averaging import EMA
from methods.awp import AWP
from methods.natural import Natural
from methods.pgd_at import PGDAT
from methods.rslad import RSLAD, Teacher
from methods.trades import TRADES


def digits(name, **settings):
    return compose(name, dataset="digits", settings={k.replace("__", "."): v for k, v in settings.items()})


def paper(name, dataset="cifar10"):
    return compose(name, dataset=dataset, preset="paper")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("natural", (Natural, OneHot, Uniform, Descend, Last)),
        ("pgd-at", (PGDAT, OneHot, Uniform, Descend, Last)),
        ("trades", (TRADES, OneHot, Uniform, Descend, Last)),
        ("rslad", (RSLAD, Teacher, Uniform, Descend, Last)),
        ("absld", (RSLAD, BalancedTeacher, Uniform, Descend, Last)),
        ("adr", (PGDAT, ADR, Uniform, Descend, EMA)),
        ("awp", (PGDAT, OneHot, Uniform, AWP, Last)),
        ("wa", (PGDAT, OneHot, Uniform, Descend, EMA)),
        ("trades+adr", (TRADES, ADR, Uniform, Descend, EMA)),
        ("trades+awp", (TRADES, OneHot, Uniform, AWP, Last)),
        ("adr+awp", (PGDAT, ADR, Uniform, AWP, EMA)),
        ("awp+adr", (PGDAT, ADR, Uniform, AWP, EMA)),
        ("trades+adr+awp", (TRADES, ADR, Uniform, AWP, EMA)),
        ("rslad+awp", (RSLAD, Teacher, Uniform, AWP, Last)),
        ("absld+awp+wa", (RSLAD, BalancedTeacher, Uniform, AWP, EMA)),
        ("absld+trades", (TRADES, BalancedTeacher, Uniform, Descend, Last)),
    ],
)
def test_a_name_is_a_line_of_slots(name, kinds):
    recipe = digits(name).recipe
    found = (recipe.objective, recipe.targets, recipe.budget, recipe.step, recipe.average)
    assert tuple(map(type, found)) == kinds


def test_averaged_weights_are_judged_with_wa_only():
    assert not digits("adr").recipe.average.judged
    assert digits("adr+wa").recipe.average == EMA(decay=0.98, judged=True)
    assert digits("trades+wa").recipe.average.judged
    assert digits("adr").recipe.average.decay == digits("adr+wa").recipe.average.decay
    assert paper("adr").recipe.average == EMA(decay=0.995)
    assert paper("adr+wa").recipe.average == EMA(decay=0.995, judged=True)


@pytest.mark.parametrize(
    ("name", "teachers"),
    [
        ("rslad", ("teacher",)),
        ("absld", ("teacher",)),
        ("absld+awp", ("teacher",)),
        ("trades+adr", ()),
        ("natural", ()),
    ],
)
def test_teachers_are_those_of_all_parts(name, teachers):
    assert digits(name).teachers == teachers


def test_parts_stand_on_the_first_only():
    assert list(lineage("absld")) == ["rslad", "absld"]
    assert list(lineage("trades+absld")) == ["trades", "absld"]
    assert list(lineage("awp")) == ["pgd-at", "awp"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("trades+pgd-at", "both 'trades' and 'pgd-at' fill the slot 'objective'; name only one"),
        ("absld+adr", "both 'absld' and 'adr' fill the slot 'targets'"),
        ("rslad+adr", "both 'rslad' and 'adr' fill the slot 'targets'"),
        ("trades+awp+trades", "names 'trades' twice"),
        ("trades+", "has an empty part; write it as parts joined by '.', such as trades.awp"),
        ("", "has an empty part"),
        ("+", "has an empty part"),
    ],
)
def test_parts_that_do_not_fit(name, complaint):
    with pytest.raises(BadRecipe, match=complaint):
        digits(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [("trade", "trades"), ("trades+apw", "awp"), ("pgdat", "pgd-at"), ("TRADES", ""), ("abslt", "absld")],
)
def test_unknown_parts(name, near):
    with pytest.raises(
        UnknownName, match=f"no method is called '.*did you mean '{near}'" if near else "no method is called"
    ):
        digits(name)


# presets


def test_the_data_set_chooses_the_preset():
    assert default_preset("digits") == "digits"
    assert default_preset("cifar10") == default_preset("/some/folder") == "short"
    assert digits("trades").schedule.eps == Fraction(3, 20)
    assert compose("trades", dataset="cifar10").preset == "short"
    assert compose("trades", dataset="something else").schedule == compose("trades", dataset="cifar10").schedule
    assert compose("trades", dataset="cifar10").schedule.eps == Fraction(8, 255)


@pytest.mark.parametrize(
    ("name", "epochs", "decay", "nesterov", "normalize", "selection", "eps"),
    [
        ("natural", 200, 5e-4, False, False, "last", Fraction(8, 255)),
        ("pgd-at", 200, 5e-4, False, True, "best-robust", Fraction(8, 255)),
        ("awp", 200, 5e-4, False, True, "best-robust", Fraction(8, 255)),
        ("trades", 76, 2e-4, False, False, "last", Fraction("0.031")),
        ("rslad", 300, 2e-4, False, False, "best-robust", Fraction(8, 255)),
        ("absld", 300, 2e-4, False, False, "best-robust-plus-worst", Fraction(8, 255)),
        ("adr", 200, 5e-4, True, True, "best-robust", Fraction(8, 255)),
        ("adr+wa", 200, 5e-4, True, True, "best-robust", Fraction(8, 255)),
        ("adr+awp", 200, 5e-4, False, True, "best-robust", Fraction(8, 255)),
    ],
)
def test_published_settings_on_cifar10(name, epochs, decay, nesterov, normalize, selection, eps):
    s = paper(name).schedule
    assert (s.epochs, s.weight_decay, s.nesterov, s.normalize, s.selection, s.eps) == (
        epochs,
        decay,
        nesterov,
        normalize,
        selection,
        eps,
    )
    assert (s.lr, s.batch_size, s.momentum, s.shape, s.factor) == (0.1, 128, 0.9, "piecewise", 0.1)


def test_published_slots_on_cifar10():
    assert paper("trades").recipe.objective.beta == 6
    assert float(paper("trades").schedule.eps) * paper("trades").recipe.budget.step == pytest.approx(0.007)
    assert paper("rslad").recipe.objective == RSLAD(alpha=5 / 6, scale=0.1)
    assert paper("absld").recipe.objective == RSLAD(scale=0.1)
    assert paper("absld").recipe.targets == BalancedTeacher(rate=0.1, low=0.5, high=5.0, as_released=False)
    assert paper("awp").recipe.step == AWP(gamma=0.01)
    assert paper("trades+awp").recipe.step == AWP(gamma=0.005, begin=10)


@pytest.mark.parametrize(
    ("name", "dataset", "temperature", "trust"),
    [
        ("adr", "cifar10", (2.5, 2.0), (0.70, 0.95)),
        ("adr+wa", "cifar10", (2.5, 2.0), (0.70, 0.95)),
        ("trades+adr", "cifar10", (2.5, 2.0), (0.70, 0.95)),
        ("adr+awp", "cifar10", (2.5, 1.5), (0.70, 0.85)),
        ("adr+wa+awp", "cifar10", (2.5, 1.5), (0.70, 0.85)),
        ("awp+adr", "cifar10", (2.5, 1.5), (0.70, 0.85)),
        ("trades+adr+awp", "cifar10", (2.5, 1.5), (0.70, 0.85)),
        ("adr", "cifar100", (1.5, 1.0), (0.70, 0.95)),
        ("adr+awp", "cifar100", (2.0, 1.0), (0.70, 0.85)),
        ("adr", "tiny-imagenet", (2.0, 1.5), (0.50, 0.90)),
        ("adr+awp", "tiny-imagenet", (2.0, 1.5), (0.30, 0.90)),
    ],
)
def test_adr_is_set_for_its_data_and_its_company(name, dataset, temperature, trust):
    assert paper(name, dataset).recipe.targets == ADR(Span(*temperature), Span(*trust))


@pytest.mark.parametrize(("dataset", "gamma"), [("cifar10", 0.005), ("cifar100", 0.005), ("tiny-imagenet", 0.001)])
def test_awp_with_adr_has_adr_s_gamma(dataset, gamma):
    assert paper("adr+awp", dataset).recipe.step == AWP(gamma=gamma)


def test_a_preset_that_nobody_has():
    with pytest.raises(BadRecipe, match=r"'trades' has no preset 'long' for 'cifar10'; it has .*cifar10/paper"):
        compose("trades", dataset="cifar10", preset="long")
    with pytest.raises(BadRecipe, match="no preset 'paper' for 'digits'"):
        compose("trades", dataset="digits", preset="paper")


def test_a_data_set_s_own_preset_and_the_closest_company_come_first():
    def numbered(epochs):
        return Preset(Schedule(epochs=epochs))

    method = Method(
        {"step": AWP()}, "methods.awp", presets={"*/p": numbered(1), "*/p+a": numbered(2), "d/p": numbered(3)}
    )
    assert method.preset("x", "p", []).schedule.epochs == 1
    assert method.preset("x", "p", ["b", "a"]).schedule.epochs == 2
    assert method.preset("d", "p", ["a"]).schedule.epochs == 3
    assert method.preset("d", "q", []) is None


# overrides


def test_a_variant_says_only_what_changed():
    assert digits("trades").variant == ""
    assert digits("trades", objective__beta="6").variant == ""
    plan = digits("trades", objective__beta="1", schedule__epochs=3, objective__inner__steps="10")
    assert plan.variant == "objective.beta=1,schedule.epochs=3"
    assert plan.recipe.objective.beta == 1
    assert plan.schedule.epochs == 3
    assert digits("adr", targets__trust="0:0.5").variant == "targets.trust=0:0.5"
    assert digits("trades", objective__inner__steps=7).recipe.objective.inner.steps == 7


def test_what_is_already_typed_or_text_is_the_same():
    assert digits("trades", schedule__eps="4/255") == digits("trades", schedule__eps=Fraction(4, 255))
    assert digits("absld", targets__as_released="true") == digits("absld", targets__as_released=True)


def test_settings_that_only_hold_together_are_taken_together():
    plan = compose("trades", dataset="cifar10", settings={"schedule.holdout": 0, "schedule.selection": "last"})
    assert (plan.schedule.holdout, plan.schedule.selection) == (0, "last")
    plan = digits("trades", schedule__momentum=0, schedule__nesterov=False)
    assert plan.variant == "schedule.momentum=0,schedule.nesterov=false"


@pytest.mark.parametrize(
    ("address", "value", "kind", "complaint"),
    [
        ("objectiv.beta", "1", BadRecipe, "'objectiv.beta' addresses no slot; use one of objective, targets"),
        ("beta", "1", BadRecipe, "'beta' addresses no slot"),
        ("objective", "1", UnknownName, "no field of TRADES is called ''"),
        ("objective.bta", "1", UnknownName, "no field of TRADES is called 'bta'; did you mean 'beta'"),
        ("schedule.epoch", "1", UnknownName, "did you mean 'epochs'"),
        ("schedule.epochs", "0", BadRecipe, "schedule.epochs is 0"),
        ("schedule.eps", "8/0", BadRecipe, "schedule.eps=8/0: cannot be read as a fraction"),
        ("schedule.selection", "best", BadRecipe, "choose one of last, best-robust"),
        ("objective.inner.mode", "test", BadRecipe, "objective.inner.mode=test: choose one of train, eval"),
    ],
)
def test_wrong_overrides(address, value, kind, complaint):
    with pytest.raises(kind, match=complaint):
        compose("trades", dataset="digits", settings={address: value})


@pytest.mark.parametrize(
    ("name", "address", "value", "complaint"),
    [
        ("trades", "objective.inner.steps", -1, "Inner.steps is -1; it must be at least 0"),
        ("trades", "objective.beta", -6, "TRADES.beta is -6.0; it must be at least 0"),
        ("rslad", "objective.alpha", 2, r"RSLAD.alpha is 2.0; it must lie in \[0, 1\]"),
        ("absld", "targets.rate", -0.1, "BalancedTeacher.rate is -0.1"),
        ("absld", "targets.low", 0, "BalancedTeacher.low is 0.0"),
        ("absld", "targets.low", 6, "BalancedTeacher.low is 6.0"),
        ("adr", "targets.temperature", "2:0", "ADR.temperature is .*at least"),
        ("adr", "targets.trust", "0.5:1.5", r"ADR.trust is .*lie in \[0, 1\]"),
        ("wa", "average.decay", 1.01, r"EMA.decay is 1.01; it must lie in \[0, 1\]"),
        ("awp", "step.gamma", -1, "AWP.gamma is -1.0"),
        ("awp", "step.begin", -1, "AWP.begin is -1"),
        ("pgd-at", "budget.step", -1, "Uniform.step is -1.0"),
    ],
)
def test_values_out_of_range(name, address, value, complaint):
    with pytest.raises(BadRecipe, match=complaint):
        compose(name, dataset="digits", settings={address: value})


@pytest.mark.parametrize(
    ("name", "dataset", "epochs", "eps"),
    [
        ("trades+awp", "cifar10", 200, Fraction(8, 255)),
        ("trades+adr", "cifar10", 200, Fraction(8, 255)),
        ("trades+adr", "cifar100", 200, Fraction(8, 255)),
        ("trades+adr", "tiny-imagenet", 80, Fraction(8, 255)),
        ("trades+wa", "cifar10", 76, Fraction("0.031")),
    ],
)
def test_trades_in_company_is_run_as_the_company_s_paper_ran_it(name, dataset, epochs, eps):
    plan = paper(name, dataset)
    assert (plan.schedule.epochs, plan.schedule.eps) == (epochs, eps)
    assert float(eps) * plan.recipe.budget.step == pytest.approx(0.007 if epochs == 76 else 2 / 255)


def test_every_method_has_a_page():
    for name in METHODS.names():
        assert METHODS.get(name).page().count("\n") > 5


def test_the_order_of_companions_does_not_choose_the_preset():
    for dataset in ("cifar10", "cifar100"):
        one, other = (compose(name, dataset=dataset, preset="paper") for name in ("trades+adr+awp", "trades+awp+adr"))
        assert one.schedule == other.schedule
        assert one.recipe == other.recipe
    assert not compose("trades+adr+awp", dataset="cifar10", preset="paper").schedule.nesterov
    assert compose("trades+adr", dataset="cifar10", preset="paper").schedule.nesterov
    adr, awp = (compose(name, dataset="cifar10", preset="paper") for name in ("adr+awp", "awp+adr"))
    assert (adr.schedule, adr.recipe) == (awp.schedule, awp.recipe)


@pytest.mark.parametrize("name", ["faal", "fair-ard", "fair-rslad", "cfa", "trades+cfa", "fawa"])
def test_a_setting_known_for_other_data_only_is_not_made_up_from_the_method_below(name):
    assert compose(name, dataset="cifar10", preset="paper")
    with pytest.raises(BadRecipe, match=r"has no preset 'paper' for 'cifar100'; it has .*cifar10/paper"):
        compose(name, dataset="cifar100", preset="paper")


def test_a_part_without_a_setting_of_its_own_takes_that_of_the_method_below():
    assert compose("wa", dataset="cifar100", preset="paper").schedule.epochs == 200


def test_papers_settings_of_combinations():
    fair = compose("fat+cfa", dataset="cifar10", preset="paper").schedule
    assert (fair.epochs, fair.eps, fair.selection) == (200, Fraction(8, 255), "best-robust-plus-worst")
    assert compose("trades+fawa", dataset="cifar10", preset="paper").schedule == fair
    for dataset in ("cifar10", "cifar100", "tiny-imagenet"):
        assert not compose("trades+adr+awp", dataset=dataset, preset="paper").schedule.nesterov
    trust = [
        compose(name, dataset="tiny-imagenet", preset="paper").recipe.targets.trust.begin
        for name in ("adr+awp", "trades+adr+awp")
    ]
    assert trust == [0.30, 0.50]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (Method({}, "m", on="own"), "'own' stands on 'own', which stands on it"),
        (Method({}, "m", on="other"), "stands on"),
        (Method({}, "m", presets={"*/digits": Preset(Schedule())}), "has no objective"),
        (Method({"aim": PGDAT()}, "m", on="pgd-at"), "fills 'aim', which is no slot (there are objective, targets"),
        (Method({"objective": None}, "m"), "fills 'objective' with None, which must be an instance of a frozen"),
        (Method(None, "m"), "has None as its 'slots', which must be a mapping"),
        (Method({}, "m", on=None), "has None as its 'on', which must be a str"),
        (Method({}, "m", on="pgd-at", teachers="teacher"), "as its 'teachers', which must be a tuple of names"),
        (Method({}, "m", on="pgd-at", presets={"*/short": 3}), "as its preset '*/short', which must be a Preset"),
    ],
)
def test_a_method_that_cannot_be_composed_is_named(method, said, monkeypatch):
    for name, there in (("own", method), ("other", Method({}, "m", on="own"))):
        monkeypatch.setitem(METHODS._found, name, ())
        monkeypatch.setitem(METHODS._loaded, name, there)
    with pytest.raises(BadRecipe, match=re.escape(said)) as refused:
        compose("own", dataset="digits")
    assert "'own'" in str(refused.value)


def test_the_page_of_a_module_that_fails():
    with pytest.raises(BadRecipe, match=r"module 'no\.such' cannot be imported: ModuleNotFoundError"):
        Method({}, "no.such").page()
