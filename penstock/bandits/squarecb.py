"""SquareCB: the chance of an action falls with the inverse of how much worse than the best it looks."""

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
from penstock.bandits.parameters import Floor, Positive
from penstock.bandits.pmf import cheapest

__all__ = ["InverseGap", "SquareCB"]


@dataclass(frozen=True, slots=True)
class InverseGap(Rule):
    """Inverse gap weighting, with a greed of ``gamma_scale * events ** gamma_exponent``.

    Of K actions one whose predicted cost is y has the chance ``1 / (K + greed * (y - lowest))``, and what is
    left of 1 goes to the action of lowest cost, in equal parts if there are several.

    Examples
    --------
    >>> rule = InverseGap(10.0, 0.5)
    >>> rule.probabilities(np.array([[0.5, 0.1, 0.1]]), np.array([0, 3]), np.array([4])).round(4)
    array([0.0909, 0.4545, 0.4545])
    """

    gamma_scale: Positive
    gamma_exponent: Floor

    def probabilities(
        self, costs: NDArray[np.float64], starts: NDArray[np.int64], ages: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distribution over every event's actions, shape (m,); see `Rule`."""
        sizes = np.diff(starts)
        greed = np.repeat(self.gamma_scale * ages.astype(np.float64) ** self.gamma_exponent, sizes)
        expected = in_range(costs[0])
        gaps = expected - np.repeat(np.minimum.reduceat(expected, starts[:-1]), sizes)
        best = cheapest(expected, starts)
        others = np.where(best > 0, 0.0, 1.0 / (np.repeat(sizes, sizes) + greed * gaps))
        return others + best * np.repeat(1.0 - np.add.reduceat(others, starts[:-1]), sizes)


class SquareCB(OraclePolicy):
    """SquareCB: regression, then inverse gap weighting.

    Parameters
    ----------
    gamma_scale, gamma_exponent : float
        The greed is ``gamma_scale * events ** gamma_exponent``, per unit of cost (rewards scaled to [0, 1]).
        Larger explores less.
    learner, cost_type, reward_range, loss, floor, min_propensity, outside
        See `OraclePolicy`. By default the regression is not weighted by propensities: the theory wants the
        oracle's error under the distribution that was played.

    References
    ----------
    Foster and Rakhlin (2020), Beyond UCB: optimal and efficient contextual bandits with regression oracles,
    ICML (arXiv:2002.04926).

    Examples
    --------
    >>> from penstock.decisions import Offers
    >>> offers = Offers.from_rows([{"hour": 9}], [["news", "sport"]])
    >>> SquareCB().probabilities(offers)
    array([0.5, 0.5])
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        gamma_scale: Positive = 10.0,
        gamma_exponent: Floor = 0.5,
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
            rule=InverseGap(gamma_scale, gamma_exponent),
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
        return FrozenOraclePolicy.from_state(state, InverseGap)
