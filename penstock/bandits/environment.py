"""Multiclass data as a bandit environment: every reward is known, hence the true regret as well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.bandits.base import Policy, exact
from penstock.decisions import Logged, Offers, draw, keys_of
from penstock.errors import DataError
from penstock.events import Batch, Features

__all__ = ["Environment", "Simulation", "as_bandit", "simulate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Events that all offer the same K actions, and what each would earn.

    Attributes
    ----------
    offers : Offers
        n events.
    rewards : float64, shape (n, K)
    """

    offers: Offers
    rewards: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.offers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a policy did in an environment.

    Attributes
    ----------
    chosen : int64, shape (n,)
    propensities : float64, shape (n,)
    rewards : float64, shape (n,)
        Of what was chosen.
    regret : float64, shape (n,)
        Cumulative, against the best action of each event.
    fixed_regret : float64, shape (n,)
        Cumulative, against the one action that earned most over all events; may be negative.
    """

    chosen: NDArray[np.int64]
    propensities: NDArray[np.float64]
    rewards: NDArray[np.float64]
    regret: NDArray[np.float64]
    fixed_regret: NDArray[np.float64]

    @property
    def average_reward(self) -> float:
        """Mean reward of an event; 0.0 without events."""
        return float(np.cumsum(self.rewards)[-1] / len(self.rewards)) if len(self.rewards) else 0.0


def as_bandit(
    batch: Batch,
    *,
    costs: NDArray[np.float64] | None = None,
    drift_at: int | None = None,
    pipeline: str = "simulation",
    seed: int = 0,
) -> Environment:
    """Make an environment of labelled events: the actions are the classes, and the right one earns 1.

    Parameters
    ----------
    batch : Batch
        Labels are class names, or numbers.
    costs : float64, shape (K, K), optional
        ``costs[k, a]`` is what action a costs where k is right, with classes in the order of the arms; the
        reward is 1 minus that.
    drift_at : int, optional
        From this event on everything has changed: where class k was right, the next one is now (and the
        first where the last was).
    pipeline : str
        Name that goes into the keys of the decisions, as `key_of` says.
    seed : int
        Goes into them as well: another seed, other draws.

    Returns
    -------
    Environment
        Its arms are the classes in sorted order.

    Raises
    ------
    DataError
        If there are no events, or `costs` is of another shape.

    Examples
    --------
    >>> environment = as_bandit(Batch.from_rows([{"x": 1.0}, {"x": 2.0}], ["b", "a"]))
    >>> environment.offers.arms.tolist(), environment.rewards.tolist()
    (['a', 'b', 'a', 'b'], [[0.0, 1.0], [1.0, 0.0]])
    """
    n = len(batch)
    if not n:
        raise DataError("a bandit environment needs at least one event")
    classes, right = np.unique(batch.labels, return_inverse=True)
    k = len(classes)
    if drift_at is not None:
        right = np.where(np.arange(n) >= drift_at, (right + 1) % k, right)
    if costs is None:
        costs = 1.0 - np.eye(k)
    if costs.shape != (k, k):
        raise DataError(f"costs: expected shape {(k, k)} for {k} classes, got {costs.shape}")
    names = np.array([label if isinstance(label, str) else f"{label:g}" for label in classes], dtype=object)
    nothing = Features(
        np.zeros(n * k + 1, np.int64), np.empty(0, np.uint32), np.empty(0), np.empty(0, np.uint32)
    )
    offers = Offers(
        contexts=batch.features,
        rows=batch.rows,
        starts=np.arange(0, n * k + 1, k),
        arms=np.tile(names, n),
        actions=nothing,
        action_rows=[{}] * (n * k),
        keys=keys_of([f"{seed}-{i}" for i in range(n)], pipeline),
    )
    return Environment(offers=offers, rewards=1.0 - costs[right])


def simulate(policy: Policy, environment: Environment) -> Simulation:
    """Let a policy decide each event and learn from it before the next.

    Examples
    --------
    >>> from penstock.bandits import build
    >>> batch = Batch.from_rows([{"x": float(i % 2)} for i in range(400)], ["even", "odd"] * 200)
    >>> result = simulate(build("squarecb"), as_bandit(batch))
    >>> bool(result.average_reward > 0.8)
    True
    """
    n = len(environment)
    offers, rewards = environment.offers, environment.rewards
    chosen, propensities = np.empty(n, np.int64), np.empty(n)
    one = np.ones(1)
    for i in range(n):
        event = offers.slice(i, i + 1)
        probabilities = exact(policy.probabilities(event), event.starts)
        chosen[i] = action = draw(probabilities, int(event.keys[0]))
        propensities[i] = probabilities[action]
        policy.learn(
            Logged(
                offers=event,
                chosen=chosen[i : i + 1],
                propensities=propensities[i : i + 1],
                rewards=rewards[i, action : action + 1],
                weights=one,
            )
        )
    earned = rewards[np.arange(n), chosen]
    fixed = rewards[:, int(np.argmax(np.cumsum(rewards, axis=0)[-1]))]
    return Simulation(
        chosen=chosen,
        propensities=propensities,
        rewards=earned,
        regret=np.cumsum(rewards.max(axis=1) - earned),
        fixed_regret=np.cumsum(fixed - earned),
    )
