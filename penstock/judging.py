"""By what losses are judged: which events count for a guard, and what a regression error is measured in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.config import GuardSpec
from penstock.errors import ConfigError
from penstock.events import Batch
from penstock.learners.base import Model
from penstock.state import State

__all__ = ["Ahead", "Guarded", "LabelScale"]

_SCALE_SDS: Final = 4.0  # a regression error of so many standard deviations of the label is a loss of 1


class Ahead:
    """What frozen models predict of events that come one tick after the other.

    A model does not change, so no event has to wait for its tick; and weights that lie all over memory are
    fetched once for many events.
    """

    def __init__(self, events: Batch) -> None:
        self._events = events
        self._made: dict[int, tuple[Model, int, NDArray[np.float64]]] = {}  # by the identity of the model

    def predict(self, model: Model, start: int, stop: int, until: int) -> NDArray[np.float64]:
        """Predict events ``start:stop``, and those before `until` at the same time if it is not yet done."""
        _, first, predictions = self._made.get(id(model), (model, 0, np.empty(0)))
        if first + len(predictions) < stop:
            first, predictions = start, model.predict(self._events.slice(start, max(stop, until)))
            self._made[id(model)] = model, first, predictions
        return predictions[start - first : stop - first]


class Guarded:
    """A second loss that the gate looks at: what it is of, and which events count."""

    def __init__(self, guard: GuardSpec) -> None:
        self.on = guard.on
        self._slice: tuple[int, float] | None = None
        if guard.slice is not None:
            *namespace, name = guard.slice.feature.split(".", 1)
            row: dict[str, Any] = {name: guard.slice.equals}
            if namespace:
                row = {namespace[0]: row}
            features = Batch.from_rows([row], [0.0]).features
            if len(features.indices) != 1:
                raise ConfigError(
                    f"`shadow.guards`: {guard.slice.equals!r} is no value that a slice can have"
                )
            self._slice = int(features.indices[0]), float(features.values[0])

    def outside(self, events: Batch) -> NDArray[np.bool_] | None:
        """Which events do not count, shape (n,); None if all of them do."""
        if self._slice is None:
            return None
        index, value = self._slice
        features = events.features
        found = np.flatnonzero((features.indices == index) & (features.values == value))
        outside = np.ones(len(events), dtype=np.bool_)
        outside[np.searchsorted(features.indptr, found, side="right") - 1] = False
        return outside


class LabelScale:
    """Running standard deviation of a regression label, held still during a tick (Welford 1962)."""

    def __init__(self) -> None:
        self._n = 0
        self._mean = 0.0
        self._m2 = 0.0
        self.value: float | None = None  # until the first tick has ended no loss can be put into [0, 1]

    def update(self, labels: NDArray[np.float64]) -> None:
        """Take the labels of events, in stream order."""
        for label in labels.tolist():
            self._n += 1
            off = label - self._mean
            self._mean += off / self._n
            self._m2 += off * (label - self._mean)

    def end_tick(self) -> None:
        """Take over what was learned of the label during the tick."""
        self.value = max(_SCALE_SDS * math.sqrt(self._m2 / self._n), 1e-12) if self._n else None

    def state(self) -> State:
        """Everything it knows."""
        return {"n": self._n, "mean": self._mean, "m2": self._m2, "value": self.value}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self._n, self._mean, self._m2 = int(state["n"]), float(state["mean"]), float(state["m2"])
        self.value = state["value"]
