"""Weight averaging: an exponential moving average of the weights, updated after every step.

`wa` keeps the average and judges it; inside ADR the average only gives the targets.

Paper:   Izmailov et al., UAI 2018 (arXiv 1803.05407); per-step EMA as in Wu et al., ICLR 2024 (arXiv 2305.12118)
Code:    yuyuwu5/ADR @ 515da0e
Claim:   none of its own
Departs: integer counters are copied, where the release's stand still; BatchNorm statistics are averaged in both
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.api import Context, Losses, Method, Preset, Share, State, Stateless, blend
from methods import settings


@dataclass(frozen=True)
class EMA(Stateless):
    """theta_avg <- decay theta_avg + (1 - decay) theta, after every step, without bias correction."""

    decay: Share = 0.995
    judged: bool = False

    def end_step(self, ctx: Context, state: State, losses: Losses) -> State:
        """Move the average towards the weights."""
        blend(ctx.averaged, ctx.model, self.decay)
        return state


METHOD = Method(
    slots={"average": EMA(judged=True)},
    on="pgd-at",
    module=__name__,
    presets={"digits/digits": Preset(settings.DIGITS, {"average": EMA(decay=0.98, judged=True)})},
)
