"""How long what is left takes, if workers take it up as the driver hands it out."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple


class Piece(NamedTuple):
    """A unit of work that waits.

    Attributes:
        first: whether it is taken up before all others.
        seconds: what it takes.
    """

    first: bool
    seconds: float


@dataclass
class Strand:
    """What is left to do for one network.

    Attributes:
        running: seconds that each unit at which a worker is will go on for.
        stages: pieces of work; those of the first stage can be taken up at once, those of each later one when all of
            the stages before are done.
    """

    running: list[float] = field(default_factory=list)
    stages: list[list[Piece]] = field(default_factory=lambda: [[]])


def makespan(strands: Sequence[Strand], workers: int) -> float:
    """Seconds until all strands are done; of two pieces of a kind, the one that has waited longer."""
    running = [(seconds, strand) for strand, left in enumerate(strands) for seconds in left.running]
    heapq.heapify(running)
    unfinished = [len(left.running) for left in strands]
    later = [iter(left.stages) for left in strands]
    waiting: list[tuple[bool, int, float, int]] = []
    turn, now = count(), 0.0

    def line_up(strand: int) -> None:
        for stage in later[strand]:
            for first, seconds in stage:
                heapq.heappush(waiting, (not first, next(turn), seconds, strand))
            unfinished[strand] += len(stage)
            if unfinished[strand]:
                return

    for strand in range(len(strands)):
        line_up(strand)
    while running or waiting:
        while waiting and len(running) < workers:
            _, _, seconds, strand = heapq.heappop(waiting)
            heapq.heappush(running, (now + seconds, strand))
        now, strand = heapq.heappop(running)
        unfinished[strand] -= 1
        if not unfinished[strand]:
            line_up(strand)
    return now
