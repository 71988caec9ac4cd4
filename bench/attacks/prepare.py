"""A model made ready to be attacked, and put back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """The model in eval mode with frozen parameters for a while; every module's mode and parameter's flag come back.

    Frozen parameters cost no gradients, and an attack that calls `backward` cannot leave any in them. Convolutions on
    CUDA compute in full fp32 meanwhile, not in the TF32 that is torch's default.
    """
    tf32 = torch.backends.cudnn.allow_tf32
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        torch.backends.cudnn.allow_tf32 = False
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        for module, training in modes:
            module.training = training
        for parameter, wanted in flags:
            parameter.requires_grad_(wanted)


@contextmanager
def own_randomness() -> Iterator[None]:
    """Code that seeds or draws global randomness leaves that of torch, numpy and Python as it was."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
