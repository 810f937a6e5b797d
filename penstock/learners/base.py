"""The two protocols of everything that learns from labels: `Learner` (changes) and `Model` (frozen).

A learner is built with ``Class(task, seed=…, **parameters)``. The annotations of its constructor are its
configuration schema: ``Annotated[float, Gt(0)]`` from `annotated_types` gives the range, ``Literal`` the
choices, and the default is the default in the YAML too.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock.events import Batch, Row
from penstock.state import State

__all__ = ["Consolidates", "Hastens", "Learner", "Model"]


@runtime_checkable
class Model(Protocol):
    """An immutable predictor: what is compared in shadow, stored in a snapshot, and serves.

    Predictions are shaped as `penstock.events.Task` says; the K of a multiclass model is the number of
    classes it knew when it was frozen. A model can be shared by threads.
    """

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event of `batch`; labels are not looked at."""
        ...

    def predict_one(self, row: Row) -> NDArray[np.float64] | float:
        """Predict one dict: a float, or an array of shape (K,) for multiclass."""
        ...

    def state(self) -> State:
        """Everything that ``Learner.load`` needs, for a snapshot."""
        ...


@runtime_checkable
class Learner(Protocol):
    """Learns from every event, one after the other. Owned by the engine; not shared between threads.

    However a stream is cut into batches, the state after it is the same, to the bit. Events whose
    weight is 0 are predicted and change nothing.

    A class whose `learn` wants only `Batch.features`, `labels` and `weights` may say so with the class
    attribute ``reads_rows = False``: then rows need not be kept to be replayed to it.
    """

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event with what is known now. Changes nothing."""
        ...

    def learn(self, batch: Batch) -> None:
        """Learn every event, in order."""
        ...

    def progress(self, batch: Batch) -> NDArray[np.float64]:
        """For each event in order: predict it, then learn it. Returns the predictions."""
        ...

    def freeze(self) -> Model:
        """Return a model of what is known now, that later learning does not touch."""
        ...

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened; shares no memory with the learner."""
        ...

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        ...

    @staticmethod
    def load(state: dict[str, Any]) -> Model:
        """Rebuild a frozen model from `Model.state`; arrays may be read-only memory maps.

        Raises
        ------
        UntrustedState
            If the state has an opaque entry that would have to be unpickled and is not trusted.
        """
        ...


@runtime_checkable
class Hastens(Protocol):
    """A learner whose step sizes shrink with what it has seen, and that can let them grow again."""

    @property
    def hastens(self) -> bool:
        """Whether it can, as it was built."""
        ...

    def hasten(self, factor: float) -> None:
        """Learn faster from here on: as if only `factor`, in (0, 1], of the evidence had been seen.

        Predictions are the same until the next event is learned.
        """
        ...


@runtime_checkable
class Consolidates(Protocol):
    """A learner that can hold on to what it knew when a snapshot of it began to serve."""

    @property
    def consolidates(self) -> bool:
        """Whether it waits to be told, as it was built."""
        ...

    def consolidate(self, model: Model) -> None:
        """Hold on to `model`, a snapshot of this very learner: it was promoted, or serves again.

        Predictions are the same until the next event is learned.
        """
        ...
