"""An e-detector: a false alarm at most every so often, whatever the values depend on."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Final, Literal, get_args

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Domain, Knob
from penstock.drift.sequential import Found, Sequential, require_count, require_number
from penstock.errors import ConfigError

__all__ = ["EDetector"]

Form = Literal["sr", "cusum"]


class EDetector(Sequential):
    """Alarms when bets against a mean of at most `mean` have paid, whenever they began.

    As long as each value's mean, given everything before it, is at most `mean`, the expected time to an
    alarm is at least `threshold` values: for any distribution on [0, 1] and any dependence, no simulation
    needed. It bounds how *often* false alarms come, not the chance of one. Only rises are alarms.

    Parameters
    ----------
    threshold : float
        The expected run length, at least.
    mean : float, in (0, 1), optional
        Bound on the mean while nothing has changed. Where not given it is learned from the first
        `reference` values after the start and after each alarm, as a bound that holds with probability
        1 - `risk` (Maurer and Pontil 2009); there is no alarm among those.
    reference : int
    risk : float, in (0, 1)
    form : "sr" or "cusum"
        Shiryaev and Roberts' recursion ``(M + 1) · L``, or ``max(M, 1) · L``; the first is the quicker one.

    Notes
    -----
    The mixture is over twelve bets, fractions 0.02 to 0.9 of the largest, and adds up *alarms that every bet
    could have given*: a bet that switched to whatever paid last would not be valid.

    References
    ----------
    Shin, Ramdas and Rinaldo (2022), E-detectors: a nonparametric framework for sequential change detection.

    Examples
    --------
    >>> EDetector(mean=0.2).update(np.repeat([0.1, 0.9], 1000))
    Drift(index=1007, before=0.09999999999999863, after=0.9000000000000001, width=8)
    """

    domain: ClassVar[Domain] = "unit"
    size: ClassVar[int] = native.E_DETECTOR
    knob: ClassVar[Knob] = Knob(name="threshold", start=100.0, loud=1.0, quiet=1e12, scale="log")

    def __init__(
        self,
        *,
        threshold: Annotated[float, Ge(1)] = 10_000.0,
        mean: Annotated[float, Gt(0), Lt(1)] | None = None,
        reference: Annotated[int, Ge(2)] = 2000,
        risk: Annotated[float, Gt(0), Lt(1)] = 0.01,
        form: Form = "sr",
    ) -> None:
        require_number("threshold", threshold, 1.0, 1e15, open_low=False)
        if mean is not None:
            require_number("mean", mean, 0.0, 1.0)
        require_count("reference", reference, 2)
        require_number("risk", risk, 0.0, 1.0)
        if form not in get_args(Form):
            raise ConfigError(f"form: expected 'sr' or 'cusum', got {form!r}")
        self.threshold: Final = threshold
        self.mean: Final = mean
        self.reference: Final = reference
        self._log_risk = math.log(2.0 / risk)
        self._sums = form == "sr"
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.e_detector(
            values,
            self._memory,
            self.threshold,
            self.mean or 0.0,
            self.reference,
            self._log_risk,
            self._sums,
        )
