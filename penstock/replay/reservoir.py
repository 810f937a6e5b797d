"""A uniform sample of everything."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock._native.replay import keep_uniformly
from penstock.events import Batch
from penstock.replay.held import Held, MaxBytes, Seed, Size
from penstock.state import State

__all__ = ["Reservoir"]


class Reservoir(Held):
    """A uniform sample of everything offered: each event is held with probability size / n_offered.

    Instead of tossing a coin for every event, it draws how many to skip until the next one it keeps, so
    beyond the first `size` events it costs O(size · log(n / size)) in all.

    With `max_bytes`, fewer are held where events are large; which of them does not depend on their sizes,
    but for the few that came last.

    Parameters
    ----------
    size : int
        Events held at most.
    max_bytes : int, optional
        What they may take together; see `penstock.replay.held.Held`.
    seed : int

    References
    ----------
    Li (1994), Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n))), ACM TOMS 20(4), 481-493:
    Algorithm L.

    Examples
    --------
    >>> reservoir = Reservoir(size=2, seed=0)
    >>> reservoir.offer(Batch.from_rows([{"x": i} for i in range(100)], np.arange(100.0)))
    >>> len(reservoir), reservoir.n_offered
    (2, 100)
    >>> reservoir.arrivals().tolist() == reservoir.contents().labels.tolist()
    True
    """

    kind: ClassVar[str] = "reservoir"

    def __init__(self, *, size: Size = 5000, max_bytes: MaxBytes = None, seed: Seed = 0) -> None:
        super().__init__(size, max_bytes, seed)
        self._slots = np.empty(size, np.int64)  # number of the event in each
        self._costs = np.empty(size, np.int64)
        self._counts = np.zeros(3, np.int64)  # events held, their bytes, number of the next to keep
        self._log_threshold = np.zeros(1)

    def _numbers(self) -> NDArray[np.int64]:
        return self._slots[: self._counts[0]]

    def _skips(self, n: int) -> bool:
        return bool(self._counts[2] >= self._n_offered + n)

    def _keep(self, batch: Batch, costs: NDArray[np.int64]) -> NDArray[np.int64]:
        kept = np.empty(len(costs), np.int64)
        n_kept = keep_uniformly(
            self._keeping,
            self._n_offered,
            costs,
            self._limit,
            self._slots,
            self._costs,
            self._counts,
            self._log_threshold,
            kept,
        )
        return kept[:n_kept]

    def _start_from(self, numbers: NDArray[np.int64]) -> None:
        """Sample from here on.

        What is left are the first events of a new sample: uniform over them and all that follow, which
        counts the few events that were dropped by chance, and not by age, as never offered.
        """
        if len(numbers) == self.size:
            return  # nothing was dropped: the sample is still the same one
        self._put(numbers)
        self._counts = np.array([len(numbers), int(self._store.costs().sum()), self._n_offered], np.int64)
        self._log_threshold = np.zeros(1)

    def _put(self, numbers: NDArray[np.int64]) -> None:
        self._slots, self._costs = np.empty(self.size, np.int64), np.empty(self.size, np.int64)
        self._slots[: len(numbers)] = numbers
        self._costs[: len(numbers)] = self._store.costs()[self._store.positions(numbers)]

    def _rest_of_state(self) -> State:
        return {"next_kept": int(self._counts[2]), "log_threshold": float(self._log_threshold[0])}

    def _resume(self, numbers: NDArray[np.int64], state: Any) -> None:
        next_kept, log_threshold = int(state["next_kept"]), float(state["log_threshold"])
        filling = log_threshold == 0.0 and len(numbers) < self.size and next_kept == self._n_offered
        if not filling and not (next_kept >= self._n_offered and -700.0 < log_threshold < 0.0):
            raise ValueError(f"it keeps event {next_kept} next, with log threshold {log_threshold}")
        self._put(numbers)
        self._counts = np.array([len(numbers), int(self._store.costs().sum()), next_kept], np.int64)
        self._log_threshold = np.array([log_threshold])
