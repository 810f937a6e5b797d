"""Events that come twice: told by their ids, within a window of the last so many."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from penstock.events import Batch
from penstock.state import State

__all__ = ["Dedup"]

_BYTES: Final = 16  # of a fingerprint: of 10**12 ids two agree with probability 2e-15


class Dedup:
    """Lets every event through whose id is not among those of the last `window` that it let through.

    An event without an id is never a duplicate. What is let through depends on the events and their order
    alone, not on the batches that they come in.

    Parameters
    ----------
    window : int
        Of ids, each remembered as 128 bits of BLAKE2b. Memory is bounded: 16 bytes an id in the state and in
        checkpoints, and some 120 bytes an id in this process.

    Attributes
    ----------
    n_duplicates : int
        Left out since the very beginning.

    Examples
    --------
    >>> from dataclasses import replace
    >>> batch = replace(Batch.from_rows([{"x": 1}, {"x": 2}, {"x": 3}]), ids=["a", "b", "a"])
    >>> dedup = Dedup(window=1000)
    >>> dedup.filter(batch).ids, dedup.n_duplicates
    (['a', 'b'], 1)
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError(f"expected a window >= 1, got {window}")
        self.n_duplicates = 0
        self._window = window
        self._ring = bytearray()  # fingerprints, in the order in which they came; a ring once it is full
        self._at = 0  # where the oldest one is, in bytes
        self._known: set[bytes] = set()

    def filter(self, batch: Batch) -> Batch:
        """Return the events of a batch that are new; the batch itself if all are."""
        if batch.ids is None:
            return batch
        known = self._known
        old: list[int] = []
        for i, id_ in enumerate(batch.ids):
            if not id_:
                continue
            mark = blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
            if mark in known:
                old.append(i)
            else:
                self._remember(mark)
        if not old:
            return batch
        self.n_duplicates += len(old)
        keeps = np.ones(len(batch), dtype=bool)
        keeps[old] = False
        return batch.take(np.flatnonzero(keeps))

    def _remember(self, mark: bytes) -> None:
        ring, at = self._ring, self._at
        self._known.add(mark)
        if len(ring) < self._window * _BYTES:
            ring += mark
            return
        self._known.discard(bytes(ring[at : at + _BYTES]))
        ring[at : at + _BYTES] = mark
        self._at = (at + _BYTES) % len(ring)

    def state(self) -> State:
        """Everything it knows: the fingerprints, oldest first."""
        ring = np.frombuffer(bytes(self._ring), dtype=np.uint8)
        return {"n_duplicates": self.n_duplicates, "ids": np.roll(ring, -self._at).reshape(-1, _BYTES)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from. A smaller window forgets the oldest."""
        self.n_duplicates = int(state["n_duplicates"])
        self._ring = bytearray(state["ids"][-self._window :].tobytes())
        self._at = 0
        self._known = {bytes(self._ring[i : i + _BYTES]) for i in range(0, len(self._ring), _BYTES)}
