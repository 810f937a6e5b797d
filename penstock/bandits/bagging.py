"""Bagging: several learners see different resamplings of the log, and each has a vote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from penstock.bandits.oracle import (
    DEFAULT_LEARNER,
    CostType,
    FrozenOraclePolicy,
    LearnerChoice,
    Lesson,
    Loss,
    OraclePolicy,
    Outside,
    Rule,
    Smallest,
)
from penstock.bandits.parameters import Floor, check
from penstock.bandits.pmf import cheapest, normalised
from penstock.bandits.randomness import uniform

__all__ = ["Bagging", "Vote", "poisson"]

_MOST: Final = 20  # a Poisson(1) count is larger once in 10^20 draws
_POISSON: Final = np.cumsum([math.exp(-1.0) / math.factorial(count) for count in range(_MOST)])


@dataclass(frozen=True, slots=True)
class Vote(Rule):
    """Share of the learners that find an action the cheapest; a learner's ties share its vote.

    Examples
    --------
    >>> costs = np.array([[0.1, 0.2], [0.3, 0.2], [0.1, 0.1], [0.0, 0.5]])
    >>> Vote().probabilities(costs, np.array([0, 2]), np.array([9]))
    array([0.625, 0.375])
    """

    def probabilities(
        self, costs: NDArray[np.float64], starts: NDArray[np.int64], ages: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distribution over every event's actions, shape (m,); see `Rule`."""
        votes = np.zeros(costs.shape[1])
        for learner in costs:
            votes += cheapest(learner, starts)
        return normalised(votes, starts)


class Bagging(OraclePolicy):
    """Online bootstrap: learner i is taught each event Poisson(1) times; actions are chosen by vote share.

    How often comes from the seed, the key of the decision and i alone. What an event taught k times is, the
    learner knows as an event of weight k.

    Parameters
    ----------
    size : int
        Learners; more make the distribution finer.
    greedify : bool
        Whether the first learner is taught every event exactly once.
    learner, cost_type, reward_range, loss, floor, min_propensity, outside
        See `OraclePolicy`.

    References
    ----------
    Agarwal et al. (2014), Taming the monster, ICML (arXiv:1402.0555).
    Oza and Russell (2001), Online bagging and boosting, AISTATS.

    Examples
    --------
    >>> from penstock.decisions import Offers
    >>> offers = Offers.from_rows([{"hour": 9}], [["news", "sport"]])
    >>> Bagging(floor=0.01).probabilities(offers)
    array([0.5, 0.5])
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        size: Annotated[int, Ge(1), Le(1000)] = 5,
        greedify: bool = False,
        learner: LearnerChoice = DEFAULT_LEARNER,
        cost_type: CostType = "mtr",
        reward_range: Sequence[float] = (0.0, 1.0),
        loss: Loss = "squared",
        floor: Floor = 0.0,
        min_propensity: Smallest = 1e-3,
        outside: Outside = "clip",
    ) -> None:
        check(Bagging, {"size": size, "greedify": greedify})
        self._greedify = greedify
        super().__init__(
            seed=seed,
            rule=Vote(),
            learner=learner,
            cost_type=cost_type,
            reward_range=reward_range,
            loss=loss,
            floor=floor,
            min_propensity=min_propensity,
            outside=outside,
            n_learners=size,
        )

    def _times(self, lesson: Lesson, number: int) -> NDArray[np.float64] | float:
        if self._greedify and number == 0:
            return 1.0
        return poisson(lesson.offers.keys, self._seed, number)

    @staticmethod
    def load(state: dict[str, Any]) -> FrozenOraclePolicy:
        """Rebuild a frozen policy from its state; arrays may be read-only memory maps."""
        return FrozenOraclePolicy.from_state(state, Vote)


def poisson(keys: NDArray[np.uint64], seed: int, number: int) -> NDArray[np.float64]:
    """Poisson(1) counts, one a key; the same for the same arguments.

    Examples
    --------
    >>> poisson(np.arange(6, dtype=np.uint64), 0, 1)
    array([0., 1., 0., 1., 3., 3.])
    """
    draws = uniform(keys, seed, number)
    return np.searchsorted(_POISSON, draws, side="right").astype(np.float64)
