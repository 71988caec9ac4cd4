"""ADR: annealed self-distillation; the label is softened by what the averaged self says of the clean image.

The averaged network's tempered prediction is mixed with the one-hot label; the mixture is trusted more as training
goes on and less where the averaged network is wrong.

Paper:   Wu et al., ICLR 2024 (arXiv 2305.12118)
Code:    yuyuwu5/ADR @ 515da0e
Claim:   CIFAR-10, ResNet-18, AutoAttack / clean: ADR 50.39 / 82.41, ADR+WA 50.86 / 82.59, ADR+WA+AWP 51.24 / 83.26;
         CIFAR-100: 26.89 / 56.10, 27.54 / 58.30, 28.52 / 57.36 (released checkpoints, official README)
Departs: `adr` judges the trained weights and `adr+wa` the averaged ones, after the same training. With `trades` the
         clean and adversarial images go through two forwards (the release concatenates them), start from a normal
         instead of a one-sided uniform noise, and are attacked in eval mode (the release: train mode). The release's
         AWP moves all parameters: `step.tensors=all`. Its validation split is the test set; here it is held out of
         training. Tiny-ImageNet with `awp` starts at trust 0.30 as for its ResNet-18 (WideResNet: 0.50).
         The release drops the last incomplete batch, and forwards the clean images of TRADES+ADR once more in train
         mode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch

from bench.api import Batch, Context, Method, Preset, Range, Span, State, Stateless, Targets, constant, one_hot
from methods import settings
from methods.averaging import EMA
from methods.combinations import in_company


@dataclass(frozen=True)
class ADR(Stateless):
    """One-hot labels rectified by the averaged self."""

    temperature: Annotated[Span, Range(1e-6)] = Span(2.5, 2.0)
    """tau, cosine from high to low."""
    trust: Annotated[Span, Range(0, 1)] = Span(0.70, 0.95)
    """lambda, cosine from low to high."""

    @torch.no_grad()
    def __call__(self, ctx: Context, batch: Batch, state: State) -> Targets:
        """lambda_i q + (1 - lambda_i) onehot(y), q the averaged self's prediction.

        lambda_i = clip(lambda - (max q - q_y), 0, 1): less trust where the averaged self prefers another class.
        """
        label = one_hot(batch.y, ctx.classes)
        trust, temperature = self.trust.at(ctx.progress), self.temperature.at(ctx.progress)
        soft = (ctx.averaged(batch.x).float() / temperature).softmax(1)
        doubt = soft.amax(1) - soft.gather(1, batch.y[:, None])[:, 0]
        mix = (trust - doubt).clamp(0, 1)[:, None]
        rectified = mix * soft + (1 - mix) * label
        return Targets(rectified, constant(rectified))


PAPER = replace(settings.LONG, nesterov=True, normalize=True)

METHOD = Method(
    slots={"targets": ADR()},
    brings={"average": EMA(decay=0.995)},
    on="pgd-at",
    module=__name__,
    presets={
        "cifar10/paper": Preset(PAPER),
        "cifar100/paper": Preset(PAPER, {"targets": ADR(Span(1.5, 1.0), Span(0.70, 0.95))}),
        "tiny-imagenet/paper": Preset(replace(PAPER, epochs=80), {"targets": ADR(Span(2.0, 1.5), Span(0.50, 0.90))}),
        "*/short": Preset(settings.SHORT),
        "digits/digits": Preset(
            settings.DIGITS, {"targets": ADR(Span(1.5, 1.0), Span(0.3, 0.7)), "average": EMA(decay=0.98)}
        ),
        **in_company("adr", targets=ADR()),
    },
)
