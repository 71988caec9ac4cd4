from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks.base import Attack, Attributed
from bench.attacks.pgd import FGSM, PGD
from bench.attacks.trial import CLEAN, Trial, fitted, plan
from bench.data.images import Images
from bench.data.load import load
from bench.errors import BadData, BadModel, BadOption, OutOfBudget
from bench.evaluation.evaluate import chunks, evaluate, joined
from bench.outcomes import COLUMNS, SURVIVED, WRONG_UNATTACKED, Outcomes

EPS = Fraction(8, 100)


@pytest.fixture(scope="module")
def net(digits_network) -> nn.Module:
    """In train mode, as a user might leave it."""
    return digits_network().train()


@pytest.fixture(scope="module")
def exact_net(digits_network, exact) -> nn.Module:
    """The same, of which an image has the same answer in every batch, to the last bit."""
    return exact(digits_network()).train()


@pytest.fixture(scope="module")
def images() -> Images:
    return load("digits").select(np.arange(10, 130))


def trial(attack: Attack, name: str = "mine", **options) -> Trial:
    return Trial(name, attack, "Linf", **{"eps": EPS, **options})


def whole(results) -> Outcomes:
    """The outcomes of all chunks of one trial, in the order of the samples."""
    parts = [outcomes for _, outcomes in results]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS]
    order = np.argsort(columns[0])
    return Outcomes(*(column[order] for column in columns))


def same(a: Outcomes, b: Outcomes) -> bool:
    columns = ("sample", "label", "predicted", "broken_by")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in columns)


def in_eval(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    modes = net.training
    net.eval()
    with torch.no_grad():
        logits = net(x)
    net.train(modes)
    return logits


def test_clean_outcomes_are_the_models_own_answers(net, images):
    outcomes = whole(evaluate(net, images, [CLEAN], batch_size=50))
    x, y = images.batch(slice(None))
    confidence, predicted = in_eval(net, x).softmax(1).max(1)
    assert np.array_equal(outcomes.sample, images.sample)
    assert np.array_equal(outcomes.label, y)
    assert np.array_equal(outcomes.predicted, predicted)
    np.testing.assert_allclose(outcomes.confidence, confidence, rtol=1e-5)
    assert np.array_equal(outcomes.broken_by, np.where(predicted == y, SURVIVED, WRONG_UNATTACKED))
    assert 0 < (predicted != y).sum() < 30


def test_outcomes_of_an_attack_worked_out_step_by_step(net, images):
    outcomes = whole(evaluate(net, images, [trial(FGSM())], batch_size=1000))
    x, y = images.batch(slice(None))
    right = in_eval(net, x).argmax(1) == y
    net.eval()
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(leaf), y, reduction="sum"), leaf)
    net.train()
    adv = (x + float(EPS) * grad.sign()).clamp(0, 1)
    attacked = in_eval(net, torch.where(right[:, None, None, None], adv, x))
    confidence, predicted = attacked.softmax(1).max(1)
    assert np.array_equal(outcomes.predicted, predicted)
    np.testing.assert_allclose(outcomes.confidence, confidence, rtol=1e-4)
    expected = torch.where(right, torch.where(predicted == y, 0, 2), 1)
    assert np.array_equal(outcomes.broken_by, expected)
    assert set(expected.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("attack", "forwards", "backwards"),
    [(FGSM(), 1, 1), (PGD(steps=7), 7, 7), (PGD(steps=3, restarts=4), 4 * (3 + 1), 12)],
)
def test_passes_are_counted_exactly(net, images, attack, forwards, backwards):
    outcomes = whole(evaluate(net, images, [trial(attack)], batch_size=33))
    # all once to see which are right; the attack and one judging pass on those, which ends early where it succeeds
    survived, unattacked = outcomes.broken_by == SURVIVED, outcomes.broken_by == WRONG_UNATTACKED
    assert set(outcomes.forwards[survived].tolist()) == {1 + forwards + 1}
    assert set(outcomes.backwards[survived].tolist()) == {backwards}
    assert set(outcomes.forwards[unattacked].tolist()) == {1}
    assert set(outcomes.backwards[unattacked].tolist()) == {0}
    assert outcomes.forwards.max() == 1 + forwards + 1
    assert outcomes.forwards[~unattacked].min() >= 3
    assert tuple(attack.passes(10)) == (forwards, backwards)
    clean = whole(evaluate(net, images, [CLEAN]))
    assert (clean.forwards.sum(), clean.backwards.sum()) == (len(images), 0)


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_and_subset_change_no_verdict(exact_net, images, size):
    some = images.select(np.arange(0, 40))
    for each in plan(["pgd-sat", "cw"], eps=EPS, batch_size=40)[1:]:
        together = whole(evaluate(exact_net, some, [each], batch_size=40))
        assert same(together, whole(evaluate(exact_net, some, [each], batch_size=size)))
        shuffled = some.select(np.random.default_rng(0).permutation(40))
        assert same(together, whole(evaluate(exact_net, shuffled, [each], batch_size=size)))
        half = whole(evaluate(exact_net, some.select(np.arange(20, 40)), [each], batch_size=40))
        assert np.array_equal(half.broken_by, together.broken_by[20:])


def test_a_killed_evaluation_goes_on_to_the_same_outcomes(net, images):
    each = trial(PGD(steps=5))
    full = list(evaluate(net, images, [each], batch_size=25))
    stored = [full[0], full[3]]
    known = np.isin(images.sample, np.concatenate([outcomes.sample for _, outcomes in stored]))
    lacking = [images.select(rows) for rows in chunks(known, 25)]
    rest = [chunk for some in lacking for chunk in evaluate(net, some, [each], batch_size=25)]
    assert [len(outcomes) for _, outcomes in rest] == [25, 25, 20]
    assert [outcomes.sample.tolist() for _, outcomes in rest] == [full[k][1].sample.tolist() for k in (1, 2, 4)]
    assert same(whole(full), whole(stored + rest))


def test_chunk_borders_do_not_depend_on_what_is_known():
    known = np.zeros(10, bool)
    assert [rows.tolist() for rows in chunks(known, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    known[[0, 4, 5, 6, 7]] = True
    assert [rows.tolist() for rows in chunks(known, 4)] == [[1, 2, 3], [8, 9]]


@dataclass(frozen=True)
class InBatches(Attack):
    """Says how large its batches are by what it does to them."""

    batch_dependent = True

    def __call__(self, model, x, y, *, eps, norm, streams):
        assert len(x) <= 8
        return x


def test_a_batch_dependent_attack_gets_the_batches_of_its_fingerprint(net, images):
    results = list(evaluate(net, images, [trial(InBatches(), batch_size=8)], batch_size=100))
    assert len(results) == 15


def test_model_and_caller_are_left_as_they_were_between_chunks_and_after_errors(net, images):
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def untouched() -> bool:
        flags = all(p.requires_grad and (p.grad is None or not p.grad.any()) for p in net.parameters())
        state = all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        return flags and state and all(module.training for module in net.modules())

    rng = torch.get_rng_state()
    for _ in evaluate(net, images, plan(["fgsm", "pgd-sat"], eps=EPS, batch_size=50), batch_size=50):
        assert untouched()
    with pytest.raises(OutOfBudget):
        list(evaluate(net, images, [trial(Planted("nan"))]))
    assert untouched()
    assert torch.equal(rng, torch.get_rng_state())


def test_it_works_under_no_grad(net, images):
    with torch.no_grad():
        outcomes = whole(evaluate(net, images, [trial(FGSM())]))
    assert same(outcomes, whole(evaluate(net, images, [trial(FGSM())])))


def test_bfloat16_searches_and_fp32_judges(net, images):
    seen: list[tuple[torch.dtype, int]] = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            answer = self.net(x)
            seen.append((answer.dtype, len(x)))
            return answer

    outcomes = whole(evaluate(Watched(), images, [trial(PGD(steps=4), precision="bf16")]))
    del seen[: seen.index((torch.float32, len(images)))]  # passes that make the network for searching are the model's
    searched = sum(n for dtype, n in seen if dtype == torch.bfloat16)
    assert searched >= 4 * int(outcomes.correct.sum())
    assert outcomes.forwards.sum() == sum(n for _, n in seen)  # those that confirm a break in fp32 among them
    assert seen[0] == (torch.float32, len(images))
    assert seen[-1][0] == torch.float32
    assert int((outcomes.broken_by == 2).sum()) > 0
    fp32 = whole(evaluate(net, images, [trial(PGD(steps=4))]))
    assert abs(int(outcomes.correct.sum()) - int(fp32.correct.sum())) <= 5


@dataclass(frozen=True)
class Claiming(Attack):
    """Moves all images to black and claims some for its second part, one for none, and one it did not break."""

    lineup = ("first", "second")

    def __call__(self, model, x, y, *, eps, norm, streams):
        by = torch.ones_like(y)
        by[0], by[1] = 0, -1
        adv = torch.zeros_like(x)
        adv[2] = x[2]
        return Attributed(adv, by)


def test_the_judge_decides_and_the_lineup_only_says_who():
    first_pixel = nn.Sequential(nn.Flatten(), _FirstPixel())
    pixels = np.full((5, 1, 2, 2), 255, np.uint8)
    images = Images("toy", "test", pixels, np.ones(5, np.uint16), np.arange(5, dtype=np.uint32), ("dark", "light"))
    outcomes = whole(evaluate(first_pixel, images, [trial(Claiming(), eps=Fraction(1))]))
    assert outcomes.broken_by.tolist() == [2, 3, 0, 3, 3]
    assert outcomes.predicted.tolist() == [0, 0, 1, 0, 0]


class _FirstPixel(nn.Module):
    """Light or dark by the first pixel; logits 3x and 0 apart, so confidences are sigmoids."""

    def forward(self, x):
        return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], 1)


def test_reference_autoattack_through_the_evaluator(net, images):
    some = images.select(np.arange(10))
    _, reference = plan(["autoattack-reference"], eps=Fraction(3, 10), batch_size=10)
    outcomes = whole(evaluate(net, some, [reference]))
    pgd = whole(evaluate(net, some, [trial(PGD(), eps=Fraction(3, 10))]))
    assert outcomes.correct.sum() <= pgd.correct.sum()
    assert outcomes.broken_by.max() <= 2 + 3


def test_progress_goes_up_within_chunks_and_ends_at_the_total(net, images):
    heard: list[tuple[str, float, int]] = []
    runs = [CLEAN, trial(PGD(steps=5))]
    results = evaluate(net, images, runs, batch_size=50, report=lambda t, n, total: heard.append((t.name, n, total)))
    assert len(list(results)) == 6
    assert {total for _, _, total in heard} == {120}
    mine = [n for name, n, _ in heard if name == "mine"]
    assert mine == sorted(mine)
    assert mine[-1] == 120
    assert len(set(mine)) >= 15
    assert [n for name, n, _ in heard if name == "clean"] == [50, 100, 120]


# The network that attacks see, and memory.


@dataclass(frozen=True)
class Seeing(Attack):
    """Leaves the images alone, and keeps what it was given as a model."""

    seen: ClassVar[list[nn.Module]] = []

    def __call__(self, model, x, y, *, eps, norm, streams):
        self.seen.append(model.model)
        return x


def test_attacks_see_one_faster_twin_and_the_clean_trial_needs_none(net, images, monkeypatch):
    made: list[nn.Module] = []
    monkeypatch.setattr(
        "bench.evaluation.evaluate.search_model", lambda model, probe: made.append(probe) or copy.deepcopy(model)
    )
    Seeing.seen.clear()
    list(evaluate(net, images, [CLEAN], batch_size=50))
    assert made == []
    list(evaluate(net, images, [CLEAN, trial(Seeing()), trial(Seeing(), seed=1)], batch_size=50))
    assert len(Seeing.seen) == 6
    assert len({id(model) for model in Seeing.seen}) == 1
    assert Seeing.seen[0] is not net
    assert torch.equal(made.pop(), images.batch(slice(0, 4))[0])
    assert made == []


def test_the_twin_is_folded_and_changes_no_verdict(exact_net, images, monkeypatch):
    trials = plan(["fgsm", "pgd-sat", "apgd-ce"], eps=EPS, batch_size=50)[1:]
    Seeing.seen.clear()
    list(evaluate(exact_net, images, [trial(Seeing())]))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in Seeing.seen[0].modules())
    folded = [whole(evaluate(exact_net, images, [each])) for each in trials]
    monkeypatch.setattr("bench.evaluation.evaluate.search_model", lambda model, probe: model)
    for each, found in zip(trials, folded, strict=True):
        assert same(found, whole(evaluate(exact_net, images, [each])))


def test_the_model_decides_whatever_the_twin_says(net, images, monkeypatch):
    wrong = Answering(lambda x: -logits(x) * 100)
    monkeypatch.setattr("bench.evaluation.evaluate.search_model", lambda model, probe: wrong)
    outcomes = whole(evaluate(net, images, [trial(FGSM(), eps=Fraction(1, 10**6))]))
    assert np.array_equal(outcomes.predicted, whole(evaluate(net, images, [CLEAN])).predicted)


class Hungry(nn.Module):
    """A network for which memory runs out above some images at a time."""

    def __init__(self, net: nn.Module, most: int) -> None:
        super().__init__()
        self.net, self.most, self.failed = net, most, []

    def __deepcopy__(self, memo):
        return self  # the searching, too, is done by this one

    def forward(self, x):
        if len(x) > self.most:
            self.failed.append(len(x))
            raise torch.OutOfMemoryError(f"{len(x)} images")
        return self.net(x)


def test_where_memory_runs_out_chunks_are_divided_and_stay_chunks(exact_net, images):
    each = trial(PGD(steps=5))
    model, heard, kept = Hungry(exact_net, 15), [], []
    parts = list(
        evaluate(
            model,
            images,
            [each],
            batch_size=50,
            report=lambda trial, n, total: heard.append(n),
            keep=lambda trial, sample, delta: kept.extend(sample),
        )
    )
    assert [len(outcomes) for _, outcomes in parts] == [50, 50, 20]
    assert model.failed == [50, 25]
    assert heard[-1] == 120
    assert heard == sorted(heard)
    wanted = list(evaluate(exact_net, images, [each], batch_size=50))
    assert same(whole(parts), whole(wanted))
    assert np.array_equal(kept, whole(wanted).sample[whole(wanted).broken_by != WRONG_UNATTACKED])
    assert np.array_equal(whole(parts).forwards, whole(wanted).forwards)
    assert all(outcomes.seconds > 0 for _, outcomes in parts)


def test_a_result_that_depends_on_the_batch_is_not_divided(net, images):
    with pytest.raises(BadOption, match=r"out of memory with 8 images .*'mine' depends on .* --batch-size"):
        list(evaluate(Hungry(net, 7), images, [trial(InBatches(), batch_size=8)], batch_size=100))


def test_memory_that_does_not_hold_one_image(net, images):
    with pytest.raises(BadOption, match="out of memory with a single image"):
        list(evaluate(Hungry(net, 0), images, [CLEAN]))


def test_a_usual_chunk_has_250_images(net):
    assert [len(outcomes) for _, outcomes in evaluate(net, load("digits"), [CLEAN])] == [250, 250, 219]


def test_outcomes_one_after_the_other(net, images):
    parts = [outcomes for _, outcomes in evaluate(net, images, [trial(FGSM())], batch_size=50)]
    together = joined(parts)
    assert together.seconds == sum(part.seconds for part in parts)
    for name in COLUMNS:
        assert np.array_equal(getattr(together, name), np.concatenate([getattr(part, name) for part in parts]))


# What can be wrong with a model.


class Answering(nn.Module):
    """Answers with a function of the images, keeping a path for gradients."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def logits(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)[:, 10:20] * 5


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda x: logits(x) * float("nan"), "returns NaN or infinite logits for 120 of 120 images"),
        (lambda x: logits(x)[:, :7], r"returns shape \(120, 7\) for 120 images; the data set has 10 classes"),
        (lambda x: logits(x).sum(), r"returns shape \(\) for 120 images"),
        (lambda x: (logits(x), None), "returns tuple; it must return logits"),
        (lambda x: x @ torch.rand(3, 3), r"fails on images of shape \(120, 1, 8, 8\) with RuntimeError"),
    ],
    ids=["nan", "classes", "scalar", "tuple", "raises"],
)
def test_models_that_cannot_be_judged(images, answer, complaint):
    with pytest.raises(BadModel, match=complaint):
        list(evaluate(Answering(answer), images, [CLEAN]))


def test_a_model_that_breaks_on_attacked_images_only(images):
    def answer(x):
        return logits(x) / (x.flatten(1)[:, :1] <= images.pixels[:, 0, 0, 0].max() / 255)

    light = images.select(np.flatnonzero(logits(images.batch(slice(None))[0]).argmax(1).numpy() == images.labels))
    with pytest.raises(BadModel, match="NaN or infinite"):
        list(evaluate(Answering(answer), light, [trial(Planted("white"), eps=Fraction(1))]))


@pytest.mark.parametrize("answer", [lambda x: logits(x).detach(), lambda x: logits(x).round().detach()])
def test_a_model_without_gradients(images, answer):
    with pytest.raises(BadModel, match="passes no gradient to its pixels, which 'mine' needs"):
        list(evaluate(Answering(answer), images, [trial(FGSM())]))


def test_probabilities_are_noticed_once_but_judged(net, images):
    lines: list[str] = []
    model = nn.Sequential(net, nn.Softmax(1))
    results = list(evaluate(model, images, [CLEAN, trial(FGSM())], batch_size=50, notice=lines.append))
    assert len(results) == 6
    assert len(lines) == 1
    assert "probabilities" in lines[0]
    list(evaluate(net, images, [CLEAN], notice=lines.append))
    assert len(lines) == 1


# What can be wrong with data and options.


def test_labels_outside_the_classes(net, images):
    wrong = replace(images, class_names=images.class_names[:5])
    with pytest.raises(BadData, match=r"of digits has label \d, but there are only 5 classes"):
        list(evaluate(net, wrong, [CLEAN]))


@pytest.mark.parametrize(("value", "range_"), [(np.nan, "nan"), (1.5, "1.5"), (-0.5, "-0.5")])
def test_pixels_that_are_none(net, images, value, range_):
    pixels = (images.pixels / 255).astype(np.float32)
    pixels[3, 0, 0, 0] = value
    with pytest.raises(BadData, match=rf"sample {images.sample[3]} has pixels from .*{range_}"):
        list(evaluate(net, replace(images, pixels=pixels), [CLEAN]))


def test_a_batch_size_of_nothing(net, images):
    with pytest.raises(BadOption, match="batch size 0"):
        list(evaluate(net, images, [CLEAN], batch_size=0))


# What can be wrong with an attack.


@dataclass(frozen=True)
class Planted(Attack):
    """Returns something that it must not."""

    fault: str

    def __call__(self, model, x, y, *, eps, norm, streams):
        adv = x.clone()
        match self.fault:
            case "far":
                adv[4] = (adv[4] - 1.01 * eps).abs()
            case "white":
                adv[:] = 1
            case "box":
                adv[4, 0, 0, 0] = -0.001
            case "nan":
                adv[4, 0, 0, 0] = torch.nan
            case "shape":
                adv = adv[1:]
            case "type":
                return adv.numpy()
        return adv


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("far", r"moved sample {} by 0\.080\d+ in Linf, but eps is 0\.08"),
        ("box", r"returned pixels from -0\.001 to .* for sample {}; images lie in"),
        ("nan", "returned a pixel that is no number for sample {}"),
        ("shape", r"returned \(\d+, 1, 8, 8\) for images of shape"),
        ("type", "returned ndarray for images of shape"),
    ],
)
def test_attacks_that_cheat_are_named(net, images, fault, complaint):
    right = whole(evaluate(net, images, [CLEAN])).correct
    sample = images.sample[np.flatnonzero(right)[4]]
    with pytest.raises(OutOfBudget, match=r"attack 'mine' " + complaint.format(sample)):
        list(evaluate(net, images, [trial(Planted(fault))]))


def test_rounding_is_no_cheating(net, images):
    for each in plan(["pgd-sat"], norm="L2", eps=Fraction(1, 3), batch_size=50)[1:]:
        outcomes = whole(evaluate(net, images, [each]))
        assert len(outcomes) == len(images)
        assert (outcomes.broken_by > 1).any()


def test_nothing_right_nothing_attacked(images):
    wrong = Answering(lambda x: -nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), 10) + 0 * logits(x))
    zeros = images.select(np.flatnonzero(images.labels == 0))
    outcomes = whole(evaluate(wrong, zeros, [trial(FGSM())]))
    assert (outcomes.broken_by == WRONG_UNATTACKED).all()
    assert outcomes.forwards.sum() == len(zeros)


class Blinding(nn.Module):
    """Answers as another network does, but sends NaN back to the pixels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zero = (x - x.detach()).sum((1, 2, 3)).abs()
        return self.net(x) + zero.sqrt()[:, None]


def test_gradients_that_are_not_finite_are_reported(net, images):
    trials, size, said = [trial(PGD(steps=3))], len(images), []
    ((_, outcomes),) = evaluate(Blinding(net), images, trials, batch_size=size, notice=said.append)
    assert len(said) == 1
    assert f"{outcomes.backwards.sum()} of {outcomes.backwards.sum()} gradients were NaN or infinite" in said[0]
    said.clear()
    list(evaluate(net, images, trials, batch_size=size, notice=said.append))
    assert said == []


def test_too_few_classes_are_refused_before_any_work():
    trials = plan(["pgd-sat", "autoattack-reference"], eps=Fraction(8, 255), batch_size=10)
    fitted(trials, 4)
    with pytest.raises(BadOption, match="'autoattack-reference' needs at least 4 classes, the data have 3"):
        fitted(trials, 3)
