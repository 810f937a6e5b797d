"""Buffers that hold the events with the highest keys."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock.events import Batch
from penstock.replay.held import Held
from penstock.state import State

__all__ = ["Ranked"]

_T = TypeVar("_T", bound=np.generic)


class _Column(Generic[_T]):
    """An array that grows at its end in amortised constant time."""

    def __init__(self, dtype: type[_T], values: NDArray[_T] | None = None) -> None:
        self._data: NDArray[_T] = np.empty(16, dtype)
        self._length = 0
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> NDArray[_T]:
        """What is in it; shares memory with it, until it grows or something goes."""
        return self._data[: self._length]

    def extend(self, values: NDArray[_T]) -> None:
        """Add at the end; copies."""
        length = self._length + len(values)
        if length > len(self._data):
            grown = np.empty(max(length, self._length + self._length // 2), self._data.dtype)
            grown[: self._length] = self.values
            self._data = grown
        self._data[self._length : length] = values
        self._length = length

    def keep(self, places: NDArray[np.intp]) -> None:
        """Drop all but what is at `places`, which ascend."""
        self._data[: len(places)] = self._data[places]
        self._length = len(places)


class Ranked(Held):
    """Gives every event a key, and holds as many of those with the highest keys as there is room for.

    Whether an event is held depends on the keys and sizes of all, not on when anybody looked. So it is put
    off: up to twice as many lie around, and are thinned out when there are more, or somebody asks. Of events
    with the same key, for the same reason, all go if one has to.
    """

    def __init__(self, size: int, max_bytes: int | None, seed: int) -> None:
        super().__init__(size, max_bytes, seed)
        self._hold(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
        self._floor = -math.inf  # the highest key that was turned away

    @abstractmethod
    def _keys_of(self, batch: Batch) -> NDArray[np.float64]:
        """Give the events of the next batch their keys: finite, and different ones as a rule."""

    def _hold(self, numbers: NDArray[np.int64], keys: NDArray[np.float64], costs: NDArray[np.int64]) -> None:
        self._candidates = _Column(np.int64, numbers)  # ascending
        self._keys = _Column(np.float64, keys)
        self._costs = _Column(np.int64, costs)
        self._total = int(costs.sum())

    def _numbers(self) -> NDArray[np.int64]:
        self._thin()
        return self._candidates.values

    def _keep(self, batch: Batch, costs: NDArray[np.int64]) -> NDArray[np.int64]:
        keys = self._keys_of(batch)
        kept = np.flatnonzero((keys > self._floor) & (costs <= self._limit))
        if len(kept):
            self._candidates.extend(kept + self._n_offered)
            self._keys.extend(keys[kept])
            self._costs.extend(costs[kept])
            self._total += int(costs[kept].sum())
            if len(self._keys) >= 2 * self.size or self._total >= 2 * self._limit:
                self._thin()
        return kept

    def _thin(self) -> None:
        """Turn away what there is no room for."""
        keys, costs = self._keys.values, self._costs.values
        n_gone = len(keys) - self.size
        if self._total > self._limit:
            order = np.argsort(-keys, kind="stable")
            fitting = np.searchsorted(np.cumsum(costs[order]), self._limit, side="right")
            n_gone = max(n_gone, len(keys) - int(fitting))
        if n_gone <= 0:
            return
        self._floor = float(np.partition(keys, n_gone - 1)[n_gone - 1])
        held = np.flatnonzero(keys > self._floor)
        for column in (self._candidates, self._keys, self._costs):
            column.keep(held)
        self._total = int(self._costs.values.sum())

    def _start_from(self, numbers: NDArray[np.int64]) -> None:
        self._floor = -math.inf
        held = np.searchsorted(self._candidates.values, numbers)
        self._hold(numbers, self._keys.values[held], self._costs.values[held])

    def _rest_of_state(self) -> State:
        return {"keys": self._keys.values.copy(), "floor": self._floor}

    def _resume(self, numbers: NDArray[np.int64], state: Any) -> None:
        keys, floor = np.array(state["keys"], np.float64), float(state["floor"])
        if keys.shape != numbers.shape or not np.isfinite(keys).all() or not (keys > floor).all():
            raise ValueError("its keys are not above their floor, or not as many as there are events")
        if (np.diff(numbers) <= 0).any():
            raise ValueError("its events are not in order")
        self._floor = floor
        self._hold(numbers, keys, self._store.costs())
