"""Confidence sequences for means: intervals that may be looked at after every event.

A fixed-size interval that is looked at often enough excludes the truth some day. These hold at all times at
once, for outcomes that depend on the past in any way, and for a mean that drifts: what is covered is the
average of the conditional means so far.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.intervals import advance
from penstock.state import State

__all__ = ["Interval", "LowerBound", "boundary", "log_mixture"]

# The mixture is tightest around a summed variance of 20, for alpha = 0.025 on either side: off-policy
# outcomes, scaled by the largest weight, gather variance slowly.
_V_OPT: Final = 20.0
_TIGHTEST_ALPHA: Final = 0.025
_LOG: Final = 2.0 * math.log(1.0 / (2.0 * _TIGHTEST_ALPHA))
_RHO: Final = _V_OPT / (_LOG + math.log1p(_LOG))
_PRECISION: Final = 1e-12  # of a bound, relative to it
_CLOSE: Final = 1e-7  # a step of Newton's that is as small leaves its square over


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds on a number, or the reason why there are none.

    Attributes
    ----------
    lower, upper : float
        NaN where there are none.
    reason : str
        Why there are none; one sentence, empty where there are.

    Examples
    --------
    >>> 0.5 in Interval(0.25, 0.75)
    True
    >>> 0.5 in Interval.none("nothing was logged")
    False
    """

    lower: float
    upper: float
    reason: str = ""

    @classmethod
    def none(cls, reason: str) -> Interval:
        """Return no interval, and why."""
        return cls(math.nan, math.nan, reason)

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper

    @property
    def width(self) -> float:
        """Distance of the bounds; NaN where there are none."""
        return self.upper - self.lower


def log_mixture(
    total: NDArray[np.float64] | float, variance: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Logarithm of the gamma-exponential mixture of ``exp(l * total - psi(l) * variance)`` over l in [0, 1).

    Parameters
    ----------
    total : float64, shape (n,) or scalar
        Sum of differences from their conditional means, each at least -1 from its guess.
    variance : float64, shape (n,) or scalar
        Sum of squared distances from the guesses.

    Returns
    -------
    float64, shape (n,) or ()
        Log of an e-value: the probability that it ever reaches ``log(1 / alpha)`` is at most alpha. Far
        below the mean, where the closed form has no value, it is -inf, which is on the safe side.

    References
    ----------
    Howard, Ramdas, McAuliffe and Sekhon (2021), Time-uniform, nonparametric, nonasymptotic confidence
    sequences, Annals of Statistics 49(2) (arXiv:1810.08240), proposition 9 with c = 1.
    """
    a = np.asarray(variance, dtype=np.float64) + _RHO
    y = np.asarray(total, dtype=np.float64) + variance
    z = y + _RHO
    positive = np.where(z > 0.0, z, 1.0)
    with np.errstate(divide="ignore"):  # far below its mean the mixture is 0, and its logarithm -inf
        bulk = np.log(_special().gammainc(a, positive))
    log_m = _normaliser() + _special().gammaln(a) + bulk - a * np.log(positive) + y
    return np.where(z > 0.0, log_m, -np.inf)


@functools.cache
def _special() -> ModuleType:
    """Import what takes a tenth of a second once it is needed; whoever only imports this pays nothing."""
    return importlib.import_module("scipy.special")


@functools.cache
def _normaliser() -> float:
    return _RHO * math.log(_RHO) - math.lgamma(_RHO) - math.log(_special().gammainc(_RHO, _RHO))


_LARGEST_VARIANCE: Final = 1e12  # the mixture's terms are as large, and keep 16 digits


def boundary(variance: float, alpha: float) -> float:
    """Return the sum that is ever exceeded with probability at most `alpha`, given the summed variance.

    Infinite where the variance is so large (weights of millions) that rounding would decide.

    Examples
    --------
    >>> round(boundary(20.0, 0.025), 2)
    16.86
    """
    if not variance <= _LARGEST_VARIANCE:
        return math.inf
    threshold = math.log(1.0 / alpha)
    # What it would be for normal sums is close, on either side. The logarithm of a mixture of exponentials is
    # convex: Newton's first step leads above the root, and the others come down to it, until rounding is all
    # that is left of them.
    bound = math.sqrt(2.0 * (variance + _RHO) * (threshold + 0.5 * math.log1p(variance / _RHO)))
    log_m, slope = _log_mixture_at(bound, variance)
    bound -= (log_m - threshold) / slope
    log_m, slope = _log_mixture_at(bound, variance)
    last = math.inf
    while _PRECISION * bound < (step := (log_m - threshold) / slope) < last:
        bound -= step
        if step < _CLOSE * bound:
            break
        last = step
        log_m, slope = _log_mixture_at(bound, variance)
    return bound


def _log_mixture_at(total: float, variance: float) -> tuple[float, float]:
    """Return `log_mixture` of one positive sum, and its derivative, at a tenth of what the arrays cost."""
    a = variance + _RHO
    z = total + a
    log_gamma, log_z = math.lgamma(a), math.log(z)
    below = float(_special().gammainc(a, z))
    log_m = _normaliser() + log_gamma + math.log(below) - a * log_z + (z - _RHO)
    density = math.exp((a - 1.0) * log_z - z - log_gamma)
    return log_m, 1.0 - a / z + density / below


class LowerBound:
    """Lower confidence sequence for the average conditional mean of a stream of outcomes.

    Parameters
    ----------
    floor : float, >= 0
        No outcome is below ``-floor``; above, there need not be a limit.

    Notes
    -----
    Outcomes are divided by ``floor + 1``, and the running guess is kept at most ``1 / (floor + 1)``: none is
    further than 1 below its guess, which is all that the empirical-Bernstein supermartingale of Howard et
    al. (2021) asks for. Bounds are tight where means are at most 1.

    Examples
    --------
    >>> bound = LowerBound()
    >>> bound.update(np.full(1000, 0.5))
    >>> round(bound.value(alpha=0.025), 3)
    0.494
    """

    def __init__(self, floor: float = 0.0) -> None:
        if not 0.0 <= floor < math.inf:
            raise ValueError(f"expected a finite floor >= 0, got {floor}")
        self._scale = 1.0 / (floor + 1.0)
        self._sums = np.zeros(3)

    def update(self, outcomes: NDArray[np.float64]) -> None:
        """Take `outcomes`, shape (n,), in stream order."""
        advance(self._sums, outcomes, self._scale)

    @property
    def n_events(self) -> int:
        """Outcomes taken."""
        return int(self._sums[0])

    @property
    def mean(self) -> float:
        """Average of the outcomes taken; NaN before the first."""
        n, total, _ = self._sums.tolist()
        return float(total / (self._scale * n)) if n else math.nan

    def value(self, alpha: float) -> float:
        """Return the bound, which with probability ``1 - alpha`` is never too high; -inf at first."""
        n, total, variance = self._sums.tolist()
        if not n:
            return -math.inf
        return (total - boundary(variance, alpha)) / (self._scale * n)

    def log_e(self, mean: float) -> float:
        """Return the logarithm of the e-value against an average mean of at most `mean`."""
        n, total, variance = self._sums.tolist()
        return float(log_mixture(total - n * mean * self._scale, variance))

    def state(self) -> State:
        """Everything it knows."""
        return {"sums": self._sums.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from; the floor is the constructor's."""
        self._sums = np.array(state["sums"], dtype=np.float64)
