"""Whether a log can say anything about a policy at all: weights, their mean, and actions it never shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock._native.intervals import running_sum
from penstock.bandits.estimators import checked_max_weight
from penstock.bandits.intervals import Interval, LowerBound
from penstock.bandits.terms import Terms, weight_limit
from penstock.decisions import Logged
from penstock.state import State, prefixed, section

__all__ = ["Support", "SupportMonitor"]

_HOPELESS: Final = 100.0  # weights above it carry a log by a handful of events; who means them declares them
_MISSES: Final = 7.0  # decisions expected for an action; none has then probability exp(-7) < 0.001
_MISSING: Final = 0.01  # share of a policy's probability that may be without support
_MEAN_ALPHA: Final = 0.001  # of the check on the mean weight: a verdict on the log is no mere warning
_MAX_ARMS: Final = 1 << 16  # identities watched one by one; later ones are taken for supported


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What the weights of a policy on a log look like.

    Attributes
    ----------
    n_events : int
        Decisions that count.
    ess : float
        Effective sample size ``(sum w)**2 / sum w**2``: as many decisions of the policy's own say as much.
    max_weight : float
        The largest weight seen.
    mean_weight : float
        Has to be near 1.
    mean_weight_interval : Interval
        Confidence sequence, at 0.001, for what the weights are on average; without a declared `max_weight`
        its upper end is infinite.
    unsupported : float
        Share of the policy's probability that is on actions which the log gives (nearly) no chance: some
        that it never takes, or what is left beside an action taken with (near) certainty.
    reason : str
        Why the log says nothing about the policy, one sentence; empty if it does.
    """

    n_events: int
    ess: float
    max_weight: float
    mean_weight: float
    mean_weight_interval: Interval
    unsupported: float
    reason: str


class SupportMonitor:
    """Watches the weights of one policy on a log.

    Parameters
    ----------
    max_weight : float >= 1, optional
        Bound on all weights, as known from how the log was made. Where not given, an action that would need
        a weight above 100 counts as unsupported.
    """

    def __init__(self, *, max_weight: float | None = None) -> None:
        self._declared = checked_max_weight(max_weight)
        self._limit = _HOPELESS if max_weight is None else weight_limit(max_weight)
        self._sums = [0.0, 0.0, 0.0]  # of count * w, its square, and the probability beyond the limit
        self._largest = 0.0
        self._above = LowerBound()  # on the mean of w
        self._below = LowerBound(max(self._limit - 1.0, 0.0))  # on that of 1 - w
        self._arms: dict[str, int] = {}
        self._masses = np.zeros(0)  # of each arm: what the policy gives it,
        self._taken = np.zeros(0)  # and how often the log shows it

    def update(self, terms: Terms, logged: Logged, probabilities: NDArray[np.float64]) -> None:
        """Take logged decisions, in order.

        Parameters
        ----------
        terms : Terms
            Of the n events in `logged`.
        logged : Logged
        probabilities : float64, shape (m,)
            Of each offered action under the policy that is judged.
        """
        counted = terms.counts > 0.0
        weights = terms.weights[counted]
        scaled = terms.counts[counted] * weights
        beyond = np.where(terms.least_max_weights > self._limit, self._beyond(terms), 0.0)[counted]
        for i, values in enumerate((scaled, scaled * scaled, beyond)):
            self._sums[i] = running_sum(self._sums[i], values)
        self._largest = max(self._largest, float(weights.max(initial=0.0)))
        self._above.update(weights)
        self._below.update(1.0 - weights)
        self._watch(logged, probabilities, counted)

    def never_taken(self, times: float) -> frozenset[str]:
        """Return actions that the log never takes, and the policy would have taken so often, on average."""
        missing = (self._taken == 0.0) & (self._masses >= times)
        if not missing.any():
            return frozenset()
        return frozenset(arm for arm, number in self._arms.items() if missing[number])

    def _beyond(self, terms: Terms) -> NDArray[np.float64]:
        """Share of the policy's probability that needs weights above the limit."""
        if self._declared is None:  # a large weight that did occur is a fact, not a gap
            return np.where(terms.weights > self._limit, 0.0, 1.0 - terms.target)
        return np.where(terms.weights > self._limit, terms.target, 1.0 - terms.target)

    def _watch(self, logged: Logged, probabilities: NDArray[np.float64], counted: NDArray[np.bool_]) -> None:
        arms, numbers = logged.offers.arms.tolist(), self._arms
        for arm in arms:
            if arm not in numbers and len(numbers) < _MAX_ARMS:
                numbers[arm] = len(numbers)
        grown = len(numbers) + 1  # the last is all that is not watched
        places = np.fromiter((numbers.get(arm, grown - 1) for arm in arms), np.int64, len(arms))
        masses, taken = np.zeros(grown), np.zeros(grown)
        masses[: len(self._masses)], taken[: len(self._taken)] = self._masses, self._taken
        in_count = np.repeat(counted, np.diff(logged.offers.starts))
        np.add.at(masses, places[in_count], probabilities[in_count])  # one after the other
        np.add.at(taken, places[logged.entries[counted]], 1.0)
        self._masses, self._taken = masses[:-1], taken[:-1]

    def verdict(self) -> Support:
        """Return what is known now."""
        total, squares, beyond = self._sums
        n = self._above.n_events
        mean = self._mean_interval(n)
        missing = (self._taken == 0.0) & (self._masses >= _MISSES * self._limit)
        never = float(self._masses[missing].sum()) if n else 0.0
        support = {
            "n_events": n,
            "ess": total * total / squares if squares else 0.0,
            "max_weight": self._largest,
            "mean_weight": self._above.mean if n else math.nan,
            "mean_weight_interval": mean,
            "unsupported": min((never + beyond) / n, 1.0) if n else 0.0,
        }
        return Support(**support, reason=self._reason(n, missing, never, beyond, mean))  # type: ignore[arg-type]

    def _mean_interval(self, n: int) -> Interval:
        if not n:
            return Interval.none("no decision has counted so far")
        lower = max(self._above.value(_MEAN_ALPHA / 2.0), 0.0)
        if self._declared is None or self._largest > self._limit:
            return Interval(lower, math.inf)
        return Interval(lower, 1.0 - self._below.value(_MEAN_ALPHA / 2.0))

    def _reason(self, n: int, missing: NDArray[np.bool_], never: float, beyond: float, mean: Interval) -> str:
        if not n:
            return "no decision has counted so far"
        if not self._sums[0]:
            return "no logged action is one that the policy could take: every weight is 0"
        if never > _MISSING * n:
            names = list(self._arms)
            arm = names[int(np.argmax(np.where(missing, self._masses, 0.0)))]
            return (
                f"the log never takes {arm!r}, and the policy puts {never / n:.1%} of its probability on "
                "actions that it never takes"
            )
        if beyond > _MISSING * n:
            hint = "" if self._declared is not None else " (if they are meant, declare max_weight)"
            return (
                f"{beyond / n:.1%} of the policy's probability would need weights above "
                f"{self._declared or self._limit:g}{hint}"
            )
        if 1.0 not in mean:
            side = "small" if mean.lower > 1.0 else "large, or actions are missing from the log"
            return (
                f"the propensities are too {side}: the mean weight is {self._above.mean:.4g}, "
                f"where it has to be 1"
            )
        return ""

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        return {
            "sums": np.array(self._sums),
            "largest": self._largest,
            "arms": np.frombuffer(orjson.dumps(list(self._arms)), dtype=np.uint8),
            "masses": self._masses.copy(),
            "taken": self._taken.copy(),
            **prefixed(self._above.state(), "above"),
            **prefixed(self._below.state(), "below"),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` was taken from."""
        self._sums = state["sums"].tolist()
        self._largest = float(state["largest"])
        self._arms = {arm: i for i, arm in enumerate(orjson.loads(state["arms"].tobytes()))}
        self._masses = np.array(state["masses"])
        self._taken = np.array(state["taken"])
        self._above.restore(section(state, "above"))
        self._below.restore(section(state, "below"))
