"""How a check is called and how it complains, and what of the world outside it watches."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch

Subject = TypeVar("Subject")


def by_name(*checks: Callable[[Subject], None]) -> Mapping[str, Callable[[Subject], None]]:
    """Checks by what they ask for: `check_is_a_value` is called is_a_value."""
    return MappingProxyType({check.__name__.removeprefix("check_"): check for check in checks})


def require(holds: bool, complaint: str) -> None:
    """Complain unless something holds.

    Raises:
        AssertionError: it does not.
    """
    if not holds:
        raise AssertionError(complaint)


def global_randomness() -> tuple[Any, ...]:
    """State of the generators of torch, Python and numpy, to be compared with itself later."""
    generator: Any = np.random.get_state()
    return torch.random.get_rng_state().tolist(), random.getstate(), generator[1].tolist(), generator[2]
