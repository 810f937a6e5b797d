"""What a drift detector is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock.state import State

__all__ = ["LARGEST", "Detector", "Domain", "Drift", "Knob"]

LARGEST: Final = 1e100  # a value's magnitude: squares of larger ones are not numbers any more

Domain: TypeAlias = Literal["numbers", "unit", "bits"]
"""What a detector can be fed: any number, numbers in [0, 1], or 0 and 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """The one parameter that decides how often a detector rings falsely.

    A detector that has one, as the class attribute ``knob``, can be given by its expected run length instead
    (`penstock.drift.calibration`).

    Attributes
    ----------
    name : str
        The constructor's keyword.
    start : float
        A value that rings often: the search for another begins there.
    loud, quiet : float
        The search goes no further than this, towards more alarms and towards fewer.
    scale : "linear" or "log"
        Whether the logarithm of the run length grows with the value or with its logarithm.
    cost : int
        What a value costs, as a multiple of what it costs most detectors (20 ns).
    """

    name: str
    start: float
    loud: float
    quiet: float
    scale: Literal["linear", "log"]
    cost: int = 1


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
