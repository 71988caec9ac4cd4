"""Counting what an attack costs: images passed forward and backward through a model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.evaluation.answer import asked, check_logits


class Meter(nn.Module):
    """A model that counts its passes.

    Attributes:
        forwards: images passed forward so far.
        backwards: images passed backward to the pixels so far.
        blind: (), how many of those had a gradient with NaN or infinite entries, which is of no use to an attack.
    """

    def __init__(
        self,
        model: nn.Module,
        tick: Callable[[int], None] = lambda forwards: None,
        *,
        exact: nn.Module | None = None,
    ) -> None:
        """Count the passes of a model.

        Args:
            model: pixels (B,C,H,W) to logits (B,K).
            tick: called after every forward pass with the number of images so far.
            exact: the same model in full precision, where `model` has a lower one; `confirm` asks it.
        """
        super().__init__()
        self.model = model
        self.confirm = None if exact is None else self._counted(exact)
        self.training = model.training
        self.forwards = 0
        self.backwards = 0
        self.blind = torch.zeros((), dtype=torch.int64)
        self._tick = tick

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) the model's answer. The model gets a copy, so that working in place does not change the images.

        Raises:
            BadModel: it fails, or returns something else.
        """
        self.forwards += len(x)
        seen = x.clone()
        if seen.requires_grad:
            seen.register_hook(self._count)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        answer = asked(self.model, seen)
        check_logits(answer, len(x))
        self._tick(self.forwards)
        return answer

    def _counted(self, exact: nn.Module) -> Callable[[Tensor], Tensor]:
        def confirm(x: Tensor) -> Tensor:
            self.forwards += len(x)
            return asked(exact, x.clone())

        return confirm

    def _count(self, grad: Tensor) -> None:
        self.backwards += len(grad)
        self.blind = self.blind.to(grad.device) + (~grad.isfinite().flatten(1).all(1)).sum()


class Bfloat16(nn.Module):
    """A model that computes in bfloat16 and answers in float32."""

    def __init__(self, model: nn.Module) -> None:
        """Run `model` under autocast."""
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """(B,K) float32 logits."""
        with torch.autocast(x.device.type, torch.bfloat16):
            answer: Tensor = self.model(x)
        return answer.float()
