"""Memory that is lent out, and lent again once nobody holds on to it."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Leases"]


class Leases:
    """Read-only arrays of float32 in memory that is lent again, as it was left; what is new is zeros.

    What is large is not asked of the system time and again, which would have to clear all of it.

    Parameters
    ----------
    spare : int
        Arrays kept at most that nobody holds.

    Examples
    --------
    >>> leases = Leases(spare=1)
    >>> lent = leases.lend(3, lambda memory: memory.put(1, 7.0))
    >>> view = lent[1:]
    >>> del lent
    >>> leases.lend(3, lambda memory: memory.put(0, 5.0))  # the first one is still held
    array([5., 0., 0.], dtype=float32)
    >>> del view
    >>> leases.lend(3, lambda memory: memory.put(2, 9.0))[1:]
    array([7., 9.], dtype=float32)
    """

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._returned: list[NDArray[np.float32]] = []

    def lend(self, size: int, fill: Callable[[NDArray[np.float32]], None]) -> NDArray[np.float32]:
        """Return an array of `size` numbers that `fill` has written to, as nobody else ever can.

        It is given back when it, and every view of it, is gone.
        """
        memory = self._returned.pop() if self._returned else np.empty(0, np.float32)
        if len(memory) != size:
            self._returned.clear()
            memory = np.zeros(size, np.float32)
        fill(memory)
        # Whose memory is not an array's, every view of it refers to that first array, as long as it lives.
        lent = np.asarray(memory.data.toreadonly())
        weakref.finalize(lent, _give_back, self._returned, self._spare, memory).atexit = False
        return lent


def _give_back(returned: list[NDArray[np.float32]], spare: int, memory: NDArray[np.float32]) -> None:
    if len(returned) < spare:
        returned.append(memory)
