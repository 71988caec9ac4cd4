from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.attacks.trial import CLEAN, Trial, plan
from bench.data.images import Images
from bench.data.load import load
from bench.errors import BadData, OutOfBudget
from bench.evaluation.adversarials import Keeper
from bench.evaluation.evaluate import evaluate
from bench.evaluation.evidence import Evidence, Gathered, evidence_in
from bench.norms import LINF
from bench.outcomes import COLUMNS, Outcomes
from bench.randomness import Streams

EPS = Fraction(3, 20)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """The nearest class mean, as a linear network."""
    x, y = load("digits", "train").batch(slice(None))
    means = torch.stack([x[y == k].flatten(1).mean(0) for k in range(10)])
    linear = nn.Linear(64, 10)
    with torch.no_grad():
        linear.weight.copy_(means)
        linear.bias.copy_(-means.square().sum(1) / 2)
    return nn.Sequential(nn.Flatten(), linear).eval()


@pytest.fixture(scope="module")
def images() -> Images:
    return load("digits").take(60, 0)


@pytest.fixture(scope="module")
def adv(images) -> torch.Tensor:
    """Each image moved towards the next one, within the budget."""
    x, _ = images.batch(slice(None))
    return (x + (x.roll(1, 0) - x).clamp(-0.15, 0.15)).clamp(0, 1)


def whole(results) -> Outcomes:
    parts = [outcomes for _, outcomes in results]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS]
    return Outcomes(*(column[np.argsort(columns[0])] for column in columns))


def judged(net, images, evidence: Evidence, eps: Fraction = EPS) -> Outcomes:
    return whole(evaluate(net, images, [Trial("evidence:file", evidence, "Linf", eps)], batch_size=25))


def predicted(net, images, adv) -> np.ndarray:
    """What must come out: images that are right are judged by their evidence, the others by themselves."""
    x, y = images.batch(slice(None))
    with torch.no_grad():
        right = net(x).argmax(1) == y
        return torch.where(right, net(adv).argmax(1), net(x).argmax(1)).numpy()


def written(path, arrays):
    if path.suffix == ".safetensors":
        save_file(arrays, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: array.numpy() for name, array in arrays.items()})
    elif path.suffix == ".npy":
        np.save(path, arrays["images"].numpy())
    else:
        torch.save(arrays, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".npy", ".pt"])
def test_images_of_any_kind_of_file_are_judged_as_they_are(tmp_path, net, images, adv, suffix):
    evidence = evidence_in(written(tmp_path / f"file{suffix}", {"images": adv}), images)
    assert evidence.covers(images) == 60
    outcomes = judged(net, images, evidence)
    assert np.array_equal(outcomes.predicted, predicted(net, images, adv))
    assert 0 < outcomes.correct.mean() < whole(evaluate(net, images, [CLEAN])).correct.mean()


def test_images_of_8_bits_and_doubles(tmp_path, net, images, adv):
    eight = (adv * 255).round().to(torch.uint8)
    outcomes = judged(net, images, evidence_in(written(tmp_path / "a.npy", {"images": eight}), images), EPS + EPS / 50)
    assert np.array_equal(outcomes.predicted, predicted(net, images, eight / 255))
    double = evidence_in(written(tmp_path / "b.npy", {"images": adv.double()}), images)
    assert np.array_equal(judged(net, images, double).predicted, predicted(net, images, adv))


def test_samples_are_found_by_their_row_and_the_others_stay_clean(tmp_path, net, images, adv):
    x, _ = images.batch(slice(None))
    some = torch.tensor([50, 3, 20, 41])
    held = {"sample": torch.from_numpy(images.sample.astype(np.int32))[some], "images": adv[some]}
    evidence = evidence_in(written(tmp_path / "some.npz", held), images)
    assert evidence.covers(images) == 4
    mixed = x.clone()
    mixed[some] = adv[some]
    assert np.array_equal(judged(net, images, evidence).predicted, predicted(net, images, mixed))
    everything = load("digits")
    assert evidence_in(tmp_path / "some.npz", everything).covers(everything) == 4


def test_what_was_kept_is_judged_alike(tmp_path, net, images):
    keeper = Keeper.of(tmp_path, images, "0123456789abcdef")
    _, trial = plan(["pgd-sat"], eps=EPS, batch_size=25)
    before = whole(evaluate(net, images, [trial], batch_size=25, keep=keeper))
    assert len(list(keeper.place(trial).iterdir())) == 3
    after = judged(net, images, evidence_in(keeper.place(trial), images))
    assert np.array_equal(after.predicted, before.predicted)
    assert np.array_equal(after.correct, before.correct)
    np.testing.assert_allclose(after.confidence, before.confidence, atol=1e-5)
    assert after.forwards.sum() == 60 + before.correct.sum() + (~before.correct & (before.broken_by > 1)).sum()
    one = sorted(keeper.place(trial).iterdir())[0]
    assert 0 < evidence_in(one, images).covers(images) <= 25


def test_of_chunks_that_overlap_the_first_counts(tmp_path, images):
    keeper = Keeper.of(tmp_path, images, "c")
    _, trial = plan(["pgd-sat"], eps=EPS, batch_size=25)
    for sample, value in ((images.sample[:4], 0.0), (images.sample[2:6], 0.1)):
        keeper(trial, sample, torch.full((4, 1, 8, 8), value))
    found = evidence_in(keeper.place(trial), images).found
    assert np.array_equal(found.sample, images.sample[:6])
    assert found.images[:, 0, 0, 0].tolist() == pytest.approx([0, 0, 0, 0, 0.1, 0.1])


def test_the_budget_is_verified_and_the_file_and_sample_named(tmp_path, net, images, adv):
    evidence = evidence_in(written(tmp_path / "file.npy", {"images": adv}), images)
    with pytest.raises(OutOfBudget, match=r"attack 'evidence:file' moved sample \d+ by 0\.15.* eps is 0\.14"):
        judged(net, images, evidence, Fraction(14, 100))
    bright = evidence_in(written(tmp_path / "bright.npy", {"images": adv * 255}), images)
    with pytest.raises(OutOfBudget, match="images lie in"):
        judged(net, images, bright)


def test_rounding_outside_the_ball_is_no_offence(net, images):
    x, _ = images.batch(slice(None))
    evidence = Evidence.of(Gathered(images.sample.astype(np.int64), x + 0.1500008, False))
    streams = Streams(0, torch.from_numpy(images.sample.astype(np.int64)))
    gray = x.clamp(0, 0.8)
    answer = Evidence.of(Gathered(images.sample.astype(np.int64), gray + 0.1500008, False))(
        net, gray, torch.zeros(60, dtype=torch.int64), eps=0.15, norm=LINF, streams=streams
    )
    assert float((answer.adv.double() - gray.double()).abs().max()) <= 0.15 * (1 + 1e-5) + 1e-7
    assert evidence.sha256 != Evidence.of(Gathered(images.sample.astype(np.int64), x, False)).sha256


def test_the_fingerprint_is_that_of_the_images_and_their_samples(adv):
    sample, order = np.arange(60), np.random.default_rng(0).permutation(60)
    evidence = Evidence.of(Gathered(sample, adv, False))
    trial = Trial("evidence:a", evidence, "Linf", EPS)
    same = [
        Evidence.of(Gathered(order, adv[torch.from_numpy(order)], False)),
        pickle.loads(pickle.dumps(evidence)),
    ]
    assert {Trial("evidence:b", one, "Linf", EPS).attack_id for one in same} == {trial.attack_id}
    assert torch.equal(same[0].found.images, adv)
    others = [
        Gathered(sample + 1, adv, False),
        Gathered(sample, adv, True),
        Gathered(sample, adv.flip(0), False),
        Gathered(sample[:5], adv[:5], False),
    ]
    assert len({Evidence.of(one).sha256 for one in others} | {evidence.sha256}) == 5
    assert trial.spec["attack"]["fields"] == {"sha256": evidence.sha256}


def arrays_of(images, adv, **others):
    return {"images": adv, "sample": torch.from_numpy(images.sample.astype(np.int64)), **others}


BAD = {
    "lacking": ({"images": 5}, "holds 5 images, digits/test is evaluated on 60; add an array 'sample'"),
    "shape": ({"images": (60, 3, 8, 8)}, r"holds images of shape \(3, 8, 8\), digits has \(1, 8, 8\)"),
    "flat": ({"images": (60, 64)}, r"holds images \(60, 64\); wanted one array of images"),
    "whole": ({"images": torch.zeros(60, 1, 8, 8, dtype=torch.int64)}, r"images of torch.int64; wanted floats"),
    "two": ({"a": (60, 1, 8, 8), "b": (60, 1, 8, 8)}, r"or one of them called 'images'"),
    "twice": ({"images": (2, 1, 8, 8), "sample": torch.tensor([7, 7])}, "holds sample 7 more than once"),
    "long": ({"images": (2, 1, 8, 8), "sample": torch.arange(3)}, r"'sample' of shape \(3,\)"),
    "broken": ({"images": (2, 1, 8, 8), "sample": torch.tensor([0.5, 1])}, "wanted 2 whole numbers"),
    "beyond": ({"images": (2, 1, 8, 8), "sample": torch.tensor([9000, 9001])}, "holds no image of the 60 samples"),
}


@pytest.mark.parametrize(("held", "said"), BAD.values(), ids=BAD.keys())
def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path, images, held, said):
    def made(value):
        shape = (value, 1, 8, 8) if isinstance(value, int) else value
        return torch.zeros(shape) if isinstance(shape, tuple) else shape

    path = written(tmp_path / "file.npz", {name: made(value) for name, value in held.items()})
    with pytest.raises(BadData, match=said) as refused:
        evidence_in(path, images)
    assert "\n" not in str(refused.value)


def test_a_single_array_needs_no_name(tmp_path, images, adv):
    other = {"adv_complete": adv, "labels": torch.zeros(60, dtype=torch.int64), "save_type": "float"}
    torch.save(other, tmp_path / "adv.pt")
    assert evidence_in(tmp_path / "adv.pt", images).covers(images) == 60
    torch.save(adv, tmp_path / "bare.pt")
    assert evidence_in(tmp_path / "bare.pt", images).covers(images) == 60


class Harm:
    """Pickles into an act."""

    def __reduce__(self):
        return print, ("executed",)


def test_files_that_cannot_be_read_are_refused_and_nothing_is_executed(tmp_path, images, adv, capsys):
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "short.safetensors").write_bytes(b"\x10\x00\x00")
    (tmp_path / "file.h5").touch()
    torch.save({"images": Harm()}, tmp_path / "harm.pt")
    np.save(tmp_path / "harm.npy", np.array([Harm()], object), allow_pickle=True)
    written(tmp_path / "short.pt", {"images": adv})
    (tmp_path / "short.pt").write_bytes((tmp_path / "short.pt").read_bytes()[:-200])
    (tmp_path / "folder").mkdir()
    (tmp_path / "strangers").mkdir()
    save_file({"images": adv}, tmp_path / "strangers" / "a.safetensors")
    for name, said in (
        ("text.npz", "cannot be read"),
        ("empty.npy", "cannot be read"),
        ("short.safetensors", "cannot be read"),
        ("short.pt", "cannot be read"),
        ("harm.pt", "cannot be read"),
        ("harm.npy", "cannot be read"),
        ("file.h5", r"wanted one of \.safetensors"),
        ("none.npy", "no adversarial images at"),
        ("folder", "holds no .safetensors files"),
        ("strangers", "holds files that --keep-adversarials did not write"),
    ):
        with pytest.raises(BadData, match=said) as refused:
            evidence_in(tmp_path / name, images)
        assert "\n" not in str(refused.value), name
        assert name in str(refused.value)
    assert "executed" not in capsys.readouterr().out


def test_what_was_kept_of_other_data_is_refused(tmp_path, images):
    keeper = Keeper.of(tmp_path, load("digits", "train"), "c")
    _, trial = plan(["pgd-sat"], eps=EPS, batch_size=25)
    keeper(trial, images.sample[:2], torch.zeros(2, 1, 8, 8))
    with pytest.raises(BadData, match="was kept for digits/train, not for digits/test"):
        evidence_in(keeper.place(trial), images)
