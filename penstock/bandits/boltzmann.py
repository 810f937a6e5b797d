"""Softmax over the costs that a regression oracle predicts."""

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
    in_range,
)
from penstock.bandits.parameters import Floor, NotNegative
from penstock.bandits.pmf import normalised

__all__ = ["Boltzmann", "Softmax"]


@dataclass(frozen=True, slots=True)
class Softmax(Rule):
    """Chances proportional to ``exp(-sharpness * cost)``.

    Examples
    --------
    >>> Softmax(np.log(3)).probabilities(np.array([[1.0, 0.0]]), np.array([0, 2]), np.array([0]))
    array([0.25, 0.75])
    """

    sharpness: NotNegative

    def probabilities(
        self, costs: NDArray[np.float64], starts: NDArray[np.int64], ages: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distribution over every event's actions, shape (m,); see `Rule`."""
        expected = in_range(costs[0])
        gaps = expected - np.repeat(np.minimum.reduceat(expected, starts[:-1]), np.diff(starts))
        return normalised(np.exp(-self.sharpness * gaps), starts)


class Boltzmann(OraclePolicy):
    """Boltzmann exploration: the chance of an action falls exponentially with its predicted cost.

    Parameters
    ----------
    sharpness : float
        Inverse temperature per unit of cost (rewards scaled to [0, 1]); 0 is uniform, and 1, VW's default,
        is nearly that. Some 10 by the standard deviation of the rewards is a good start.
    learner, cost_type, reward_range, loss, floor, min_propensity, outside
        See `OraclePolicy`.

    References
    ----------
    Cesa-Bianchi, Gentile, Lugosi and Neu (2017), Boltzmann exploration done right, NeurIPS
    (arXiv:1705.10257): what can go wrong with it.

    Examples
    --------
    >>> from penstock.decisions import Offers
    >>> offers = Offers.from_rows([{"hour": 9}], [["news", "sport"]])
    >>> Boltzmann().probabilities(offers)
    array([0.5, 0.5])
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        sharpness: NotNegative = 30.0,
        learner: LearnerChoice = DEFAULT_LEARNER,
        cost_type: CostType = "dm",
        reward_range: Sequence[float] = (0.0, 1.0),
        loss: Loss = "squared",
        floor: Floor = 0.0,
        min_propensity: Smallest = 1e-3,
        outside: Outside = "clip",
    ) -> None:
        super().__init__(
            seed=seed,
            rule=Softmax(sharpness),
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
        return FrozenOraclePolicy.from_state(state, Softmax)
