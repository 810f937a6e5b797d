"""STEPD: the share of recent errors against that of all older ones."""

from __future__ import annotations

from statistics import NormalDist
from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Domain, Knob
from penstock.drift.sequential import (
    Direction,
    Found,
    Sequential,
    directions,
    require_count,
    require_number,
    stored,
)
from penstock.state import State

__all__ = ["STEPD"]

_LEAST_ALPHA: Final = 1e-300  # of smaller ones the normal quantile is not known


class STEPD(Sequential):
    """Alarms when the last `recent` values and all older ones are, by a z-test, of different proportions.

    The test has a correction for continuity. Its paper looks at every value with ``alpha=0.003``, which
    rings falsely 3 times in 10 000 events; the default here is smaller. It takes any loss in [0, 1], whose
    deviation it then overestimates.

    Parameters
    ----------
    alpha : float, in (0, 1)
        Level of one (two-sided) test: the smaller, the fewer false alarms and the longer the delay.
    recent : int
        Values that count as recent; the first test is made when there are as many older ones.
    direction : "both", "up" or "down"
        Of the changes that are alarms.

    References
    ----------
    Nishida and Yamauchi (2007), Detecting concept drift using statistical testing, Discovery Science 264-269.

    Examples
    --------
    >>> STEPD().update(np.repeat([0.0, 1.0], 1000))
    Drift(index=1001, before=0.0, after=0.06666666666666667, width=30)
    """

    domain: ClassVar[Domain] = "unit"
    size: ClassVar[int] = native.STEPD
    knob: ClassVar[Knob] = Knob(name="alpha", start=0.05, loud=0.999, quiet=1e-200, scale="log")

    def __init__(
        self,
        *,
        alpha: Annotated[float, Gt(0), Lt(1)] = 0.0001,
        recent: Annotated[int, Ge(2)] = 30,
        direction: Direction = "up",
    ) -> None:
        require_number("alpha", alpha, _LEAST_ALPHA, 1.0)
        require_count("recent", recent, 2)
        self.alpha: Final = alpha
        self.recent: Final = recent
        self._critical = -NormalDist().inv_cdf(alpha / 2.0)
        self._directions = directions(direction)
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.stepd(values, self._memory, self._window, self._critical, self._directions)

    def reset(self) -> None:
        """Forget everything, as after a reaction that changed what is watched."""
        super().reset()
        self._window = np.zeros(self.recent)

    def state(self) -> State:
        """Everything needed to resume: ``memory``, and ``window``, the recent values in a ring."""
        return {**super().state(), "window": self._window.copy()}

    def restore(self, state: State) -> None:
        """Become what `state` was taken from; raises as `Sequential.restore`."""
        memory, window = self._stored_memory(state), stored(state, "window", self.recent, "STEPD")
        self._memory, self._window = memory, window
