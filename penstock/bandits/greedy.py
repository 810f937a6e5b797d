"""Epsilon-greedy on a regression oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.bandits.oracle import (
    DEFAULT_LEARNER,
    CostType,
    FrozenOraclePolicy,
    LearnerChoice,
    Loss,
    OraclePolicy,
    Outside,
    Rule,
    Smallest,
)
from penstock.bandits.parameters import Floor
from penstock.bandits.pmf import cheapest

__all__ = ["EpsilonGreedy", "Greedy"]


@dataclass(frozen=True, slots=True)
class EpsilonGreedy(Rule):
    """The action of lowest cost, and with chance epsilon any.

    Examples
    --------
    >>> rule = EpsilonGreedy(0.3)
    >>> rule.probabilities(np.array([[0.5, 0.1, 0.1]]), np.array([0, 3]), np.array([4]))
    array([0.1 , 0.45, 0.45])
    """

    epsilon: Floor
    decays: bool = False

    def probabilities(
        self, costs: NDArray[np.float64], starts: NDArray[np.int64], ages: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distribution over every event's actions, shape (m,); see `Rule`."""
        sizes = np.diff(starts)
        epsilon = np.full(len(sizes), self.epsilon)
        if self.decays:
            epsilon *= (ages + 1.0) ** (-1.0 / 3.0)
        return np.repeat(1.0 - epsilon, sizes) * cheapest(costs[0], starts) + np.repeat(
            epsilon / sizes, sizes
        )


class Greedy(OraclePolicy):
    """Epsilon-greedy: the action that looks best, and with chance epsilon any.

    Parameters
    ----------
    epsilon : float, 0..1
        0 explores nothing but ties.
    decays : bool
        Whether epsilon falls with the events learned, as ``epsilon * (events + 1) ** (-1 / 3)``.
    learner, cost_type, reward_range, loss, floor, min_propensity, outside
        See `OraclePolicy`. The default "mtr" finds the best of a class of models that cannot represent the
        costs; "dm" is far less noisy, and better where they nearly can (``benchmarks/bandit_environments``).

    References
    ----------
    Bietti, Agarwal and Langford (2021), A contextual bandit bake-off, JMLR 22 (arXiv:1802.04064).

    Examples
    --------
    >>> from penstock.decisions import Offers
    >>> offers = Offers.from_rows([{"hour": 9}], [["news", "sport"]])
    >>> Greedy(epsilon=0.1).probabilities(offers)
    array([0.5, 0.5])
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        epsilon: Floor = 0.05,
        decays: bool = False,
        learner: LearnerChoice = DEFAULT_LEARNER,
        cost_type: CostType = "mtr",
        reward_range: Sequence[float] = (0.0, 1.0),
        loss: Loss = "squared",
        floor: Floor = 0.0,
        min_propensity: Smallest = 1e-3,
        outside: Outside = "clip",
    ) -> None:
        super().__init__(
            seed=seed,
            rule=EpsilonGreedy(epsilon, decays),
            learner=learner,
            cost_type=cost_type,
            reward_range=reward_range,
            loss=loss,
            floor=floor,
            min_propensity=min_propensity,
            outside=outside,
        )

    @staticmethod
    def load(state: dict[str, Any]) -> FrozenOraclePolicy:
        """Rebuild a frozen policy from its state; arrays may be read-only memory maps."""
        return FrozenOraclePolicy.from_state(state, EpsilonGreedy)
