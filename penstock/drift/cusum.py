"""CUSUM: standardised deviations from the mean, added up while they point one way."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Knob
from penstock.drift.sequential import Direction, Found, Sequential, directions, require_count, require_number
from penstock.errors import ConfigError

__all__ = ["CUSUM"]

_UNLIKELY: Final = 5.0  # standard deviations that the first value counts which differs from a constant


class CUSUM(Sequential):
    """Tabular CUSUM of z-scores: alarms when those of one sign, less `slack` each, have added up.

    Where mean and standard deviation are not given it is self-starting: each value is standardised by those
    of all values before it since the last alarm. For independent normal values with known mean and
    deviation the run length has a closed form; see `penstock.drift.calibration.siegmund`.

    Parameters
    ----------
    threshold : float
        In standard deviations. The larger, the fewer false alarms and the longer the delay.
    slack : float
        In standard deviations: half of the smallest shift worth an alarm.
    mean, sd : float, optional
        Of the values while nothing has changed; both or neither.
    warm_up : int
        Where they are not given: values to learn them from before the first is judged.
    direction : "both", "up" or "down"
        Of the changes that are alarms.

    References
    ----------
    Page (1954), Continuous inspection schemes, Biometrika 41, 100-115; Hawkins (1987), Self-starting CUSUM
    charts for location and scale, The Statistician 36, 299-315.

    Examples
    --------
    >>> CUSUM(mean=0.0, sd=1.0).update(np.repeat([0.0, 1.0], 1000))
    Drift(index=1026, before=0.0, after=1.0, width=27)
    """

    size: ClassVar[int] = native.CUSUM
    knob: ClassVar[Knob] = Knob(name="threshold", start=2.0, loud=1e-6, quiet=1e6, scale="linear")

    def __init__(
        self,
        *,
        threshold: Annotated[float, Gt(0)] = 20.0,
        slack: Annotated[float, Ge(0)] = 0.25,
        mean: float | None = None,
        sd: Annotated[float, Gt(0)] | None = None,
        warm_up: Annotated[int, Ge(2)] = 100,
        direction: Direction = "both",
    ) -> None:
        require_number("threshold", threshold, 0.0)
        require_number("slack", slack, 0.0, open_low=False)
        require_count("warm_up", warm_up, 2)
        if (mean is None) != (sd is None):
            raise ConfigError(f"mean and sd: expected both or neither, got {mean!r} and {sd!r}")
        if mean is not None and sd is not None:
            require_number("mean", mean, -1e100)
            require_number("sd", sd, 1e-100)
        self.threshold: Final = threshold
        self.slack: Final = slack
        self.mean: Final = mean
        self.sd: Final = sd
        self.warm_up: Final = warm_up
        self.direction: Final = direction
        self._directions = directions(direction)
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.cusum(
            values,
            self._memory,
            self.slack,
            self.threshold,
            self.mean or 0.0,
            self.sd or 0.0,
            self.warm_up,
            _UNLIKELY,
            self._directions,
        )
