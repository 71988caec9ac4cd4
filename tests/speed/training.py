"""How fast a step of training is, against the bare passes that its method needs and against a plain loop, in one run.

    python tests/speed/training.py [METHOD ...] [--all] [--networks NAME ...]

A step is a turn of the product's own loop (`bench/training/loop.py`): batch, augmentation, targets, attack, losses,
weights, averages and tally. Its passes are counted with hooks in one turn and then repeated by themselves, on copies of
the networks. The plain loops tell again, in ordinary PyTorch, what the releases do in a step. Times are
seconds of the processor, so that other work on the machine does not count; step, passes and plain loop take turns, and
the best turn of each is taken.
The networks are untrained, the images noise: neither changes what a pass costs. Written to results/training-speed.md.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from bench.data.images import Images, images_from_arrays
from bench.errors import BenchError
from bench.models.architecture import Architecture, build
from bench.training.loop import train
from bench.training.method import METHODS, compose
from bench.training.run import Parent, Run, prepare
from bench.training.schedule import Schedule
from bench.training.state import TrainingState

OUT = Path(__file__).parents[2] / "results" / "training-speed.md"
USUAL = ("pgd-at", "trades", "rslad", "absld", "adr")
GOAL = 1.10
"""Of a step's seconds over those of its bare passes."""
HEAD = (
    *("network", "method", "precision", "passes", "step", "bare", "step / bare", "SGD", "step / (bare + SGD)"),
    *("plain passes", "plain", "plain / step"),
)


@dataclass(frozen=True)
class Arena:
    """What is trained, and how many turns are measured."""

    dataset: str
    """Whose preset is taken: the one that this project runs itself."""
    model: str
    shape: tuple[int, int, int]
    batch_size: int
    turns: int

    def images(self) -> Images:
        """Noise for the turns, and two more to warm up and to count in."""
        chance = np.random.default_rng(0)
        n = self.batch_size * (self.turns + 3)
        pixels = chance.integers(0, 256, (n, *self.shape), np.uint8)
        return images_from_arrays(self.dataset, "train", pixels, np.arange(n) % 10, [*"abcdefghij"])


@dataclass(frozen=True)
class Untrained(Parent):
    """A teacher that was never trained."""

    def network(self) -> nn.Module:
        """Random weights, frozen."""
        return build(self.built_as(), 1).eval().requires_grad_(False)


@dataclass
class Pass:
    """A pass through a network: forward, and back to the weights or to the pixels."""

    network: nn.Module
    x: Tensor
    training: bool
    back: bool = False

    @property
    def kind(self) -> str:
        """What has to be computed; what is differentiated beyond that is not needed."""
        return ("pixels" if self.x.requires_grad else "weights") if self.back else "forward"

    def went_back(self, gradient: Tensor) -> None:
        """Hear that a gradient has reached the logits."""
        self.back = True


@dataclass
class Watch:
    """Sees every pass through a network between `begin` and `end`."""

    seen: list[Pass] = field(default_factory=list)
    depth: int = 0

    def begin(self) -> None:
        self.handles = register_module_forward_pre_hook(self.enters), register_module_forward_hook(self.leaves)

    def end(self) -> list[Pass]:
        for handle in self.handles:
            handle.remove()
        return self.seen

    def enters(self, module: nn.Module, inputs: Any) -> None:
        self.depth += 1

    def leaves(self, module: nn.Module, inputs: Any, logits: Any) -> None:
        self.depth -= 1
        if self.depth == 0 and next(module.parameters(), None) is not None:
            # Detached: the pass is asked later what it was, and must not keep its graph until then.
            x = inputs[0].detach().requires_grad_(inputs[0].requires_grad)
            self.seen.append(Pass(module, x, module.training))
            if logits.requires_grad:
                logits.register_hook(self.seen[-1].went_back)


def counted(passes: Sequence[Pass]) -> str:
    """Passes in units of the largest batch: `10 p + 2 w` of the student, `; 1 f` of the others."""
    whole = max(len(each.x) for each in passes)
    student = {id(each.network) for each in passes if each.kind == "weights"}
    texts = []
    for own in (True, False):
        amounts = {
            kind: sum(len(p.x) for p in passes if p.kind == kind and (id(p.network) in student) == own) / whole
            for kind in ("forward", "pixels", "weights")
        }
        texts.append(" + ".join(f"{amount:.3g} {kind[0]}" for kind, amount in amounts.items() if amount))
    return "; ".join(text for text in texts if text)


def bare(passes: Sequence[Pass], precision: str) -> Callable[[], None]:
    """The passes by themselves, on copies of the networks as frozen as each pass allows.

    In bf16, what is frozen holds its weights in bfloat16 already.
    """
    copies: dict[tuple[int, str, bool], nn.Module] = {}
    plan = []
    for each in passes:
        key = (id(each.network), each.kind, each.training)
        if key not in copies:
            copies[key] = copy.deepcopy(each.network).train(each.training).requires_grad_(each.kind == "weights")
            if precision == "bf16" and each.kind != "weights":
                for module in copies[key].modules():
                    if isinstance(module, nn.Conv2d | nn.Linear):
                        module.to(torch.bfloat16)
        plan.append((copies[key], each.kind, each.x.detach().clone()))
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")

    def run() -> None:
        for network, kind, x in plan:
            if kind == "forward":
                with torch.no_grad(), cast:
                    network(x)
            else:
                leaf = x.detach().requires_grad_(kind == "pixels")
                with cast:
                    logits = network(leaf)
                torch.autograd.grad(logits.sum(), leaf if kind == "pixels" else [*network.parameters()])

    return run


def optimizer_of(network: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    """As `bench.training.state` makes it."""
    return torch.optim.SGD(
        network.parameters(),
        lr=schedule.lr,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
        weight_decay=schedule.weight_decay,
    )


def descent(passes: Sequence[Pass], schedule: Schedule) -> Callable[[], object]:
    """The optimizer's step on a copy of the student."""
    student = copy.deepcopy(next(each.network for each in passes if each.kind == "weights"))
    for weight in student.parameters():
        weight.grad = torch.full_like(weight, 1e-3)
    return optimizer_of(student, schedule).step


@dataclass
class Plain:
    """What a release's loop works on."""

    student: nn.Module
    teacher: nn.Module
    optimizer: torch.optim.SGD
    x: Tensor
    y: Tensor
    eps: float
    temperature_adv: Tensor = field(default_factory=lambda: torch.ones(10))
    temperature_clean: Tensor = field(default_factory=lambda: torch.ones(10))
    risk_adv: Tensor = field(default_factory=lambda: torch.zeros(10))
    risk_clean: Tensor = field(default_factory=lambda: torch.zeros(10))
    log: list[float] = field(default_factory=list)

    @classmethod
    def on(cls, run: Run) -> Plain:
        """Networks of its own and the first batch, which is neither fetched nor augmented here."""
        schedule = run.plan.schedule
        student, teacher = build(run.architecture), build(run.architecture, 1).eval()
        x, y = run.images.batch(slice(0, schedule.batch_size))
        return cls(student, teacher, optimizer_of(student, schedule), x, y, float(schedule.eps))

    def ascended(self, value: Callable[[Tensor], Tensor]) -> Tensor:
        """Ten steps from small noise, differentiated at the pixels only; the mode is that of the student."""
        adv = self.x + 0.001 * torch.randn_like(self.x)
        for _ in range(10):
            adv.requires_grad_()
            (slope,) = torch.autograd.grad(value(adv), [adv])
            adv = adv.detach() + self.eps / 4 * slope.sign()
            adv = torch.clamp(torch.min(torch.max(adv, self.x - self.eps), self.x + self.eps), 0, 1)
        return adv

    def descend(self, loss: Tensor) -> None:
        """Differentiate at the weights and move them."""
        loss.backward()
        self.optimizer.step()


def plain_pgd_at(own: Plain) -> None:
    """Attack in train mode by `backward`, which leaves gradients in the weights too.

    The end of the attack is looked at once more, to keep the best of its restarts (one), and the clean images are
    passed for the log, which is of numbers.
    """
    best, worst = torch.zeros_like(own.x), torch.zeros(len(own.y))
    delta = torch.empty_like(own.x).uniform_(-own.eps, own.eps)
    delta = torch.max(torch.min(delta, 1 - own.x), -own.x).requires_grad_()
    for _ in range(10):
        F.cross_entropy(own.student(own.x + delta), own.y).backward()
        moved = torch.clamp(delta.detach() + own.eps / 4 * delta.grad.sign(), -own.eps, own.eps)
        delta.data = torch.max(torch.min(moved, 1 - own.x), -own.x)
        delta.grad.zero_()
    found = F.cross_entropy(own.student(own.x + delta), own.y, reduction="none")
    best[found >= worst] = delta.detach()[found >= worst]
    logits = own.student((own.x + best).clamp(0, 1))
    loss = F.cross_entropy(logits, own.y)
    own.optimizer.zero_grad()
    own.descend(loss)
    clean = own.student(own.x)
    own.log += [loss.item(), F.cross_entropy(clean, own.y).item()]
    own.log += [(z.argmax(1) == own.y).sum().item() for z in (logits, clean)]


def plain_trades(own: Plain) -> None:
    """The clean images are passed again at every step of the attack, and twice for the loss."""
    apart = nn.KLDivLoss(reduction="sum")

    def divergence(adv: Tensor) -> Tensor:
        return apart(own.student(adv).log_softmax(1), own.student(own.x).softmax(1))

    own.student.eval()
    adv = own.ascended(divergence)
    own.student.train()
    own.optimizer.zero_grad()
    fit = F.cross_entropy(own.student(own.x), own.y)
    own.descend(fit + 6 * divergence(adv) / len(own.y))


def plain_rslad(own: Plain) -> None:
    """The teacher's clean answer is what the attack leaves and what both passes are fitted to."""
    with torch.no_grad():
        wanted = own.teacher(own.x)
    _distil(own, wanted, wanted)


def plain_absld(own: Plain) -> None:
    """RSLAD with the temperature of each image's class, image by image, and the classes' risks added up likewise."""
    with torch.no_grad():
        wanted_adv = own.teacher(own.x)
        wanted_clean = wanted_adv.detach()  # of the same storage, as released
        for i in range(len(own.y)):
            wanted_adv[i] = wanted_adv[i] / own.temperature_adv[own.y[i]]
            wanted_clean[i] = wanted_clean[i] / own.temperature_clean[own.y[i]]
    adv, clean = _distil(own, wanted_adv, wanted_clean)
    with torch.no_grad():
        risks_adv = F.cross_entropy(adv, own.y, reduction="none")
        risks_clean = F.cross_entropy(clean, own.y, reduction="none")
        for i in range(len(own.y)):
            own.risk_adv[own.y[i]] = own.risk_adv[own.y[i]] + risks_adv[i]
            own.risk_clean[own.y[i]] = own.risk_clean[own.y[i]] + risks_clean[i]


def _distil(own: Plain, wanted_adv: Tensor, wanted_clean: Tensor) -> tuple[Tensor, Tensor]:
    apart = nn.KLDivLoss(reduction="none")
    own.student.eval()
    adv = own.ascended(lambda x: apart(own.student(x).log_softmax(1), wanted_adv.softmax(1)).sum())
    own.student.train()
    own.optimizer.zero_grad()
    logits, clean = own.student(adv), own.student(own.x)
    losses = []
    for z, wanted in ((logits, wanted_adv), (clean, wanted_clean)):
        p = wanted.softmax(1)
        losses.append((-z.log_softmax(1) * p + torch.log(p + 1e-5) * p).mean())
    own.descend(5 / 6 * losses[0] + 1 / 6 * losses[1])
    return logits.detach(), clean.detach()


PLAIN: dict[str, Callable[[Plain], None]] = {
    "pgd-at": plain_pgd_at,
    "trades": plain_trades,
    "rslad": plain_rslad,
    "absld": plain_absld,
}


@dataclass
class Laps:
    """What took how long in each turn, and what it was."""

    step: list[float] = field(default_factory=list)
    beside: dict[str, list[float]] = field(default_factory=dict)
    passes: list[Pass] = field(default_factory=list)
    plain_passes: list[Pass] = field(default_factory=list)


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a run."""
    began = time.process_time()
    run()
    return time.process_time() - began


def laps(run: Run, name: str, turns: int) -> Laps:
    """Turns of the trainer's loop, three quarters into the training, and of what it is compared with.

    The first turn warms up, in the second the passes are counted, the others are measured.
    """
    schedule = run.plan.schedule
    found, watch = Laps(), Watch()
    rivals: dict[str, Callable[[], object]] = {}
    began, done = 0.0, 0

    def report(step: int, total: int) -> None:
        nonlocal began, done
        now = time.process_time()
        done += 1
        if done == 1:
            watch.begin()
        elif done == 2:
            found.passes = watch.end()
            rivals["bare"] = bare(found.passes, schedule.precision)
            rivals["SGD"] = descent(found.passes, schedule)
            if name in PLAIN and schedule.precision == "fp32":
                own = Plain.on(run)
                rivals["plain"] = lambda: PLAIN[name](own)
                beside = Watch()
                beside.begin()
                rivals["plain"]()
                found.plain_passes = beside.end()
        else:
            found.step.append(now - began)
            for what, rival in rivals.items():
                found.beside.setdefault(what, []).append(seconds(rival))
        began = time.process_time()

    start = replace(TrainingState.begin(run, "cpu").checkpoint(), epoch=schedule.epochs * 3 // 4)
    for _ in train(run, resume=start, report=report, stop=lambda: len(found.step) >= turns):
        break
    return found


def row(arena: Arena, images: Images, name: str, precision: str, plain: dict[str, float]) -> str:
    """A row of the report on one method; `plain` remembers the seconds of its plain loop in fp32.

    Raises:
        BenchError: the method cannot be composed or started.
    """
    plan = compose(name, dataset=arena.dataset, settings={"schedule.precision": precision})
    schedule = replace(plan.schedule, batch_size=arena.batch_size, lr=1e-6, holdout=0.0, selection="last")
    architecture = Architecture(arena.model, images.classes, arena.shape[0])
    teachers = {role: Untrained("", "", Path(), architecture) for role in plan.teachers}
    run = prepare(replace(plan, schedule=schedule), images, arena.model, 0, teachers)
    found = laps(run, name, arena.turns)
    step = min(found.step)
    least = {what: min(times) for what, times in found.beside.items()}
    if "plain" in least:
        plain[name] = least["plain"]
    cells = [
        f"{arena.model}, {arena.batch_size} images",
        name,
        precision,
        counted(found.passes),
        f"{step:.4f}",
        f"{least['bare']:.4f}",
        f"{step / least['bare']:.2f}",
        f"{least['SGD']:.4f}",
        f"{step / (least['bare'] + least['SGD']):.2f}",
        counted(found.plain_passes) if found.plain_passes else "",
        f"{plain[name]:.4f}" if name in plain else "",
        f"{plain[name] / step:.2f}" if name in plain else "",
    ]
    return "| " + " | ".join(cells) + " |"


def table(arena: Arena, names: Sequence[str], precisions: Sequence[str]) -> list[str]:
    """Rows of the report on one network."""
    rows: list[str] = []
    plain: dict[str, float] = {}
    images = arena.images()
    for name in names:
        for precision in precisions:
            try:
                rows.append(row(arena, images, name, precision, plain))
            except BenchError as problem:
                print(f"{name}: left out, {problem}", flush=True)  # noqa: T201  # what a script has to say
                break
            print(rows[-1], flush=True)  # noqa: T201  # what a script has to say
    return rows


def main() -> None:
    """Measure, print and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("methods", nargs="*", help="by default all on the convnet and some on the ResNet-18")
    options.add_argument("--all", action="store_true", help="every registered method on the ResNet-18 too")
    options.add_argument("--networks", nargs="+", default=["convnet-6", "resnet-18"], help="some of the default ones")
    options.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    options.add_argument("--batch-size", type=int, default=16, help="of the ResNet-18")
    options.add_argument("--turns", type=int, default=2, help="of the ResNet-18; of the convnet 25 times as many")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path, default=OUT)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    everyone = asked.methods or [*USUAL, *(name for name in METHODS.names() if name not in USUAL)]
    small = Arena("digits", "convnet-6", (1, 8, 8), 128, 25 * asked.turns)
    large = Arena("cifar10", "resnet-18", (3, 32, 32), asked.batch_size, asked.turns)
    lines: list[str] = []
    for arena, names in ((small, everyone), (large, everyone if asked.all else asked.methods or USUAL)):
        if arena.model in asked.networks:
            lines += table(arena, names, asked.precisions)
    asked.out.write_text(
        "# Speed of training\n\n"
        f"{asked.threads} thread(s) of {platform.processor() or platform.machine()}, torch {torch.__version__}; "
        "written by tests/speed/training.py.\n"
        "Seconds are the processor's, of one step of training, the best of some turns. Passes: f forward only, p\n"
        "forward and back to the pixels, w forward and back to the weights; those of teachers and averages behind the\n"
        "semicolon. Bare are the same passes by themselves, of the network as it is, frozen where a pass lets it be.\n"
        f"The step has all that the loop does, from batch to tally; the goal is {GOAL:.2f} of the bare passes. SGD is\n"
        "the optimizer's step by itself. Plain is the release's step in ordinary PyTorch, in fp32, on a batch that it\n"
        "need not fetch or augment; the attack of pgd-at's goes back to the weights too, unused.\n\n"
        + "\n".join(["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD), *lines])
        + "\n"
    )


if __name__ == "__main__":
    main()
