"""What a replay buffer has to do; and what one has to that draws by the losses."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock.events import Batch
from penstock.state import State

__all__ = ["Buffer", "WeighingBuffer"]


@runtime_checkable
class Buffer(Protocol):
    """Keeps some of the events offered to it. Everything it knows is in `state()`.

    Built with ``Class(seed=…, **parameters)``; the annotations of the constructor are its schema. What it
    keeps and draws depends on its seed, the events and the calls of `sample`, never on how the events were
    cut into batches. A class attribute ``needs_classes = True`` refuses it for a regression.
    """

    def __len__(self) -> int:
        """Events held."""
        ...

    @property
    def n_offered(self) -> int:
        """Events offered so far."""
        ...

    def offer(self, batch: Batch) -> None:
        """Take what is to be kept of `batch`, whose labels are numbers; copies it."""
        ...

    def sample(self, n: int) -> Batch | None:
        """Draw `n` different events (all there are, if fewer) in random order; None if there are none.

        Weights are those of the events, times what makes up for drawing some more often than others.
        """
        ...

    def contents(self, since: int = 0) -> Batch | None:
        """Every event held, the oldest first, but none of the first `since` offered; None if none is left."""
        ...

    def forget(self, before: int) -> None:
        """Drop every event that was offered as one of the first `before`."""
        ...

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        ...

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        ...


@runtime_checkable
class WeighingBuffer(Protocol):
    """A buffer that draws what is predicted badly more often. It may draw an event more than once."""

    def weigh(self, losses: NDArray[np.float64]) -> None:
        """Take the losses, in [0, 1], of the newest events offered, in stream order."""
        ...

    def reweigh(self, losses: NDArray[np.float64]) -> None:
        """Take the losses of the events that `sample` drew last, in their order."""
        ...
