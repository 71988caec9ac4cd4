"""What an attack is: a value that turns images into adversarial images."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol, Self

from torch import Tensor, nn

from bench.errors import BadOption
from bench.norms import Norm
from bench.randomness import Streams


class Attributed(NamedTuple):
    """The answer of an attack that can say which images it broke, and how many passes that took."""

    adv: Tensor
    """(B,C,H,W) adversarial images."""
    by: Tensor
    """(B,) int64, which attack broke the image, by its position in the line-up; -1 where none says it did."""
    forwards: Tensor | None = None
    """(B,) int64, passes of each image through the model; None where the attack cannot tell."""
    backwards: Tensor | None = None
    """(B,) likewise."""


class Passes(NamedTuple):
    """Passes of one image through the model."""

    forwards: int
    backwards: int


def require_one(kind: str, **counts: int) -> None:
    """Refuse a count of an attack, such as its steps, that is below 1; `kind` is the attack with its article.

    Raises:
        BadOption: the first that is.
    """
    for name, count in counts.items():
        if count < 1:
            raise BadOption(f"{name} of {kind} is {count}; at least 1 is needed")


class Attack(Protocol):
    """A frozen dataclass; its fields are what can be chosen about it and are hashed with `version`.

    The model it is given is in eval mode, with frozen parameters, and classifies every image correctly. Whether an
    adversarial image counts as broken is not decided here, but by the evaluator. Inherit from this class for the
    defaults below.
    """

    version: ClassVar[int] = 1
    """Raised whenever a change of the code changes results."""
    lineup: ClassVar[tuple[str, ...]] = ()
    """Names of the attacks that it consists of; empty for a single attack."""
    batch_dependent: ClassVar[bool] = False
    """Whether an image's result depends on the others in its batch. The batch size is hashed if it does."""
    min_classes: ClassVar[int] = 2
    """It needs at least so many classes."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Names of installed packages whose version changes results; those versions are hashed."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: Norm, streams: Streams
    ) -> Tensor | Attributed:
        """Look for misclassified images near `x`.

        Args:
            model: pixels (B,C,H,W) in [0, 1] to logits (B,K).
            x: (B,C,H,W) images in [0, 1]; left unchanged.
            y: (B,) int64 true classes.
            eps: radius of the ball, in the unit of x.
            norm: geometry of the ball.
            streams: randomness of each image; fork it by a name of your own before drawing. No other randomness.

        Returns:
            (B,C,H,W) detached images in [0, 1] within `eps` of `x`; a line-up also says which attack broke each.
        """
        ...

    def fitted(self, classes: int) -> Self:
        """The attack as it is run on K classes, and as the fingerprint describes it."""
        return self

    def passes(self, classes: int) -> Passes:
        """A forecast of the passes that an image takes if it is not broken; zeros where that cannot be said."""
        return Passes(0, 0)

    def spared(self, shape: tuple[int, int, int]) -> int:
        """A forecast of the forward passes that an image of shape (C,H,W) does without because it is small."""
        return 0

    def forecast(self, classes: int, shape: tuple[int, int, int]) -> Passes:
        """What is left of its passes on images of shape (C,H,W)."""
        forwards, backwards = self.passes(classes)
        return Passes(forwards - self.spared(shape), backwards)
