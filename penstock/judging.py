"""By what losses are judged: which events count for a guard, and what a regression error is measured in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.config import GuardSpec
from penstock.errors import ConfigError
from penstock.events import Batch, Task
from penstock.learners.base import Model
from penstock.metrics import LossKind, bounded_losses
from penstock.state import State

__all__ = ["Ahead", "Judge"]

_KINDS: Final[Mapping[str, LossKind]] = {"error": "error", "logloss": "logloss"}

_SCALE_SDS: Final = 4.0  # a regression error of so many standard deviations of the label is a loss of 1


class _Guarded:
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


class _LabelScale:
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


class Judge:
    """Turns predictions into losses in [0, 1].

    Parameters
    ----------
    task : Task
    guards : sequence of GuardSpec
        What the gate looks at besides the loss.
    """

    def __init__(self, task: Task, guards: Sequence[GuardSpec] = ()) -> None:
        self._task = task
        self._guards = [_Guarded(guard) for guard in guards]
        self._scale = _LabelScale()

    @property
    def is_ready(self) -> bool:
        """Whether it can tell a loss: of numbers, once a tick has shown how far they are apart."""
        return self._task.kind != "regression" or self._scale.value is not None

    def losses(self, predictions: NDArray[np.float64], batch: Batch, on: str = "loss") -> NDArray[np.float64]:
        """Brier, or absolute against the label's scale; or errors or log loss, of classes. Shape (n,)."""
        kind = _KINDS.get(on) if self._task.kind != "regression" else None
        scale = self._scale.value or 1.0
        return bounded_losses(self._task, predictions, batch.labels, kind=kind, scale=scale)

    def frozen(self, model: Model, events: Batch) -> NDArray[np.float64]:
        """Losses of a frozen model, shape (1 + guards, n): NaN where an event is none of a guard's."""
        predictions = model.predict(events)
        of_all = self.losses(predictions, events)
        if not self._guards:
            return of_all[np.newaxis]
        losses = np.empty((1 + len(self._guards), len(events)))
        losses[0] = of_all
        for values, guarded in zip(losses[1:], self._guards, strict=True):
            values[:] = self.losses(predictions, events, guarded.on)
            outside = guarded.outside(events)
            if outside is not None:
                values[outside] = np.nan
        return losses

    def update(self, events: Batch) -> None:
        """Learn from the labels of events, in stream order, how far apart they are."""
        if self._task.kind == "regression":
            self._scale.update(events.labels)

    def end_tick(self) -> None:
        """Judge by all that was learned of the labels from here on."""
        self._scale.end_tick()

    def state(self) -> State:
        """Everything it knows."""
        return self._scale.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self._scale.restore(state)


class Ahead:
    """What frozen models lose on events that come one tick after the other.

    A model does not change, so no event has to wait for its tick; and weights that lie all over memory are
    fetched once for many events.

    Parameters
    ----------
    events : Batch
    judge : Judge
    """

    def __init__(self, events: Batch, judge: Judge) -> None:
        self._events = events
        self._judge = judge
        self._known: dict[int, tuple[Model, int, int, NDArray[np.float64]]] = {}  # by the model's identity
        self._asked = 0, len(events), events  # what was last judged: one model after the other, as a rule

    def losses(self, model: Model, start: int, stop: int, until: int) -> NDArray[np.float64]:
        """Losses on events ``start:stop``, shape (1 + guards, n); all up to `until` are judged at one go."""
        _, first, last, losses = self._known.get(id(model)) or (model, start, start, None)
        if losses is None or not first <= start <= stop <= last:
            first, last = start, min(until, len(self._events))
            if self._asked[:2] != (first, last):
                self._asked = first, last, self._events.slice(first, last)
            losses = self._judge.frozen(model, self._asked[2])
            # What is known of earlier events only is let go of, and with it a model that may serve no more.
            self._known = {key: known for key, known in self._known.items() if known[2] > start}
            self._known[id(model)] = model, first, last, losses
        return losses[:, start - first : stop - first]
