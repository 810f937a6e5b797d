"""What a drift detector is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock.state import State

__all__ = ["Detector", "Drift"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """An alarm, with what made it ring.

    Attributes
    ----------
    index : int
        Which of the values handed to `Detector.update` raised it.
    before, after : float
        Mean of the watched number on either side of the change, as far as the detector knows them.
    width : int
        How many of the newest values the detector takes for the new state of the world.
    """

    index: int
    before: float
    after: float
    width: int


@runtime_checkable
class Detector(Protocol):
    """Watches one stream of numbers. Everything it knows is in `state()`.

    Built with ``Class(**parameters)``; the annotations of the constructor are its schema.
    """

    def update(self, values: NDArray[np.float64]) -> Drift | None:
        """Take all `values`, shape (n,), in stream order; return the first alarm among them.

        The detector goes on after an alarm: later values of the same call are taken too.
        """
        ...

    def reset(self) -> None:
        """Forget everything, as after a reaction that changed what is watched."""
        ...

    def state(self) -> State:
        """Everything needed to resume *after* the last value taken."""
        ...

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        ...
