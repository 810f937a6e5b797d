"""DDM: the error rate against the lowest that it has been."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Domain, Knob
from penstock.drift.sequential import Found, Sequential, require_count, require_number

__all__ = ["DDM"]


class DDM(Sequential):
    """Alarms when the mean rises `threshold` standard errors above the lowest mean so far.

    With ``longest=None`` alarms are those of River's ``drift.binary.DDM``. It takes any loss in
    [0, 1], whose deviation it then overestimates.

    Parameters
    ----------
    threshold : float
        In standard errors at the lowest mean. The larger, the fewer false alarms and the longer the delay.
    warm_up : int
        Values after an alarm before the next one can be.
    longest : int, optional
        Start afresh after so many values without an alarm; None, as its paper has it, for never. An average
        over everything goes deaf in time, and its run length has no mean.

    References
    ----------
    Gama, Medas, Castillo and Rodrigues (2004), Learning with drift detection, SBIA 286-295.

    Examples
    --------
    >>> DDM().update(np.tile(np.repeat([0.0, 1.0], [4, 1]), 100)) is None
    True
    """

    domain: ClassVar[Domain] = "unit"
    size: ClassVar[int] = native.DDM
    knob: ClassVar[Knob] = Knob(name="threshold", start=1.5, loud=0.05, quiet=60.0, scale="linear")

    def __init__(
        self,
        *,
        threshold: Annotated[float, Gt(0)] = 3.0,
        warm_up: Annotated[int, Ge(1)] = 30,
        longest: Annotated[int, Ge(1)] | None = 10_000,
    ) -> None:
        require_number("threshold", threshold, 0.0)
        require_count("warm_up", warm_up, 1)
        self.threshold: Final = threshold
        if longest is not None:
            require_count("longest", longest, 1)
        self.warm_up: Final = warm_up
        self.longest: Final = longest
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.ddm(values, self._memory, self.threshold, self.warm_up, self.longest or -1)
