"""Sequential tests on paired losses: evidence that may be looked at after every event, and acted upon.

Gains are differences of two losses in [0, 1] on the same event, both computed before its label was learned
by either model; they are taken in stream order, whatever the batches they come in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.gate import GAMBLERS, fade, log_mixture, log_wealth, multiply_bets
from penstock._native.intervals import running_sum
from penstock.bandits.intervals import Interval, LowerBound
from penstock.state import State, prefixed, section

__all__ = ["ChangeGate", "Fading", "Gate"]

_SMALLEST_BET: Final = 0.002
_RECENT: Final = 1.0 - 1.0 / 512  # what has to hold still, not only on average since the start
_SPACING: Final = 512  # events between two starts of a `ChangeGate`
_MAX_STARTS: Final = 8  # the first and the newest seven


class Fading:
    """Mean of a stream of numbers in which older ones count exponentially less (Gama et al. 2013)."""

    def __init__(self, decay: float = _RECENT) -> None:
        self._decay = decay
        self._total = 0.0
        self._weight = 0.0

    def update(self, values: NDArray[np.float64]) -> None:
        """Take `values`, shape (n,), in stream order."""
        self._total, self._weight = fade(self._total, self._weight, self._decay, values)

    @property
    def mean(self) -> float:
        """The fading mean; NaN before the first value."""
        return self._total / self._weight if self._weight else math.nan

    def state(self) -> State:
        """Everything it knows."""
        return {"total": self._total, "weight": self._weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self._total, self._weight = float(state["total"]), float(state["weight"])


@lru_cache(maxsize=64)
def _bets(delta: float) -> NDArray[np.float64]:
    """Return the fractions that are bet on ``gain - delta``.

    A factor is at least ``1 - 0.5 (1 + delta) / (1 + |delta|) >= 0.5``: one bad event ruins nobody.
    """
    if not -1.0 < delta < 1.0:
        raise ValueError(f"expected delta in (-1, 1), got {delta}")
    bets = np.geomspace(_SMALLEST_BET, 0.5 / (1.0 + abs(delta)), GAMBLERS)
    bets.flags.writeable = False  # every test of the same delta has this very array
    return bets


class Gate:
    """Anytime-valid one-sided test of whether the average gain so far is above `delta`.

    Sixteen gamblers each bet a constant fraction on ``gain - delta``; their average wealth is an e-process.
    Under the hypothesis that the average conditional gain never exceeded `delta`, the probability that the
    wealth *ever* reaches 1 / alpha is at most alpha: it may be looked at after every event, and the test
    stopped at any time. No assumption is made on independence or stationarity.

    Parameters
    ----------
    delta : float, in (-1, 1)
        The gain that has to be exceeded.

    References
    ----------
    Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, JRSS-B 86(1).
    Choe and Ramdas (2024), Comparing sequential forecasters, Operations Research 72(4), for the weak null.

    Examples
    --------
    >>> gate = Gate(delta=0.0)
    >>> gate.update(np.full(200, 0.1))
    >>> gate.log_e > math.log(1 / 0.05)
    True
    """

    def __init__(self, *, delta: float) -> None:
        self.delta = delta
        self._bets = _bets(delta)
        self._mantissa = np.ones((1, GAMBLERS))
        self._exponent = np.zeros((1, GAMBLERS), dtype=np.int64)
        self._below, self._above = LowerBound(floor=1.0), LowerBound(floor=1.0)

    def update(self, gains: NDArray[np.float64]) -> None:
        """Take paired gains, each in [-1, 1], shape (n,), in stream order."""
        multiply_bets(self._mantissa, self._exponent, 1, self._bets, gains, self.delta)
        self._below.update(gains)
        self._above.update(-gains)

    @property
    def log_e(self) -> float:
        """Natural logarithm of the wealth, averaged over the gamblers."""
        return log_wealth(self._mantissa, self._exponent)

    @property
    def n_events(self) -> int:
        """Gains taken."""
        return self._below.n_events

    @property
    def mean_gain(self) -> float:
        """Average gain over the events taken; 0.0 before the first."""
        return self._below.mean if self.n_events else 0.0

    def interval(self, alpha: float) -> Interval:
        """Bounds on the average conditional gain that, with probability 1 - alpha, hold at all times.

        An empirical-Bernstein confidence sequence (Howard et al. 2021): another test than the one by
        betting, and often a little wider.
        """
        if not self.n_events:
            return Interval.none("nothing was compared")
        return Interval(max(self._below.value(alpha / 2), -1.0), min(-self._above.value(alpha / 2), 1.0))

    def state(self) -> State:
        """Everything needed to go on with the test."""
        return {
            "mantissa": self._mantissa[0].copy(),
            "exponent": self._exponent[0].copy(),
            **prefixed(self._below.state(), "below"),
            **prefixed(self._above.state(), "above"),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from; `delta` is the constructor's."""
        self._mantissa = np.array([state["mantissa"]], dtype=np.float64)
        self._exponent = np.array([state["exponent"]], dtype=np.int64)
        self._below.restore(section(state, "below"))
        self._above.restore(section(state, "above"))


class ChangeGate:
    """As `Gate`, for a gain that may begin at any time: a regression long after the promotion.

    A new test starts every 512 events; their wealths are weighted by 1 / (k (k + 1)), k the number of the
    start, which adds up to 1. Of the tests the first and the newest seven are kept: dropping one only
    lowers the evidence. The probability that it *ever* reaches 1 / alpha is at most alpha, if at none of
    the starts the average gain since then has ever exceeded `delta`.

    Parameters
    ----------
    delta : float, in (-1, 1)

    Examples
    --------
    >>> gate, late = Gate(delta=0.0), ChangeGate(delta=0.0)
    >>> for test in (gate, late):
    ...     test.update(np.repeat([-0.1, 0.1], [5000, 600]))
    >>> gate.log_e > math.log(1 / 0.05), late.log_e > math.log(1 / 0.05)
    (False, True)
    """

    def __init__(self, *, delta: float) -> None:
        self.delta = delta
        self._bets = _bets(delta)
        self.n_events = 0
        self._sum = 0.0
        self._n_tests = 0  # under way; rows of what follows
        self._starts = np.zeros(_MAX_STARTS, dtype=np.int64)  # their numbers, from 1
        self._sums_before = np.zeros(_MAX_STARTS)  # what the sum was when each started
        self._mantissa = np.ones((_MAX_STARTS, GAMBLERS))
        self._exponent = np.zeros((_MAX_STARTS, GAMBLERS), dtype=np.int64)

    def update(self, gains: NDArray[np.float64]) -> None:
        """Take paired gains, each in [-1, 1], shape (n,), in stream order."""
        taken = 0
        while taken < len(gains):
            if self.n_events % _SPACING == 0:
                self._start()
            now = gains[taken : taken + _SPACING - self.n_events % _SPACING]
            multiply_bets(self._mantissa, self._exponent, self._n_tests, self._bets, now, self.delta)
            self._sum = running_sum(self._sum, now)
            self.n_events += len(now)
            taken += len(now)

    def _start(self) -> None:
        """Begin a test; where there is no room for it, the second oldest is dropped."""
        row = self._n_tests
        if row == _MAX_STARTS:
            row -= 1
            for kept in (self._starts, self._sums_before, self._mantissa, self._exponent):
                kept[1:row] = kept[2:]
        self._starts[row] = self.n_events // _SPACING + 1
        self._sums_before[row] = self._sum
        self._mantissa[row] = 1.0
        self._exponent[row] = 0
        self._n_tests = row + 1

    @property
    def log_e(self) -> float:
        """Natural logarithm of the evidence."""
        return self._evidence()[0] if self._n_tests else 0.0

    def _evidence(self) -> tuple[float, int]:
        """Logarithm of the evidence, and the test that most of it is from."""
        return log_mixture(self._mantissa, self._exponent, self._n_tests, self._starts)

    @property
    def mean_gain(self) -> float:
        """Average gain over the events taken; 0.0 before the first."""
        return self._sum / self.n_events if self.n_events else 0.0

    @property
    def lately(self) -> tuple[int, float]:
        """Events since the start from which the evidence is strongest, and the average gain over them."""
        if not self._n_tests:
            return 0, 0.0
        _, strongest = self._evidence()
        n = self.n_events - _SPACING * (int(self._starts[strongest]) - 1)
        return n, (self._sum - float(self._sums_before[strongest])) / n

    def state(self) -> State:
        """Everything needed to go on with the test."""
        n = self._n_tests
        return {
            "n_events": self.n_events,
            "sum": self._sum,
            "sums_before": self._sums_before[:n].copy(),
            "starts": self._starts[:n].copy(),
            "mantissa": self._mantissa[:n].copy(),
            "exponent": self._exponent[:n].copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from; `delta` is the constructor's."""
        self.n_events = int(state["n_events"])
        self._sum = float(state["sum"])
        self._n_tests = n = len(state["starts"])
        self._sums_before[:n] = state["sums_before"]
        self._starts[:n] = state["starts"]
        self._mantissa[:n] = state["mantissa"]
        self._exponent[:n] = state["exponent"]
