"""Page and Hinkley's test: how far the deviations from the running mean have added up."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Knob
from penstock.drift.sequential import Direction, Found, Sequential, directions, require_count, require_number
from penstock.errors import ConfigError

__all__ = ["PageHinkley"]


class PageHinkley(Sequential):
    """Alarms when the deviations from the mean so far, less `delta` each, have added up to `threshold`.

    Alarms are those of River's ``drift.PageHinkley``. Both parameters are in the units of what is watched:
    the defaults, which are River's, suit nothing in particular. Give it by its run length.

    Parameters
    ----------
    threshold : float
        The larger, the fewer false alarms and the longer the delay.
    delta : float
        Deviations up to this are let pass: half of the smallest shift worth an alarm.
    alpha : float, in (0, 1]
        What is left of a sum at each value.
    warm_up : int
        No alarm before so many values.
    direction : "both", "up" or "down"
        Of the changes that are alarms.

    References
    ----------
    Page (1954), Continuous inspection schemes, Biometrika 41, 100-115.

    Examples
    --------
    >>> PageHinkley(threshold=20).update(np.repeat([0.0, 1.0], 1000))
    Drift(index=1020, before=0.0, after=1.0, width=21)
    """

    size: ClassVar[int] = native.PAGE_HINKLEY
    knob: ClassVar[Knob] = Knob(name="threshold", start=1.0, loud=1e-6, quiet=1e9, scale="linear")

    def __init__(
        self,
        *,
        threshold: Annotated[float, Gt(0)] = 50.0,
        delta: Annotated[float, Ge(0)] = 0.005,
        alpha: Annotated[float, Gt(0), Le(1)] = 0.9999,
        warm_up: Annotated[int, Ge(1)] = 30,
        direction: Direction = "both",
    ) -> None:
        require_number("threshold", threshold, 0.0)
        require_number("delta", delta, 0.0, open_low=False)
        if not 0 < alpha <= 1:
            raise ConfigError(f"alpha: expected a number in (0, 1], got {alpha!r}")
        require_count("warm_up", warm_up, 1)
        self.threshold: Final = threshold
        self.delta: Final = delta
        self.alpha: Final = alpha
        self.warm_up: Final = warm_up
        self._directions = directions(direction)
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.page_hinkley(
            values, self._memory, self.delta, self.threshold, self.alpha, self.warm_up, self._directions
        )
