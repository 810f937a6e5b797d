"""The off-policy estimators as plain functions on arrays, for a log that is at hand as a whole.

Values only: intervals that hold while a log grows are those of `penstock.bandits.estimators`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.bandits.estimators import Replay, checked_range, shrunk
from penstock.bandits.terms import Column, Terms

__all__ = [
    "clipped_ips",
    "direct_method",
    "dr",
    "dros",
    "effective_sample_size",
    "gains",
    "ips",
    "mrdr_weights",
    "replay",
    "snips",
    "switch_dr",
]


def ips(rewards: Column, propensities: Column, target: Column) -> float:
    """Estimate a policy's mean reward from another policy's log: inverse propensity scoring.

    Parameters
    ----------
    rewards : float64, shape (n,)
    propensities : float64, shape (n,), in (0, 1]
        Probability with which the logging policy took the logged action.
    target : float64, shape (n,), in [0, 1]
        Probability of that action under the policy that is judged.

    Returns
    -------
    float
        In the unit of `rewards`. Unbiased; its variance grows with the weights ``target / propensities``.

    Raises
    ------
    BadRecord
        Names the first event whose reward, propensity or target cannot be used.

    References
    ----------
    Horvitz and Thompson (1952), JASA 47(260), 663-685.

    Examples
    --------
    >>> ips(np.array([1.0, 0.0]), np.array([0.5, 0.25]), np.array([1.0, 1.0]))
    1.0
    """
    terms = _terms(rewards, propensities, target)
    return _mean(terms.weights * terms.rewards)


def clipped_ips(
    rewards: Column, propensities: Column, target: Column, *, clip: float = 10.0, lowest: float = 0.0
) -> float:
    """IPS with weights cut at `clip`; what is cut counts as the `lowest` reward, so that it is pessimistic.

    Examples
    --------
    >>> clipped_ips([1.0, 0.0], [0.1, 0.5], [1.0, 1.0], clip=5.0)
    2.5
    """
    terms = _terms(rewards, propensities, target)
    return _mean(lowest + np.minimum(terms.weights, clip) * (terms.rewards - lowest))


def snips(rewards: Column, propensities: Column, target: Column) -> float:
    """Self-normalised IPS: the mean of the rewards, weighted. NaN if every weight is 0.

    Examples
    --------
    >>> snips([1.0, 0.0], [0.5, 0.25], [1.0, 1.0])
    0.3333333333333333
    """
    terms = _terms(rewards, propensities, target)
    total = float(terms.weights.sum())
    return float((terms.weights * terms.rewards).sum()) / total if total else math.nan


def direct_method(expected: Column) -> float:
    """Mean of what a model expects of the policy that is judged.

    Parameters
    ----------
    expected : float64, shape (n,)
        Sum over the actions of the policy's probability times the predicted reward.

    Examples
    --------
    >>> direct_method([0.25, 0.75])
    0.5
    """
    return _mean(np.asarray(expected, dtype=np.float64))


def dr(rewards: Column, propensities: Column, target: Column, predicted: Column, expected: Column) -> float:
    """Doubly robust: the direct method, corrected by IPS of what the model got wrong.

    Parameters
    ----------
    rewards, propensities, target : float64, shape (n,)
        As of `ips`.
    predicted : float64, shape (n,)
        Reward that a model which has not seen the event predicts for the logged action.
    expected : float64, shape (n,)
        What the same model expects of the policy that is judged, as of `direct_method`.

    Examples
    --------
    >>> dr([1.0, 0.0], [0.5, 0.25], [1.0, 0.0], predicted=[0.5, 0.5], expected=[0.5, 0.5])
    1.0
    """
    return dros(rewards, propensities, target, predicted, expected, shrinkage=math.inf)


def switch_dr(
    rewards: Column,
    propensities: Column,
    target: Column,
    predicted: Column,
    expected: Column,
    *,
    threshold: float = 10.0,
) -> float:
    """DR that trusts the model alone where the weight is above `threshold`.

    Examples
    --------
    >>> switch_dr([1.0, 0.0], [0.1, 0.25], [1.0, 0.0], predicted=[0.5, 0.5], expected=[0.5, 0.5], threshold=5)
    0.5
    """
    terms = _terms(rewards, propensities, target, predicted, expected)
    weights = np.where(terms.weights <= threshold, terms.weights, 0.0)
    return _corrected(terms, weights)


def dros(
    rewards: Column,
    propensities: Column,
    target: Column,
    predicted: Column,
    expected: Column,
    *,
    shrinkage: float = 10.0,
) -> float:
    """DR with optimistic shrinkage: ``w`` becomes ``shrinkage w / (w**2 + shrinkage)``.

    Examples
    --------
    >>> dros([1.0, 0.0], [0.5, 0.25], [1.0, 0.0], predicted=[0.5, 0.5], expected=[0.5, 0.5], shrinkage=4.0)
    0.75
    """
    terms = _terms(rewards, propensities, target, predicted, expected)
    return _corrected(terms, shrunk(terms.weights, shrinkage))


def mrdr_weights(propensities: Column, target: Column) -> NDArray[np.float64]:
    """Weigh the decisions that a model learns so that the variance of `dr` gets small.

    Parameters
    ----------
    propensities, target : float64, shape (n,)
        As of `ips`.

    Returns
    -------
    float64, shape (n,)
        ``target (1 - propensity) / propensity**2``.

    References
    ----------
    Farajtabar, Chow and Ghavamzadeh (2018), More robust doubly robust off-policy evaluation, ICML
    (arXiv:1802.03493).

    Examples
    --------
    >>> mrdr_weights([0.5, 1.0], [1.0, 1.0])
    array([2., 0.])
    """
    p = np.asarray(propensities, dtype=np.float64)
    return np.asarray(target, dtype=np.float64) * (1.0 - p) / (p * p)


def replay(
    rewards: Column,
    propensities: Column,
    target: Column,
    *,
    max_weight: float,
    keys: NDArray[np.uint64] | None = None,
) -> float:
    """Mean reward of the decisions accepted as if the policy had taken them. NaN if there is none.

    Parameters
    ----------
    rewards, propensities, target : float64, shape (n,)
        As of `ips`.
    max_weight : float
        No weight is above it: K for a uniform log over K actions. NaN is returned if one is.
    keys : uint64, shape (n,), optional
        What the acceptance of each decision is drawn from; its number where not given.

    References
    ----------
    Li, Chu, Langford and Wang (2011), Unbiased offline evaluation of contextual-bandit-based news article
    recommendation algorithms, WSDM.

    Examples
    --------
    >>> replay([1.0, 0.0, 1.0], [0.5, 0.5, 0.5], [1.0, 0.0, 1.0], max_weight=2.0)
    1.0
    """
    column = np.asarray(rewards, dtype=np.float64)
    low, high = float(column.min(initial=0.0)), float(column.max(initial=0.0))
    estimator = Replay(reward_range=(low, max(high, low + 1.0)), max_weight=max_weight)
    estimator.update(Terms.of_columns(rewards=column, propensities=propensities, target=target, keys=keys))
    return estimator.value


def effective_sample_size(weights: Column) -> float:
    """Return ``(sum w)**2 / sum w**2``: as many decisions of the policy's own would say as much.

    Examples
    --------
    >>> effective_sample_size([1.0, 1.0, 1.0]), effective_sample_size([9.0, 0.0, 0.0])
    (3.0, 1.0)
    """
    column = np.asarray(weights, dtype=np.float64)
    squares = float((column * column).sum())
    return float(column.sum()) ** 2 / squares if squares else 0.0


def gains(
    rewards: Column, propensities: Column, target: Column, *, reward_range: Sequence[float] = (0.0, 1.0)
) -> NDArray[np.float64]:
    """Say of each decision what a policy would have earned more than the one that took it: ``(w - 1) r``.

    Parameters
    ----------
    rewards, propensities, target : float64, shape (n,)
        As of `ips`.
    reward_range : two numbers
        Rewards are scaled from it to [0, 1].

    Returns
    -------
    float64, shape (n,), >= -1
        Unbiased, whatever the weights. Never below -1, and that is all that `penstock.shadow.Gate` needs:
        fed with these it decides, at all times, whether the policy is better than the one that logs.

    Examples
    --------
    >>> gains([1.0, 1.0, 0.0], [0.5, 0.5, 0.5], [1.0, 0.0, 1.0])
    array([ 1., -1.,  0.])
    """
    low, high = checked_range(reward_range)
    terms = _terms(rewards, propensities, target)
    return (terms.weights - 1.0) * ((terms.rewards - low) / (high - low))


def _terms(rewards: Column, propensities: Column, target: Column, *model: Column) -> Terms:
    predicted, expected = model or (None, None)
    return Terms.of_columns(
        rewards=rewards, propensities=propensities, target=target, predicted=predicted, expected=expected
    )


def _corrected(terms: Terms, weights: NDArray[np.float64]) -> float:
    predicted, expected = terms.model(-math.inf, math.inf)
    return _mean(weights * (terms.rewards - predicted) + expected)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
