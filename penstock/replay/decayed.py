"""Newer events sooner than older ones."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from penstock.errors import ConfigError, PenstockError
from penstock.events import Batch
from penstock.replay.held import MaxBytes, Seed, Size
from penstock.replay.ranked import Ranked
from penstock.state import State

__all__ = ["Decayed"]


class Decayed(Ranked):
    """A sample without replacement in which an event counts e times less for each `decay` of its age.

    Every event has the key ``age of the stream / decay + g``, g drawn from a Gumbel distribution, and the
    highest keys are held: that is drawing one event after the other with probability in proportion to
    ``exp(-age / decay)``. A key never changes, so there is nothing to be renewed as events age.

    Parameters
    ----------
    size : int
        Events held at most.
    decay : float
        Events, or seconds, after which an event counts e times less. A large one is a reservoir, a small
        one a ring.
    by : {"events", "time"}
        What age is measured in: events offered, or event time. An event without a time is as old as the
        newest one before it.
    max_bytes : int, optional
        What they may take together; see `penstock.replay.held.Held`.
    seed : int

    References
    ----------
    Efraimidis and Spirakis (2006), Weighted random sampling with a reservoir, Information Processing Letters
    97(5); as exponential biases over time: Cormode et al. (2009), Forward decay, ICDE.

    Examples
    --------
    >>> buffer = Decayed(size=100, decay=50.0, seed=0)
    >>> buffer.offer(Batch.from_rows([{"x": i} for i in range(10000)], np.arange(10000.0)))
    >>> len(buffer), bool(buffer.contents().labels.min() > 9000)
    (100, True)
    """

    kind: ClassVar[str] = "time-decayed sample"

    def __init__(
        self,
        *,
        size: Size = 5000,
        decay: Annotated[float, Gt(0)] = 20000.0,
        by: Literal["events", "time"] = "events",
        max_bytes: MaxBytes = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(size, max_bytes, seed)
        if not decay > 0.0 or not math.isfinite(decay):
            raise ConfigError(f"decay: expected a finite number > 0, got {decay!r}")
        if by not in ("events", "time"):
            raise ConfigError(f"by: expected 'events' or 'time', got {by!r}")
        self.decay = decay
        self.by = by
        self._newest: float | None = None  # event time

    def _keys_of(self, batch: Batch) -> NDArray[np.float64]:
        if self.by == "events":
            ages = np.arange(self._n_offered, self._n_offered + len(batch), dtype=np.float64)
        else:
            known = ~np.isnan(batch.times)
            if np.isinf(batch.times).any():
                raise PenstockError("a buffer that decays by time needs finite event times")
            start = -math.inf if self._newest is None else self._newest
            newest = np.maximum.accumulate(np.concatenate(([start], np.where(known, batch.times, -math.inf))))
            ages = np.where(known, batch.times, np.where(np.isinf(newest[:-1]), 0.0, newest[:-1]))
            if math.isfinite(newest[-1]):
                self._newest = float(newest[-1])
        # random() is in [0, 1): at 0 the inner logarithm would not be finite
        u = np.maximum(self._keeping.random(len(batch)), 2.0**-54)
        return np.asarray(ages / self.decay - np.log(-np.log(u)))

    def _rest_of_state(self) -> State:
        return {**super()._rest_of_state(), "newest": self._newest}

    def _resume(self, numbers: NDArray[np.int64], state: Any) -> None:
        super()._resume(numbers, state)
        newest = state["newest"]
        self._newest = None if newest is None else float(newest)
