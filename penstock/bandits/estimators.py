"""Off-policy estimators: what a policy would have earned, from decisions that another policy took.

Each takes logged decisions in order and in columns, holds a few sums, and ends in the same state however
the log was cut. Its interval is about the value of the policy, averaged over the events so far, and may be
read after every event. With ``w`` the importance weight pi / propensity and ``q`` a model of the reward:

=========== ============================================= ==========================================
estimator   value                                         interval
=========== ============================================= ==========================================
ips         mean of w r                                   its own
clipped_ips mean of min(w, clip) r                        its own; the value is pessimistic in it
snips       sum of w r / sum of w                         none: not a martingale
dm          mean of E q, expected under pi                none: biased as the model is
dr, mrdr    mean of w (r - q) + E q                       its own; without `max_weight` that of ips
switch_dr   as dr, but w = 0 where it is above a threshold that of dr, which the value may fall outside
dros        as dr, but w shrunk                           that of dr, which the value may fall outside
replay      mean r of the events accepted                 its own
=========== ============================================= ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock._native.intervals import running_sum
from penstock.bandits.intervals import Interval, LowerBound
from penstock.bandits.terms import Terms, weight_limit
from penstock.errors import BadRecord, ConfigError
from penstock.registry import resolve
from penstock.state import State, prefixed, section

__all__ = [
    "DM",
    "DR",
    "ESTIMATORS",
    "IPS",
    "MRDR",
    "SNIPS",
    "ClippedIPS",
    "DRos",
    "Estimator",
    "Replay",
    "SwitchDR",
    "build_estimator",
]

ESTIMATORS: Final[Mapping[str, str]] = {
    "ips": "penstock.bandits.estimators:IPS",
    "clipped_ips": "penstock.bandits.estimators:ClippedIPS",
    "snips": "penstock.bandits.estimators:SNIPS",
    "dm": "penstock.bandits.estimators:DM",
    "dr": "penstock.bandits.estimators:DR",
    "switch_dr": "penstock.bandits.estimators:SwitchDR",
    "dros": "penstock.bandits.estimators:DRos",
    "mrdr": "penstock.bandits.estimators:MRDR",
    "replay": "penstock.bandits.estimators:Replay",
}

_NOTHING: Final = "no decision has counted so far"
_DEFAULT_CLIP: Final = 10.0  # a decision that stands for more than ten others says little about them


@runtime_checkable
class Estimator(Protocol):
    """Estimates the value of one policy. Built with ``Class(reward_range=…, max_weight=…, **parameters)``.

    Attributes
    ----------
    model : {"", "shared", "own"}
        Whether it reads predictions: of a model of the reward, or of one fitted for this policy.
    """

    model: ClassVar[str]

    def update(self, terms: Terms) -> None:
        """Take logged decisions, in order.

        Raises
        ------
        BadRecord
            If a reward is outside of the declared range; nothing has been taken then.
        """
        ...

    @property
    def value(self) -> float:
        """The estimate; NaN before there is any."""
        ...

    def interval(self, alpha: float = 0.05) -> Interval:
        """Bounds that, with probability ``1 - alpha``, hold the policy's value at all times."""
        ...

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        ...

    def restore(self, state: State) -> None:
        """Become what `state` was taken from; parameters are the constructor's."""
        ...


def build_estimator(kind: str, **parameters: Any) -> Estimator:
    """Build the estimator registered as `kind`, or the class that ``module:Class`` names.

    Raises
    ------
    ConfigError
        If there is no such class, or a parameter is out of range.
    """
    estimator: Estimator = resolve(kind, ESTIMATORS, what="estimator")(**parameters)
    return estimator


class _Average:
    """Mean over the events of one number, its two sums, and the two sides of the interval.

    Parameters
    ----------
    reward_range : two numbers
        Lowest and highest reward there can be.
    max_weight : float >= 1, optional
        No importance weight is above it, of whatever action the logging policy could have taken. Has to be
        known from how the log was made (the lowest propensity was 0.02, so 50), not read off the log.
    floors : two numbers
        How far the outcomes of the lower and the upper side, on rewards in [0, 1], can be below 0.
    """

    model: ClassVar[str] = ""

    def __init__(
        self, reward_range: Sequence[float], max_weight: float | None, floors: tuple[float, float]
    ) -> None:
        self._low, self._high = checked_range(reward_range)
        self._max_weight = max_weight
        self._limit = None if max_weight is None else weight_limit(max_weight)
        self._sums = [0.0, 0.0]  # of count * outcome, of count
        self._lower, self._upper = map(LowerBound, floors)
        self._unit = 0.0  # the count that all events have, as far as the interval goes
        self._void = ""  # why there is no interval any more

    def update(self, terms: Terms) -> None:
        """Take logged decisions, in order.

        Raises
        ------
        BadRecord
            If a reward is outside of the declared range; nothing has been taken then.
        """
        counted = terms.counts > 0.0
        outside = counted & ~((terms.rewards >= self._low) & (terms.rewards <= self._high))
        if outside.any():
            first = int(np.argmax(outside))
            expected = f"a reward in [{self._low!r}, {self._high!r}]"
            raise BadRecord(
                expected, terms.rewards[first].item(), path="$.reward", position=f"events[{first}]"
            )
        if not counted.all():
            terms = terms.take(np.flatnonzero(counted))
        if not len(terms):
            return
        self._invalidate(terms)
        self._add(terms)

    def _add(self, terms: Terms) -> None:
        self._sums[0] = running_sum(self._sums[0], terms.counts * self._outcomes(terms))
        self._sums[1] = running_sum(self._sums[1], terms.counts)
        for side, outcomes in zip((self._lower, self._upper), self._sides(terms), strict=True):
            side.update(outcomes)

    def _outcomes(self, terms: Terms) -> NDArray[np.float64]:
        """Of each event what the value is the mean of, in the unit of rewards."""
        raise NotImplementedError

    def _sides(self, terms: Terms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each event two numbers, of means at most v and 1 - v, for a policy of value v in [0, 1]."""
        weights, rewards = terms.weights, self._scaled(terms.rewards)
        return weights * rewards, weights * (1.0 - rewards)

    def _scaled(self, rewards: NDArray[np.float64]) -> NDArray[np.float64]:
        return (rewards - self._low) / (self._high - self._low)

    def _invalidate(self, terms: Terms) -> None:
        """Note what an interval cannot stand."""
        if self._void:
            return
        self._unit = self._unit or float(terms.counts[0])
        reasons = {}
        differs = terms.counts != self._unit
        if differs.any():
            reasons[int(np.argmax(differs))] = "not all events count alike, and their intervals are for those"
        if self._limit is not None:
            needed = terms.least_max_weights
            if (above := needed > self._limit).any():
                first = int(np.argmax(above))
                reasons[first] = f"a weight of {needed[first]:.6g} exceeds max_weight, {self._max_weight:g}"
        if reasons:
            self._void = reasons[min(reasons)]  # the first, so that no cut of the log changes which

    @property
    def value(self) -> float:
        """The estimate; NaN before there is any."""
        return self._sums[0] / self._sums[1] if self._sums[1] else math.nan

    def interval(self, alpha: float = 0.05) -> Interval:
        """Bounds that, with probability ``1 - alpha``, hold the policy's value at all times."""
        if self._void:
            return Interval.none(self._void)
        if not self._lower.n_events:
            return Interval.none(_NOTHING)
        lower = min(max(self._lower.value(alpha / 2.0), 0.0), 1.0)
        upper = 1.0 - min(max(self._upper.value(alpha / 2.0), 0.0), 1.0)
        width = self._high - self._low
        if lower > upper:
            return Interval.none("the bounds contradict each other: the propensities are wrong")
        return Interval(self._low + width * lower, self._low + width * upper)

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        return {
            "sums": np.array(self._sums),
            "unit": self._unit,
            "void": self._void,
            **prefixed(self._lower.state(), "lower"),
            **prefixed(self._upper.state(), "upper"),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from; parameters are the constructor's."""
        self._sums = np.asarray(state["sums"], dtype=np.float64).tolist()
        self._unit = float(state["unit"])  # type: ignore[arg-type]
        self._void = str(state["void"])
        self._lower.restore(section(state, "lower"))
        self._upper.restore(section(state, "upper"))


class IPS(_Average):
    """Inverse propensity scoring: every reward counts as often as the policy would have earned it.

    Unbiased; the variance grows with the second moment of the weights. Without `max_weight` the interval
    holds for weights of any size, but is as wide as they vary; with it, only rewards that vary widen it,
    which is far less where they are rare.

    Parameters
    ----------
    reward_range : two numbers
        Lowest and highest reward there can be.
    max_weight : float >= 1, optional
        No weight is above it; known from how the log was made.

    References
    ----------
    Horvitz and Thompson (1952), JASA 47(260), 663-685.
    Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro (2022), Anytime-valid off-policy inference for
    contextual bandits (arXiv:2210.10768), for the interval.

    Examples
    --------
    >>> estimator = IPS()
    >>> estimator.update(Terms.of_columns(rewards=[1.0, 0.0], propensities=[0.5, 0.25], target=[1.0, 1.0]))
    >>> estimator.value
    1.0
    """

    def __init__(
        self, *, reward_range: Sequence[float] = (0.0, 1.0), max_weight: float | None = None
    ) -> None:
        bound = checked_max_weight(max_weight)
        super().__init__(reward_range, bound, (0.0, 0.0 if bound is None else weight_limit(bound) - 1.0))

    def _outcomes(self, terms: Terms) -> NDArray[np.float64]:
        return terms.weights * terms.rewards

    def _sides(self, terms: Terms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self._max_weight is None:
            return super()._sides(terms)
        lower = terms.weights * self._scaled(terms.rewards)
        return lower, 1.0 - lower


class ClippedIPS(_Average):
    """IPS with weights cut at `clip`: pessimistic, and of bounded variance.

    What is cut is counted as the lowest reward there can be, so that the estimate is on average too low by
    what the policy earns there. The interval is valid for the policy's value nevertheless, whatever the
    weights are: either side of it is cut as is.

    Parameters
    ----------
    reward_range : two numbers
    max_weight : float, optional
        Not needed; accepted like everywhere.
    clip : float > 0

    References
    ----------
    Ionides (2008), Truncated importance sampling, JCGS 17(2).
    """

    def __init__(
        self,
        *,
        reward_range: Sequence[float] = (0.0, 1.0),
        max_weight: float | None = None,
        clip: float = _DEFAULT_CLIP,
    ) -> None:
        checked_max_weight(max_weight)
        super().__init__(reward_range, None, (0.0, 0.0))
        self._clip = positive("clip", clip)

    def _outcomes(self, terms: Terms) -> NDArray[np.float64]:
        return self._low + np.minimum(terms.weights, self._clip) * (terms.rewards - self._low)

    def _sides(self, terms: Terms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weights, rewards = np.minimum(terms.weights, self._clip), self._scaled(terms.rewards)
        return weights * rewards, weights * (1.0 - rewards)


class SNIPS(_Average):
    """Self-normalised IPS: the weighted mean of the rewards.

    Of lower variance than IPS and never outside of the rewards seen, at a bias of the order 1/n. It is not
    a martingale, so there is no interval that could be looked at again and again; take that of IPS or DR.

    References
    ----------
    Swaminathan and Joachims (2015), The self-normalized estimator for counterfactual learning, NeurIPS.
    """

    def __init__(
        self, *, reward_range: Sequence[float] = (0.0, 1.0), max_weight: float | None = None
    ) -> None:
        checked_max_weight(max_weight)
        super().__init__(reward_range, None, (0.0, 0.0))

    def _add(self, terms: Terms) -> None:
        weights = terms.counts * terms.weights
        self._sums[0] = running_sum(self._sums[0], weights * terms.rewards)
        self._sums[1] = running_sum(self._sums[1], weights)

    def interval(self, alpha: float = 0.05) -> Interval:
        """Say why there is none."""
        del alpha
        return Interval.none("SNIPS is not a martingale: take the interval of ips or dr")


class DM(_Average):
    """Direct method: what the model expects of the policy. Needs no propensities, and is as biased as q.

    Never alone for decisions.
    """

    model = "shared"

    def __init__(
        self, *, reward_range: Sequence[float] = (0.0, 1.0), max_weight: float | None = None
    ) -> None:
        checked_max_weight(max_weight)
        super().__init__(reward_range, None, (0.0, 0.0))

    def _add(self, terms: Terms) -> None:
        self._sums[0] = running_sum(self._sums[0], terms.counts * terms.model(self._low, self._high)[1])
        self._sums[1] = running_sum(self._sums[1], terms.counts)

    def interval(self, alpha: float = 0.05) -> Interval:
        """Say why there is none."""
        del alpha
        return Interval.none("the direct method is biased as its model is, by nobody knows how much")


class DR(_Average):
    """Doubly robust: the model, corrected by IPS of what it got wrong. The default.

    Unbiased if the propensities are right, whatever the model; the better the model, the lower the variance.

    Parameters
    ----------
    reward_range : two numbers
        Predictions are cut to it.
    max_weight : float >= 1, optional
        No weight is above it, of whatever action could have been taken; known from how the log was made.
        Without it the interval is that of IPS: as valid, but wider.

    Notes
    -----
    With rewards and predictions in [0, 1] and weights in [0, k], both ``w (r - q) + E q`` and 1 minus it are
    at least -k: the outcomes of two lower confidence bounds, on the value and on 1 minus it.

    References
    ----------
    Dudik, Erhan, Langford and Li (2014), Doubly robust policy evaluation and optimization, Stat. Sci. 29(4).
    Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro (2022), Anytime-valid off-policy inference for
    contextual bandits (arXiv:2210.10768), for the interval.

    Examples
    --------
    >>> terms = Terms.of_columns(
    ...     rewards=[1.0, 0.0],
    ...     propensities=[0.5, 0.25],
    ...     target=[1.0, 0.0],
    ...     predicted=[0.5, 0.5],
    ...     expected=[0.5, 0.5],
    ... )
    >>> estimator = DR(max_weight=4.0)
    >>> estimator.update(terms)
    >>> estimator.value
    1.0
    """

    model = "shared"

    def __init__(
        self, *, reward_range: Sequence[float] = (0.0, 1.0), max_weight: float | None = None
    ) -> None:
        bound = checked_max_weight(max_weight)
        super().__init__(reward_range, bound, (0.0, 0.0) if bound is None else (weight_limit(bound),) * 2)

    def _outcomes(self, terms: Terms) -> NDArray[np.float64]:
        predicted, expected = terms.model(self._low, self._high)
        return self._kept(terms.weights) * (terms.rewards - predicted) + expected

    def _kept(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the value, though not the interval, makes of the weights."""
        return weights

    def _sides(self, terms: Terms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self._max_weight is None:
            return super()._sides(terms)
        predicted, expected = terms.model(self._low, self._high)
        change = (terms.rewards - predicted) / (self._high - self._low)
        lower = terms.weights * change + self._scaled(expected)
        return lower, 1.0 - lower


class SwitchDR(DR):
    """DR that trusts the model alone where the weight is above `threshold`.

    Its bias is that of the model there. The interval is that of DR, for the policy's value: an estimate
    outside of it says that the threshold is too low.

    Parameters
    ----------
    reward_range, max_weight
        As of `DR`.
    threshold : float > 0
        0 would give the direct method, infinity DR.

    References
    ----------
    Wang, Agarwal and Dudik (2017), Optimal and adaptive off-policy evaluation in contextual bandits, ICML
    (arXiv:1612.01205).
    """

    def __init__(
        self,
        *,
        reward_range: Sequence[float] = (0.0, 1.0),
        max_weight: float | None = None,
        threshold: float = _DEFAULT_CLIP,
    ) -> None:
        super().__init__(reward_range=reward_range, max_weight=max_weight)
        self._threshold = positive("threshold", threshold)

    def _kept(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(weights <= self._threshold, weights, 0.0)


class DRos(DR):
    """DR with optimistic shrinkage: ``w`` becomes ``shrinkage w / (w**2 + shrinkage)``.

    Parameters
    ----------
    reward_range, max_weight
        As of `DR`, and so is the interval.
    shrinkage : float > 0
        Towards 0 it gives the direct method, towards infinity DR.

    References
    ----------
    Su, Dimakopoulou, Krishnamurthy and Dudik (2020), Doubly robust off-policy evaluation with shrinkage, ICML
    (arXiv:1907.09623).
    """

    def __init__(
        self,
        *,
        reward_range: Sequence[float] = (0.0, 1.0),
        max_weight: float | None = None,
        shrinkage: float = _DEFAULT_CLIP,
    ) -> None:
        super().__init__(reward_range=reward_range, max_weight=max_weight)
        self._shrinkage = positive("shrinkage", shrinkage)

    def _kept(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return shrunk(weights, self._shrinkage)


class MRDR(DR):
    """DR whose model is fitted to make its variance small, for the one policy that is judged.

    Everything but the model is as in `DR`; the model learns each decision with the importance
    `penstock.bandits.off_policy.mrdr_weights`.

    References
    ----------
    Farajtabar, Chow and Ghavamzadeh (2018), More robust doubly robust off-policy evaluation, ICML
    (arXiv:1802.03493).
    """

    model = "own"


class Replay(_Average):
    """Rejection replay: keep decisions as the policy would have taken them, and average their rewards.

    A decision is accepted with probability ``w / max_weight``, drawn from its key: with a uniform log over K
    actions and ``max_weight=K``, if the policy takes the same action. About one in `max_weight` is.

    Parameters
    ----------
    reward_range : two numbers
    max_weight : float >= 1
        No weight is above it. A decision that breaks this is an error, since it cannot be accepted more often
        than always.

    References
    ----------
    Li, Chu, Langford and Wang (2011), Unbiased offline evaluation of contextual-bandit-based news article
    recommendation algorithms, WSDM.
    """

    def __init__(
        self, *, reward_range: Sequence[float] = (0.0, 1.0), max_weight: float | None = None
    ) -> None:
        if max_weight is None:
            raise ConfigError("max_weight: has to be given, as replay accepts decisions in proportion to it")
        super().__init__(reward_range, checked_max_weight(max_weight), (0.0, 0.0))

    def _add(self, terms: Terms) -> None:
        assert self._max_weight is not None
        super()._add(terms.take(np.flatnonzero(terms.draws() * self._max_weight < terms.weights)))

    def _outcomes(self, terms: Terms) -> NDArray[np.float64]:
        return terms.rewards

    def _sides(self, terms: Terms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rewards = self._scaled(terms.rewards)
        return rewards, 1.0 - rewards

    @property
    def n_accepted(self) -> int:
        """Decisions accepted."""
        return self._lower.n_events

    @property
    def value(self) -> float:
        """The estimate; NaN before there is any, and once a weight was above `max_weight`."""
        return math.nan if self._void.startswith("a weight") else super().value


def shrunk(weights: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """Return the weights of `DRos`; infinity leaves them as they are."""
    return weights if math.isinf(shrinkage) else shrinkage * weights / (weights * weights + shrinkage)


def checked_range(reward_range: Sequence[float]) -> tuple[float, float]:
    """Return the two ends, or raise `ConfigError`."""
    if len(reward_range) == 2:
        low, high = (float(end) for end in reward_range)
        if low < high and math.isfinite(high - low):
            return low, high
    raise ConfigError(f"reward_range: expected two finite numbers, the lower one first, got {reward_range!r}")


def checked_max_weight(value: float | None) -> float | None:
    """Return the bound on weights, or raise `ConfigError`."""
    if value is not None and not 1.0 <= value < math.inf:
        raise ConfigError(f"max_weight: expected a finite number >= 1, got {value!r}")
    return value


def positive(name: str, value: float) -> float:
    """Return `value`, infinity included, or raise `ConfigError`."""
    if not value > 0.0:
        raise ConfigError(f"{name}: expected a number > 0, got {value!r}")
    return value
