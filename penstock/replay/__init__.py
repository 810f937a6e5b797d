"""Replay buffers: a bounded sample of the past, mixed into the present against forgetting.

To add a buffer: write the class, add its line to `BUFFERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.registry import resolve
from penstock.replay.base import Buffer, WeighingBuffer

__all__ = ["BUFFERS", "Buffer", "WeighingBuffer", "build"]

BUFFERS: Final[Mapping[str, str]] = {
    "reservoir": "penstock.replay.reservoir:Reservoir",
    "balanced": "penstock.replay.balanced:Balanced",
    "ring": "penstock.replay.ring:Ring",
    "decayed": "penstock.replay.decayed:Decayed",
    "prioritised": "penstock.replay.prioritised:Prioritised",
}


def build(kind: str, *, seed: int = 0, **parameters: Any) -> Buffer:
    """Build the buffer registered as `kind`, or the class that ``module:Class`` names."""
    buffer: Buffer = resolve(kind, BUFFERS, what="replay buffer")(seed=seed, **parameters)
    return buffer
