"""HDDM-A: two running means and Hoeffding's bounds on them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Domain, Knob
from penstock.drift.sequential import Direction, Found, Sequential, directions, require_count, require_number

__all__ = ["HDDMA"]


class HDDMA(Sequential):
    """Alarms when the mean of everything has left the lowest (or highest) mean so far behind for certain.

    With ``longest=None`` alarms are those of River's ``drift.binary.HDDMA``, which sees rises
    only (``direction="up"``) unless its test is two-sided (``"both"``).
    Values in [0, 1]; made for abrupt changes.

    Parameters
    ----------
    confidence : float, in (0, 1)
        Of a single look: the smaller, the fewer false alarms and the longer the delay.
    direction : "both", "up" or "down"
        Of the changes that are alarms.
    longest : int, optional
        Start afresh after so many values without an alarm; None, as its paper has it, for never. An average
        over everything goes deaf in time, and its run length has no mean.

    References
    ----------
    Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz and Caballero-Mota (2015), Online
    and non-parametric drift detection methods based on Hoeffding's bounds, IEEE TKDE 27, 810-823.

    Examples
    --------
    >>> HDDMA().update(np.repeat([0.0, 1.0], 1000))
    Drift(index=1003, before=0.0, after=1.0, width=4)
    """

    domain: ClassVar[Domain] = "unit"
    size: ClassVar[int] = native.HDDM_A
    knob: ClassVar[Knob] = Knob(name="confidence", start=0.3, loud=0.999999, quiet=1e-100, scale="log")

    def __init__(
        self,
        *,
        confidence: Annotated[float, Gt(0), Lt(1)] = 0.001,
        direction: Direction = "up",
        longest: Annotated[int, Ge(1)] | None = 10_000,
    ) -> None:
        require_number("confidence", confidence, 0.0, 1.0)
        if longest is not None:
            require_count("longest", longest, 1)
        self.confidence: Final = confidence
        self.longest: Final = longest
        self._directions = directions(direction)
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.hddm_a(values, self._memory, self.confidence, self._directions, self.longest or -1)
