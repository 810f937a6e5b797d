"""How a file begins: what tells it from one that has taken its place since a position was written."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Final

__all__ = ["HEAD_BYTES", "has_head", "head_of", "is_head"]

HEAD_BYTES: Final = 1024
"""So much of a file is looked at: of a log the ids and times of its first records."""

_HEAD: Final = re.compile(r"(?:\d{1,4}-[0-9a-f]{16})?")


def head_of(beginning: bytes) -> str:
    """Return what a position keeps of the first bytes of a file, at most `HEAD_BYTES` of them.

    How many there were is a part of it: a file that grew since is the same file. Nothing read, nothing kept.

    Examples
    --------
    >>> head_of(b"age,label")
    '9-98915f2c90ed149e'
    """
    return f"{len(beginning)}-{hashlib.sha256(beginning).hexdigest()[:16]}" if beginning else ""


def is_head(value: object) -> bool:
    """Whether `head_of` could have given it."""
    return isinstance(value, str) and _HEAD.fullmatch(value) is not None


def has_head(descriptor: int, head: str) -> bool:
    """Whether an open file begins as `head` says; any does where nothing was kept.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    return not head or head_of(os.pread(descriptor, int(head.partition("-")[0]), 0)) == head
