"""How a check complains, and what of the world outside it watches."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


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
