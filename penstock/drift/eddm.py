"""EDDM: how far errors lie apart, against the farthest that they have."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Domain, Knob
from penstock.drift.sequential import Found, Sequential, require_count, require_number

__all__ = ["EDDM"]


class EDDM(Sequential):
    """Alarms when the gaps between errors have become much shorter than the longest that they were.

    With ``longest=None`` alarms are those of River's ``drift.binary.EDDM`` with ``beta=threshold``.
    The paper's threshold of 0.9 rings falsely every few hundred events (19 times in 10 000); ours is lower.
    Errors only: 0 and 1.

    Parameters
    ----------
    threshold : float, in (0, 1)
        Share of the largest mean gap plus two deviations below which it rings. The *smaller*, the fewer
        false alarms and the longer the delay.
    warm_up : int
        Errors before the first alarm, and events before gaps are compared.
    longest : int, optional
        Start afresh after so many values without an alarm; None, as its paper has it, for never. An average
        over everything goes deaf in time, and its run length has no mean.

    References
    ----------
    Baena-García, del Campo-Ávila, Fidalgo, Bifet, Gavaldà and Morales-Bueno (2006), Early drift detection
    method, 4th workshop on knowledge discovery from data streams.

    Examples
    --------
    >>> errors = np.tile(np.repeat([0.0, 1.0], [9, 1]), 100)
    >>> EDDM().update(np.concatenate((errors, np.ones(500))))
    Drift(index=1480, before=0.1329479768786127, after=1.0, width=443)
    """

    domain: ClassVar[Domain] = "bits"
    size: ClassVar[int] = native.EDDM
    knob: ClassVar[Knob] = Knob(name="threshold", start=0.9, loud=0.99, quiet=0.01, scale="linear")

    def __init__(
        self,
        *,
        threshold: Annotated[float, Gt(0), Lt(1)] = 0.6,
        warm_up: Annotated[int, Ge(1)] = 30,
        longest: Annotated[int, Ge(1)] | None = 10_000,
    ) -> None:
        require_number("threshold", threshold, 0.0, 1.0)
        require_count("warm_up", warm_up, 1)
        self.threshold: Final = threshold
        if longest is not None:
            require_count("longest", longest, 1)
        self.warm_up: Final = warm_up
        self.longest: Final = longest
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.eddm(values, self._memory, self.threshold, self.warm_up, self.longest or -1)
