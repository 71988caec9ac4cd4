"""A file of tensors is written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import DiskFull

if TYPE_CHECKING:
    from torch import Tensor

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, partial: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write safetensors beside their place, to the disk, and only then into it; an older file stays until then.

    Raises:
        DiskFull: no space is left.
        OSError, SafetensorError: it cannot be written there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # here, because it imports torch, which the reading half must not

    try:
        save_file(dict(tensors), partial, dict(metadata))
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as problem:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if getattr(problem, "errno", None) in FULL or "No space left" in str(problem):
            raise DiskFull(f"no space left to write {path}; free some and run the same command again") from None
        raise
