"""A detector that is given by how often it may ring falsely."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.drift import calibration
from penstock.drift.base import Detector, Domain, Drift, Knob
from penstock.drift.calibration import Series, Unreachable
from penstock.drift.cusum import CUSUM
from penstock.drift.e_detector import EDetector
from penstock.drift.sequential import checked, require_count, stored
from penstock.errors import ConfigError, StoreError
from penstock.state import State, prefixed, section

__all__ = ["Calibrated", "threshold_for"]

_REFERENCE: Final = 2000
_LEAST_REFERENCE: Final = 200


class _Tunable(Hashable, Protocol):
    domain: Domain
    knob: Knob

    def __call__(self, **parameters: Any) -> Detector: ...


class Calibrated:
    """Chooses the threshold of another detector so that it rings falsely once in `every` values.

    Parameters
    ----------
    detector : class
        It has a `penstock.drift.base.Knob`.
    parameters : mapping
        Its parameters, without the knob.
    every : int
        The run length wanted; see `penstock.drift.calibration`.
    series : str
        What it watches while nothing changes: ``own``, the default, learns that from the first 2000 values
        (``own:N``: from N), among which there is no alarm; the others are those of
        `penstock.drift.calibration.parse_series`. An e-detector needs to know nothing.

    Raises
    ------
    ConfigError
        If the detector has no knob, or is given its value too.

    Notes
    -----
    Values of its own are drawn again, one by one or, where they depend on each other, in blocks (bootstrap):
    that says nothing of what lies farther apart than a tenth of the reference. A reference that is constant
    says nothing at all: it waits for another. After an alarm the threshold stays; after a reset it is chosen
    anew.
    """

    def __init__(
        self, detector: _Tunable, parameters: Mapping[str, Any], *, every: int, series: str = "own"
    ) -> None:
        name = getattr(detector, "__name__", str(detector))
        knob = getattr(detector, "knob", None)
        if not isinstance(knob, Knob):
            raise ConfigError(f"false_alarm_every: {name} has no threshold to choose")
        if knob.name in parameters:
            raise ConfigError(f"{knob.name}: it follows from false_alarm_every; give one of the two")
        require_count("false_alarm_every", every, 100)
        self._class = detector
        self._domain: Domain = getattr(detector, "domain", "numbers")
        self._parameters = dict(parameters)
        self._every = every
        self._make(knob.start)  # refuses wrong parameters now
        own, _, size = series.partition(":")
        self._n_reference = 0
        self._series: Series | None = None
        if detector is not EDetector and own == "own":
            if size and not size.isdecimal():
                raise ConfigError(f"series: expected 'own' or 'own:N', got {series!r}")
            self._n_reference = int(size or _REFERENCE)
            require_count("series: own", self._n_reference, _LEAST_REFERENCE)
        elif detector is not EDetector:
            self._series = calibration.parse_series(series)
        self.reset()

    @property
    def threshold(self) -> float:
        """The value of the detector's knob; NaN while it is not known."""
        return self._threshold

    def _make(self, threshold: float) -> Detector:
        return self._class(**self._parameters, **{self._class.knob.name: threshold})

    def reset(self) -> None:
        """Forget everything, the threshold too."""
        self._detector: Detector | None = None
        self._threshold = math.nan
        self._n = 0  # values of the reference that were taken
        self._reference = np.zeros(self._n_reference)

    def update(self, values: NDArray[np.float64]) -> Drift | None:
        """Take all `values`, shape (n,), in stream order; return the first alarm among them.

        Raises
        ------
        BadRecord
            Names the first value that the detector cannot take; none has been taken then.
        """
        values = checked(values, self._domain)
        taken = 0
        while self._detector is None:
            part = values[taken : taken + self._n_reference - self._n]
            self._reference[self._n : self._n + len(part)] = part
            self._n += len(part)
            taken += len(part)
            if self._n < self._n_reference:
                return None
            if self._n and self._reference.min() == self._reference.max():
                self._n = 0
                self._reference[:] = 0.0
                continue
            self._calibrate()
        if taken == len(values):
            return None
        found = self._detector.update(values[taken:])
        return None if found is None else replace(found, index=found.index + taken)

    def _calibrate(self) -> None:
        series = self._series or (calibration.from_reference(self._reference) if self._n else None)
        try:
            self._threshold = threshold_for(self._class, self._parameters, self._every, series)
        except Unreachable as error:
            if self._series is not None:
                raise
            self._threshold = error.nearest  # of a stream under way, the best there is
        self._detector = self._make(self._threshold)

    def state(self) -> State:
        """Everything needed to resume: the reference, the threshold, and the detector's own state."""
        state: State = {"n": self._n, "reference": self._reference.copy(), "threshold": self._threshold}
        if self._detector is not None:
            state |= prefixed(self._detector.state(), "detector")
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of such a detector; nothing has changed then.
        """
        n, threshold = state.get("n"), state.get("threshold")
        reference = stored(state, "reference", self._n_reference, "Calibrated")
        if not isinstance(n, int) or not 0 <= n <= self._n_reference or not isinstance(threshold, float):
            raise StoreError(f"Calibrated state: n = {n!r} and threshold = {threshold!r} do not fit")
        detector = None
        if not math.isnan(threshold):
            try:
                detector = self._make(threshold)
            except ConfigError as error:
                raise StoreError(f"Calibrated state: {error}") from error
            detector.restore(section(state, "detector"))
        self._n, self._reference, self._threshold, self._detector = n, reference, threshold, detector


def threshold_for(
    detector: _Tunable, parameters: Mapping[str, Any], every: int, series: Series | None
) -> float:
    """Return the value of a detector's knob for one false alarm in `every` values of `series`.

    In closed form where there is one: for an e-detector, where it is a bound (and the series makes no
    difference), and for a CUSUM of normal values with known mean and deviation. Simulated otherwise.

    Raises
    ------
    Unreachable
        If no value gives this run length.
    """
    if detector is EDetector:
        return float(every)
    if series is None:
        raise ConfigError("series: expected one, to simulate")
    if (
        detector is CUSUM
        and series.name == "gaussian"
        and (parameters.get("mean"), parameters.get("sd")) == (0, 1)
    ):
        return _siegmund_threshold(
            parameters.get("slack", 0.25), every, parameters.get("direction") or "both"
        )
    return _simulated(detector, json.dumps(dict(parameters), sort_keys=True), every, series)


@functools.lru_cache(maxsize=256)
def _simulated(detector: _Tunable, parameters: str, every: int, series: Series) -> float:
    given = json.loads(parameters)
    return calibration.calibrated(
        lambda value: detector(**given, **{detector.knob.name: value}), detector.knob, every, series
    )


def _siegmund_threshold(slack: float, every: int, direction: str) -> float:
    low, high = 0.0, 1.0
    while calibration.siegmund(high, slack, two_sided=direction == "both") < every:
        high *= 2.0
    for _ in range(100):
        middle = (low + high) / 2.0
        if calibration.siegmund(middle, slack, two_sided=direction == "both") < every:
            low = middle
        else:
            high = middle
    return high
