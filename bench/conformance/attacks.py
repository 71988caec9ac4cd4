"""What every attack must do, as checks that anyone can run on their own.

    for check in ATTACK_CHECKS.values():
        check(MyAttack())

Each takes an attack, raises `AssertionError` with a line about what is wrong, and needs a second or so and no data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.attacks.base import Attack, Attributed
from bench.attacks.prepare import prepared
from bench.attacks.trial import checked
from bench.conformance.watching import by_name, global_randomness, require
from bench.errors import BenchError
from bench.evaluation.meter import Meter
from bench.norms import LINF, NORMS, Norm
from bench.randomness import Streams

EPS = 0.1


class Victim(NamedTuple):
    """A network and images that it classifies as labelled."""

    model: nn.Module
    x: Tensor
    y: Tensor


def small_network() -> Victim:
    """A convolutional network with BatchNorm and fixed random weights, and 12 images of 3x8x8, 4 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(256, 4)
        )
        x = torch.rand(12, 3, 8, 8)
    model.eval()
    with torch.no_grad():
        return Victim(model, x, model(x).argmax(1))


class _Pair(nn.Module):
    """Two of four classes contend over a linear score of the pixels; the other two are out of reach."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = (x.flatten(1) * self.weight).sum(1)
        far = torch.full_like(score, -20)
        return torch.stack([score, -score, far, far - 1], 1)


def black_and_white() -> Victim:
    """A linear network and 16 images whose every pixel is 0 or 1, breakable with 0.65 to 0.85 of the radius 0.1.

    What is breakable is known in closed form: a pixel at 0 can only rise and one at 1 only fall, so the score moves
    by at most eps times the sum of the weights that point into the box.
    """
    draw = torch.Generator().manual_seed(0)
    weight = (1 + torch.rand(64, generator=draw)) * (2 * torch.randint(0, 2, (64,), generator=draw) - 1)
    x = torch.randint(0, 2, (40000, 64), generator=draw).float()
    score = x @ weight
    rising = torch.where(score < 0, 1.0, -1.0)[:, None] * weight  # the way that each pixel should go
    room = torch.where(rising > 0, x == 0, x == 1)
    share = score.abs() / (EPS * (weight.abs() * room).sum(1))
    chosen = ((share > 0.65) & (share < 0.85)).nonzero()[:16, 0]
    x = x[chosen].reshape(-1, 1, 8, 8)
    return Victim(_Pair(weight).eval(), x, (score[chosen] < 0).long())


def run(
    attack: Attack, victim: Victim, rows: Tensor | None = None, *, eps: float = EPS, norm: Norm = LINF, seed: int = 0
) -> Tensor:
    """The attack's images for some rows of a victim (all of them by default), in the order of the rows."""
    rows = torch.arange(len(victim.x)) if rows is None else rows
    with prepared(victim.model), torch.enable_grad():
        answer = attack(
            victim.model, victim.x[rows].clone(), victim.y[rows], eps=eps, norm=norm, streams=Streams(seed, rows)
        )
    return answer.adv if isinstance(answer, Attributed) else answer


def _broken(victim: Victim, adv: Tensor, rows: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        predicted: Tensor = victim.model(adv).argmax(1)
    return predicted != (victim.y if rows is None else victim.y[rows])


def check_is_a_value(attack: Attack) -> None:
    """It is a frozen dataclass that can be fingerprinted, pickled by its fields and compared."""
    try:
        checked(repr(attack), attack)
    except BenchError as problem:
        raise AssertionError(str(problem)) from None
    require(attack == type(attack)(**vars(attack)), f"{attack!r} is not equal to another one with the same fields")
    require(isinstance(attack.version, int), f"version of {attack!r} is {attack.version!r}; it must be an integer")


def check_keeps_to_the_budget(attack: Attack) -> None:
    """Finite images of the same shape, in the ball, in the box, detached; in every geometry that it can do."""
    victim = small_network()
    for geometry, eps in ((LINF, EPS), (NORMS["L2"], 1.0)):
        try:
            adv = run(attack, victim, eps=eps, norm=geometry)
        except BenchError:
            require(geometry is not LINF, f"{attack!r} refuses Linf")
            continue
        require(adv.shape == victim.x.shape, f"{attack!r} returned shape {tuple(adv.shape)}")
        require(not adv.requires_grad, f"{attack!r} returned images that carry a graph; detach them")
        require(bool(adv.isfinite().all()), f"{attack!r} returned pixels that are no numbers")
        low, high = float(adv.min()), float(adv.max())
        require(low >= 0 and high <= 1, f"{attack!r} left the box: pixels from {low:.6g} to {high:.6g}")
        size = float(geometry.size(adv.double() - victim.x.double()).max())
        require(
            size <= eps * (1 + 1e-5) + 1e-7, f"{attack!r} left the {geometry.name} ball: {size:.6g} at eps {eps:.6g}"
        )


def check_breaks_what_can_be_broken(attack: Attack) -> None:
    """A linear network on black and white images, where it is known what a radius can do.

    An attack that returns its input breaks nothing; one that clamps to the box inside the graph gets no gradient from
    every pixel that its start pushed out of the box, and breaks few.
    """
    victim = black_and_white()
    found = int(_broken(victim, run(attack, victim)).sum())
    require(
        found == len(victim.x),
        f"{attack!r} broke {found} of {len(victim.x)} images of 0s and 1s that 0.85 of eps can break; "
        "does it clamp inside the graph?",
    )


def check_tells_the_truth(attack: Attack) -> None:
    """Of an attack that says what became of each image: what it claims is broken, and it counts every pass."""
    victim = small_network()
    meter, rows = Meter(victim.model), torch.arange(len(victim.x))
    with prepared(victim.model):
        answer = attack(meter, victim.x.clone(), victim.y, eps=0.02, norm=LINF, streams=Streams(0, rows))
    if not isinstance(answer, Attributed):
        return
    claimed = answer.by >= 0
    require(
        bool(_broken(victim, answer.adv)[claimed].all()),
        f"{attack!r} claims to have broken what it has not; look again",
    )
    lineup = attack.lineup or (repr(attack),)
    require(bool((answer.by < len(lineup)).all()), f"{attack!r} credits attacks that its line-up does not have")
    for what, counted, passed in (
        ("forward", answer.forwards, meter.forwards),
        ("backward", answer.backwards, meter.backwards),
    ):
        if counted is not None:
            total = int(counted.sum())
            require(total == passed, f"{attack!r} counts {total} {what} passes, the model saw {passed}; count them all")


def check_an_image_does_not_depend_on_its_batch(attack: Attack) -> None:
    """Batches of 1 and 5, any order: the same verdicts, and the same images but for rounding."""
    if attack.batch_dependent:
        return
    victim = small_network()
    whole = run(attack, victim, eps=0.02)
    turned = torch.arange(len(victim.x)).flip(0)
    for rows in (turned[:5], turned[5:], *torch.arange(4)[:, None]):
        part = run(attack, victim, rows, eps=0.02)
        same = _broken(victim, part, rows) == _broken(victim, whole)[rows]
        require(bool(same.all()), f"verdicts of {attack!r} depend on the batch; draw from streams only")
        # A sign may turn where a gradient is 0 but for rounding, so a rare pixel may differ.
        alike = ((part - whole[rows]).abs() < 1e-4).float().mean()
        require(float(alike) > 0.95, f"images of {attack!r} depend on the batch; draw from streams only")


def check_can_be_repeated(attack: Attack) -> None:
    """The same streams give the same images, whatever the state of global randomness, which stays as it was."""
    victim = small_network()
    torch.manual_seed(1)
    first = run(attack, victim)
    torch.manual_seed(2)
    before = global_randomness()
    second = run(attack, victim)
    after = global_randomness()
    require(torch.equal(first, second), f"{attack!r} gives other images when it is repeated; draw from streams only")
    require(
        before == after,
        f"{attack!r} draws from or seeds global randomness; draw from streams only",
    )


def check_leaves_the_model_alone(attack: Attack) -> None:
    """Modes, flags, gradients, weights and buffers are as before, and so are the images that came in."""
    victim = small_network()
    state = {name: value.clone() for name, value in victim.model.state_dict().items()}
    images = victim.x.clone()
    seen: list[bool] = []
    watch = victim.model.register_forward_pre_hook(lambda module, args: seen.append(any_training(module)))
    for parameter in victim.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    answer = attack(victim.model, images, victim.y, eps=EPS, norm=LINF, streams=Streams(0, torch.arange(len(images))))
    watch.remove()
    require(bool(seen), f"{attack!r} never asked the model")
    require(not any(seen), f"{attack!r} ran the model in train mode; leave it in eval mode")
    require(not any_training(victim.model), f"{attack!r} left the model in train mode")
    flags = [parameter.requires_grad for parameter in victim.model.parameters()]
    require(all(flags), f"{attack!r} left parameters frozen")
    grads = [parameter.grad for parameter in victim.model.parameters()]
    require(
        all(grad is not None and not grad.any() for grad in grads),
        f"{attack!r} changed the gradients of the parameters",
    )
    for name, value in victim.model.state_dict().items():
        require(torch.equal(value, state[name]), f"{attack!r} changed {name} of the model")
    require(torch.equal(images, victim.x), f"{attack!r} changed the images it was given; work on a copy")
    del answer


def any_training(model: nn.Module) -> bool:
    """Whether any part of the model is in train mode."""
    return any(module.training for module in model.modules())


ATTACK_CHECKS: Mapping[str, Callable[[Attack], None]] = by_name(
    check_is_a_value,
    check_keeps_to_the_budget,
    check_breaks_what_can_be_broken,
    check_tells_the_truth,
    check_an_image_does_not_depend_on_its_batch,
    check_can_be_repeated,
    check_leaves_the_model_alone,
)
"""Every check, by what it asks of an attack."""
