"""Networks that are given, without training: what they are asked, as cells of an agenda."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.attacks.trial import Trial, fitted, for_random_model, plan
from bench.budget import parse_eps
from bench.data.images import Images
from bench.evaluation.adversarials import Keeper
from bench.evaluation.batching import USUAL
from bench.evaluation.evaluate import answers_vary, usual_batch
from bench.evaluation.evidence import Evidence
from bench.evaluation.network import Network
from bench.evaluation.random_models import EOT, VOTES
from bench.study.plan import Cell

USUAL_EPS = "8/255"
"""Radius where neither the user nor the network's training names one."""


@dataclass(frozen=True)
class Asked:
    """What networks are judged by.

    Attributes:
        attacks: name of a suite, or attacks as they are asked for.
        norm: geometry of the ball.
        eps: radius; None for the one that a network was trained for, or 8/255.
        seed: of the attacks.
        precision: "fp32" or "bf16", in which the attacks see the model.
        batch_size: images attacked at a time; None for what suits the device.
        eot: answers whose mean the attacks see; None for 20 where answers are random, else 1.
        votes: answers whose majority decides; None for 10 where answers are random, else 1.
        evidence: adversarial images from elsewhere, by name.
    """

    attacks: str | Sequence[str]
    norm: str = "Linf"
    eps: str | None = None
    seed: int = 0
    precision: str = "fp32"
    batch_size: int | None = None
    eot: int | None = None
    votes: int | None = None
    evidence: tuple[tuple[str, Evidence], ...] = ()

    def trials(self, eps: str, *, random: bool = False) -> tuple[Trial, ...]:
        """The trials within a radius, of a network whose answers are random or not.

        Raises:
            BenchError: an unknown name, or a number out of range.
        """
        size, at_a_time = parse_eps(eps), USUAL if self.batch_size is None else self.batch_size
        trials = plan(
            self.attacks, norm=self.norm, eps=size, seed=self.seed, precision=self.precision, batch_size=at_a_time
        )
        trials += tuple(Trial(name, images, self.norm, size) for name, images in self.evidence)
        eot = (EOT if random else 1) if self.eot is None else self.eot
        votes = (VOTES if random else 1) if self.votes is None else self.votes
        return for_random_model(trials, eot=eot, votes=votes, batch_size=at_a_time)

    def check(self) -> None:
        """Refuse wrong names and numbers before anything is loaded.

        Raises:
            BenchError: see `trials`.
        """
        self.trials(USUAL_EPS if self.eps is None else self.eps)

    def cell(
        self,
        label: str,
        network: Network,
        images: Images,
        *,
        device: str,
        keep_in: Path | None,
        say: Callable[[str], None],
    ) -> Cell:
        """A network as a cell.

        Args:
            label: how messages call it.
            network: what is asked.
            images: what it is judged on.
            device: where to compute.
            keep_in: folder for the adversarial images; None to keep none.
            say: hears if its answers are random.

        Raises:
            BenchError: it fails at its first images, or an attack cannot work on so few classes.
        """
        module = network.module()
        random = self.eot is self.votes is None and answers_vary(module, images, device)
        if random:
            say(f"{label} answers at random: attacked in expectation over {EOT}, judged by {VOTES} votes")
        trials = self.trials(self.eps if self.eps is not None else network.eps or USUAL_EPS, random=random)
        return Cell(
            label,
            fitted(trials, images.classes),
            self.batch_size or usual_batch(module, images, device),
            network=network,
            keep=Keeper.of(keep_in, images, network.row.checkpoint_id) if keep_in else None,
        )
