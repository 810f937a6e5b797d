"""The newest events."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.events import Batch
from penstock.replay.held import MaxBytes, Seed, Size
from penstock.replay.ranked import Ranked

__all__ = ["Ring"]


class Ring(Ranked):
    """The newest `size` events, and no others: it remembers no longer than that.

    Parameters
    ----------
    size : int
        Events held at most.
    max_bytes : int, optional
        What they may take together; see `penstock.replay.held.Held`.
    seed : int
        Of what is drawn.

    Examples
    --------
    >>> ring = Ring(size=3)
    >>> ring.offer(Batch.from_rows([{"x": i} for i in range(100)], np.arange(100.0)))
    >>> ring.contents().labels
    array([97., 98., 99.])
    """

    kind: ClassVar[str] = "ring"

    def __init__(self, *, size: Size = 5000, max_bytes: MaxBytes = None, seed: Seed = 0) -> None:
        super().__init__(size, max_bytes, seed)

    def _keys_of(self, batch: Batch) -> NDArray[np.float64]:
        return np.arange(self._n_offered, self._n_offered + len(batch), dtype=np.float64)
