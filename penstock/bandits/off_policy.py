"""Off-policy evaluation: what policies would have earned, from the log of another one.

A log and some policies: `evaluate_policies`, in one pass. A stream: `Evaluation`, one a policy. Arrays at
hand: `ips` and the other functions. The estimators themselves are in `penstock.bandits.estimators`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock._native.intervals import running_sum
from penstock.bandits.base import FrozenPolicy, Policy, exact
from penstock.bandits.estimators import Estimator, build_estimator, checked_range
from penstock.bandits.formulas import (
    clipped_ips,
    direct_method,
    dr,
    dros,
    effective_sample_size,
    gains,
    ips,
    mrdr_weights,
    replay,
    snips,
    switch_dr,
)
from penstock.bandits.intervals import Interval
from penstock.bandits.reward_model import LearnedReward, RewardModel
from penstock.bandits.support import Support, SupportMonitor
from penstock.bandits.terms import Terms
from penstock.decisions import Logged
from penstock.errors import ConfigError
from penstock.state import State, prefixed, section

__all__ = [
    "Estimate",
    "Evaluation",
    "PolicyReport",
    "Report",
    "clipped_ips",
    "direct_method",
    "dr",
    "dros",
    "effective_sample_size",
    "evaluate_policies",
    "gains",
    "ips",
    "mrdr_weights",
    "replay",
    "snips",
    "switch_dr",
]

_DEFAULT: Final = ("dr", "ips", "snips", "dm")

EstimatorChoice: TypeAlias = "Sequence[str] | Mapping[str, Mapping[str, Any]]"
"""Names in `penstock.bandits.estimators.ESTIMATORS`, or names and their parameters."""

MakeModel: TypeAlias = "Callable[[], RewardModel]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one estimator says about one policy.

    Attributes
    ----------
    value : float
        Mean reward a decision, in the unit of rewards; NaN where nothing can be said.
    interval : Interval
        For the policy's value; holds at all times.
    reason : str
        Why there is no value: one sentence; empty where there is one.
    """

    value: float
    interval: Interval
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReport:
    """What a log says about one policy.

    Attributes
    ----------
    estimates : mapping of estimator to Estimate
    support : Support
        If it has a reason, no estimate has a value.
    """

    estimates: Mapping[str, Estimate]
    support: Support

    @property
    def model_gap(self) -> float:
        """DM minus DR: far from 0 the model is wrong; NaN unless both were asked for."""
        values = [self.estimates[name].value for name in ("dm", "dr") if name in self.estimates]
        return values[0] - values[1] if len(values) == 2 else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a log says about several policies. Printed, it is a table.

    Attributes
    ----------
    policies : mapping of policy to PolicyReport
    n_events : int
        Decisions that count (those of weight 0 do not).
    mean_reward : float
        Of the policies that took the decisions; the value of the log itself.
    alpha : float
        Each interval misses with at most this probability, by itself: for all of k together, ask for
        ``alpha / k``.
    """

    policies: Mapping[str, PolicyReport]
    n_events: int
    mean_reward: float
    alpha: float

    def __str__(self) -> str:
        lines = [
            f"{self.n_events:,} decisions, mean reward {self.mean_reward:.4f}; "
            f"intervals at {1.0 - self.alpha:.0%}, valid at all times",
            f"{'policy':<16} {'estimator':<11} {'value':>8}  {'interval':<18}  {'ESS':>9}  {'max w':>7}",
        ]
        for name, policy in self.policies.items():
            support = policy.support
            tail = f"{support.ess:9.1f}  {support.max_weight:7.2f}"
            if support.reason:
                lines.append(f"{name:<16} {'-':<11} {'-':>8}  {'-':<18}  {tail}  {support.reason}")
                continue
            for estimator, estimate in policy.estimates.items():
                bounds, reason = estimate.interval, estimate.reason or estimate.interval.reason
                shown = "-" if bounds.reason else f"[{bounds.lower:.4f}, {bounds.upper:.4f}]"
                line = f"{name:<16} {estimator:<11} {estimate.value:8.4f}  {shown:<18}  {tail}  {reason}"
                lines.append(line.rstrip())
        return "\n".join(lines)


class Evaluation:
    """Judges one policy on a log, by several estimators at once.

    Parameters
    ----------
    estimators : sequence of names, or mapping of names to parameters
        See `penstock.bandits.estimators.ESTIMATORS`.
    reward_range : two numbers
        Lowest and highest reward there can be.
    max_weight : float >= 1, optional
        No importance weight is above it, of whatever action could have been logged; known from how the log
        was made. Narrows the intervals of "ips" and "dr", and "replay" needs it.
    make_model : callable
        Makes the model that "mrdr" fits for this policy.
    """

    def __init__(
        self,
        estimators: EstimatorChoice = _DEFAULT,
        *,
        reward_range: Sequence[float] = (0.0, 1.0),
        max_weight: float | None = None,
        make_model: MakeModel | None = None,
    ) -> None:
        self._estimators: dict[str, Estimator] = {
            name: build_estimator(name, reward_range=reward_range, max_weight=max_weight, **parameters)
            for name, parameters in _chosen(estimators).items()
        }
        self._support = SupportMonitor(max_weight=max_weight)
        wanted = {estimator.model for estimator in self._estimators.values()}
        self.wants_predictions = "shared" in wanted
        make_model = make_model or (lambda: LearnedReward(reward_range=reward_range))
        self._own_model = make_model() if "own" in wanted else None

    def update(
        self,
        logged: Logged,
        probabilities: NDArray[np.float64],
        predictions: NDArray[np.float64] | None = None,
    ) -> None:
        """Take logged decisions, in order.

        Parameters
        ----------
        logged : Logged
            n events that offer m actions.
        probabilities : float64, shape (m,)
            What the policy that is judged would have done, before it learned from the event.
        predictions : float64, shape (m,), optional
            Rewards predicted by a model, before it learned from the event; needed if `wants_predictions`.

        Raises
        ------
        BadRecord
            If a reward is outside of the declared range.
        ArithmeticError
            If `probabilities` are not distributions.
        ValueError
            If predictions are needed and not given.
        """
        if not len(logged):
            return
        exact(probabilities, logged.offers.starts)
        terms = Terms.of(logged, probabilities, predictions)
        own = terms if self._own_model is None else self._own_terms(logged, probabilities, terms)
        for estimator in self._estimators.values():
            estimator.update(own if estimator.model == "own" else terms)
        self._support.update(terms, logged, probabilities)

    def _own_terms(self, logged: Logged, probabilities: NDArray[np.float64], terms: Terms) -> Terms:
        assert self._own_model is not None
        weights = logged.weights * mrdr_weights(logged.propensities, terms.target)
        taught = Logged(
            offers=logged.offers,
            chosen=logged.chosen,
            propensities=logged.propensities,
            rewards=logged.rewards,
            weights=weights,
        )
        return Terms.of(logged, probabilities, self._own_model.progress(taught))

    def never_taken(self, times: float) -> frozenset[str]:
        """As `penstock.bandits.support.SupportMonitor.never_taken`."""
        return self._support.never_taken(times)

    def report(self, alpha: float = 0.05) -> PolicyReport:
        """Return what is known so far. May be called after every event; the intervals hold at all times."""
        if not 0.0 < alpha < 1.0:
            raise ConfigError(f"alpha: expected a number in (0, 1), got {alpha!r}")
        support = self._support.verdict()
        refusal = Estimate(value=math.nan, interval=Interval.none(support.reason), reason=support.reason)
        estimates = {
            name: refusal if support.reason else _estimate(estimator, alpha)
            for name, estimator in self._estimators.items()
        }
        return PolicyReport(estimates=estimates, support=support)

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        state = prefixed(self._support.state(), "support")
        for name, estimator in self._estimators.items():
            state |= prefixed(estimator.state(), f"estimators/{name}")
        if self._own_model is not None:
            state |= prefixed(self._own_model.state(), "model")
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from; parameters are the constructor's."""
        self._support.restore(section(state, "support"))
        for name, estimator in self._estimators.items():
            estimator.restore(section(state, f"estimators/{name}"))
        if self._own_model is not None:
            self._own_model.restore(section(state, "model"))


def evaluate_policies(
    log: Iterable[Logged],
    policies: Mapping[str, Policy | FrozenPolicy],
    *,
    estimators: EstimatorChoice = _DEFAULT,
    alpha: float = 0.05,
    reward_range: Sequence[float] = (0.0, 1.0),
    max_weight: float | None = None,
    make_model: MakeModel | None = None,
) -> Report:
    """Judge several policies in one pass over a log.

    Parameters
    ----------
    log : iterable of Logged
        In decision order, cut anywhere: where makes no difference to the result.
    policies : mapping of name to policy
        A `Policy` learns from the log as it is judged, each event after it was judged on it (progressive
        validation); it is the sequence of its states that is evaluated. Freeze it to judge it as it is.
    estimators : sequence of names, or mapping of names to parameters
        What judges; a policy that learns keeps its own way of learning.
    alpha : float, in (0, 1)
    reward_range : two numbers
        Lowest and highest reward there can be.
    max_weight : float >= 1, optional
        No importance weight is above it, as known from how the log was made: ``1 / p`` where every action
        has at least probability p.
    make_model : callable, optional
        Makes the model of the reward for "dm", "dr" and their kin; `LearnedReward` where not given.

    Returns
    -------
    Report

    Raises
    ------
    BadRecord
        If a reward is outside of the declared range.
    ConfigError
        If a parameter is out of range.

    References
    ----------
    Blum, Kalai and Langford (1999), Beating the hold-out: bounds for k-fold and progressive
    cross-validation, COLT.

    Examples
    --------
    >>> from penstock.bandits.uniform import Uniform
    >>> from penstock.decisions import Offers
    >>> offers = Offers.from_rows([{"hour": 9}] * 400, [["news", "sport"]] * 400)
    >>> chosen = np.arange(400) % 2
    >>> log = Logged(
    ...     offers=offers,
    ...     chosen=chosen,
    ...     propensities=np.full(400, 0.5),
    ...     rewards=1.0 - chosen,
    ...     weights=np.ones(400),
    ... )
    >>> report = evaluate_policies([log], {"uniform": Uniform()}, max_weight=2.0)
    >>> report.policies["uniform"].estimates["ips"].value, report.mean_reward
    (0.5, 0.5)
    """
    low, high = checked_range(reward_range)
    make_model = make_model or (lambda: LearnedReward(reward_range=(low, high)))
    evaluations = {
        name: Evaluation(estimators, reward_range=(low, high), max_weight=max_weight, make_model=make_model)
        for name in policies
    }
    shared = make_model() if any(e.wants_predictions for e in evaluations.values()) else None
    total = count = 0.0
    n_events = 0
    for logged in log:
        total = running_sum(total, logged.weights * logged.rewards)
        count = running_sum(count, logged.weights)
        n_events += int(np.count_nonzero(logged.weights))
        predictions = None if shared is None else shared.progress(logged)
        for name, policy in policies.items():
            judge = (
                policy.progress(logged) if isinstance(policy, Policy) else policy.probabilities(logged.offers)
            )
            evaluations[name].update(logged, judge, predictions)
    return Report(
        policies={name: evaluation.report(alpha) for name, evaluation in evaluations.items()},
        n_events=n_events,
        mean_reward=total / count if count else math.nan,
        alpha=alpha,
    )


def _chosen(estimators: EstimatorChoice) -> dict[str, dict[str, Any]]:
    if isinstance(estimators, str):
        raise ConfigError(f"estimators: expected a list of names, got {estimators!r}")
    if isinstance(estimators, Mapping):
        return {name: dict(parameters) for name, parameters in estimators.items()}
    return {name: {} for name in estimators}


def _estimate(estimator: Estimator, alpha: float) -> Estimate:
    value, interval = estimator.value, estimator.interval(alpha)
    if math.isnan(value):
        return Estimate(value=value, interval=interval, reason=interval.reason or "it has no value yet")
    return Estimate(value=value, interval=interval)
