"""Content hashes: two things are the same when their hashes are, whatever they are called."""

from __future__ import annotations

import hashlib
import json
from typing import Any

LENGTH = 16
"""Hex digits kept of a SHA-256: 64 bits, ample for the things one group will ever make."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Hash of a value made of dicts, lists, strings, numbers, booleans and None."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:LENGTH]
