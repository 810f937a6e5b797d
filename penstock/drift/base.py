"""What a drift detector is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock.events import Batch
from penstock.state import State

__all__ = ["LARGEST", "Change", "Detector", "Domain", "Drift", "InputDetector", "Knob", "Shift"]

LARGEST: Final = 1e100  # a value's magnitude: squares of larger ones are not numbers any more

Domain: TypeAlias = Literal["numbers", "unit", "bits", "inputs"]
"""What a detector can be fed: any number, numbers in [0, 1], 0 and 1; or whole events (`InputDetector`)."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How the distribution of one feature changed.

    Attributes
    ----------
    feature : str
        Its name, with dots between its levels.
    where : str
        The part of its values whose share changed the most: ``<= 31.5`` or ``= 'SE'``; or ``on average``.
    before, after : float
        That share, in [0, 1]; or the average, where an event without the feature counts as 0.
    test : "ks", "g" or "z"
        Kolmogorov and Smirnov's for continuous numbers; the likelihood-ratio test of a contingency table (G)
        for categories and for numbers of few distinct values; the difference of averages in standard errors.
    statistic : float
    p_value : float
        Of this feature alone, without regard to how many there are.
    psi : float or None
        Population stability index, over ten intervals of equal share before, or over the categories; None
        of an average.
    psi_by_chance : float or None
        What it would be on average if nothing had changed: it depends on how many events were compared.
    """

    feature: str
    where: str
    before: float
    after: float
    test: Literal["ks", "g", "z"]
    statistic: float
    p_value: float
    psi: float | None = None
    psi_by_chance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An alarm about the events themselves: their features are not distributed as they were.

    It needs no labels, so it cannot tell whether a model is any worse: it means *look*, never *promote*.

    Attributes
    ----------
    index : int
        Which event of the batch raised it.
    statistic, threshold : float
        What was compared, in the detector's own terms.
    width : int
        How many of the newest events the detector takes for the new state of the world.
    shifts : tuple of Shift
        The features that changed, the clearest first; at least one.
    """

    index: int
    statistic: float
    threshold: float
    width: int
    shifts: tuple[Shift, ...]


@runtime_checkable
class InputDetector(Protocol):
    """Watches whole events, without their labels. Everything it knows is in `state()`.

    Built with ``Class(**parameters)``; the annotations of the constructor are its schema, and its `domain` is
    ``inputs``.
    """

    def update(self, batch: Batch) -> Change | None:
        """Take all events of `batch`, in stream order; return the first alarm among them.

        The detector goes on after an alarm: later events of the same batch are taken too.
        """
        ...

    def reset(self) -> None:
        """Forget everything, as before the first event."""
        ...

    def state(self) -> State:
        """Everything needed to resume *after* the last event taken."""
        ...

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        ...
