"""HDDM-W: two fading means and McDiarmid's bounds on them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Gt, Lt
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Domain, Knob
from penstock.drift.sequential import Direction, Found, Sequential, directions, require_number

__all__ = ["HDDMW"]


class HDDMW(Sequential):
    """Alarms when the fading mean since a cut has left the one before the cut behind for certain.

    Alarms are those of River's ``drift.binary.HDDMW``, which sees rises only (``direction="up"``) unless
    its test is two-sided (``"both"``). Values in [0, 1]; quick, and made for gradual changes.

    Parameters
    ----------
    confidence : float, in (0, 1)
        Of a single look: the smaller, the fewer false alarms and the longer the delay.
    fading : float, in (0, 1)
        Weight of the newest value in the means.
    direction : "both", "up" or "down"
        Of the changes that are alarms.

    References
    ----------
    Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz and Caballero-Mota (2015), Online
    and non-parametric drift detection methods based on Hoeffding's bounds, IEEE TKDE 27, 810-823.

    Examples
    --------
    >>> HDDMW().update(np.repeat([0.0, 1.0], 1000)).index
    1010
    """

    domain: ClassVar[Domain] = "unit"
    size: ClassVar[int] = native.HDDM_W
    knob: ClassVar[Knob] = Knob(name="confidence", start=0.3, loud=0.999999, quiet=1e-100, scale="log")

    def __init__(
        self,
        *,
        confidence: Annotated[float, Gt(0), Lt(1)] = 0.001,
        fading: Annotated[float, Gt(0), Lt(1)] = 0.05,
        direction: Direction = "up",
    ) -> None:
        require_number("confidence", confidence, 0.0, 1.0)
        require_number("fading", fading, 0.0, 1.0)
        self.confidence: Final = confidence
        self.fading: Final = fading
        self._directions = directions(direction)
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.hddm_w(values, self._memory, self.confidence, self.fading, self._directions)
