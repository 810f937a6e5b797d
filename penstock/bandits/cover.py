"""Online cover: each learner is paid for choosing what the ones before it do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from penstock.bandits.oracle import (
    DEFAULT_LEARNER,
    FrozenOraclePolicy,
    LearnerChoice,
    Lesson,
    OraclePolicy,
    Outside,
    Rule,
    Smallest,
    look_and_teach,
    teach_all,
)
from penstock.bandits.parameters import Floor, NotNegative, check
from penstock.bandits.pmf import cheapest, projected

__all__ = ["Cover", "Covering"]


@dataclass(frozen=True, slots=True)
class Covering(Rule):
    """Vote share, projected onto a floor that falls with the number of events (unless epsilon is given).

    Examples
    --------
    >>> costs = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.4]])
    >>> Covering(epsilon=0.3).probabilities(costs, np.array([0, 3]), np.array([9]))
    array([0.45, 0.45, 0.1 ])
    """

    epsilon: Floor | None = None
    uniform: bool = True

    def probabilities(
        self, costs: NDArray[np.float64], starts: NDArray[np.int64], ages: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distribution over every event's actions, shape (m,); see `Rule`."""
        votes = np.zeros(costs.shape[1])
        for learner in costs:
            votes += cheapest(learner, starts) / len(costs)
        floors = self.least(starts, ages) * np.diff(starts)
        return projected(votes, starts, floors, zeros=self.uniform)

    def least(self, starts: NDArray[np.int64], ages: NDArray[np.int64]) -> NDArray[np.float64]:
        """Smallest probability of an action in each event, shape (n,)."""
        sizes = np.diff(starts).astype(np.float64)
        if self.epsilon is not None:
            return self.epsilon / sizes
        return np.minimum(1.0 / sizes, 1.0 / np.sqrt(np.maximum(ages, 1) * sizes))


class Cover(OraclePolicy):
    """Online cover: a few learners that together cover the actions worth trying.

    The first learner is taught the action taken, weighted as "mtr" says. Each of the others is taught the
    doubly robust cost of every action, less what the action would be worth as exploration:
    ``psi * least / (P / norm)``, where P is the vote share that the learners before it give the action (at
    least `least`), and norm the sum of all these P.

    Parameters
    ----------
    size : int
        Learners that vote.
    psi : float
        How much disagreement is paid for.
    epsilon : float, 0..1, optional
        The smallest probability of one of K actions is epsilon / K; if not given it is
        ``min(1 / K, 1 / sqrt(K * events))``.
    uniform : bool
        Whether actions without a vote have that smallest probability too (VW's ``--nounif`` is False).
    learner, reward_range, floor, min_propensity, outside
        See `OraclePolicy`.

    References
    ----------
    Agarwal, Hsu, Kale, Langford, Li and Schapire (2014), Taming the monster, ICML (arXiv:1402.0555).

    Examples
    --------
    >>> from penstock.decisions import Offers
    >>> offers = Offers.from_rows([{"hour": 9}], [["news", "sport"]])
    >>> Cover().probabilities(offers)
    array([0.5, 0.5])
    """

    _rule: Covering

    def __init__(
        self,
        *,
        seed: int = 0,
        size: Annotated[int, Ge(1), Le(1000)] = 3,
        psi: NotNegative = 1.0,
        epsilon: Floor | None = None,
        uniform: bool = True,
        learner: LearnerChoice = DEFAULT_LEARNER,
        reward_range: Sequence[float] = (0.0, 1.0),
        floor: Floor = 0.0,
        min_propensity: Smallest = 1e-3,
        outside: Outside = "clip",
    ) -> None:
        check(Cover, {"size": size, "psi": psi})
        self._psi = psi
        super().__init__(
            seed=seed,
            rule=Covering(epsilon, uniform),
            learner=learner,
            cost_type="dr",
            reward_range=reward_range,
            loss="squared",
            floor=floor,
            min_propensity=min_propensity,
            outside=outside,
            n_learners=size,
        )

    def _study(self, lesson: Lesson, *, looks: bool) -> NDArray[np.float64]:
        pairs = self._pairs.all(lesson.offers)
        starts = lesson.offers.starts
        sizes = np.diff(starts)
        share = 1.0 / len(self._models)
        costs = self._doubly_robust(lesson, pairs)
        first = look_and_teach(
            self._models[0], pairs, lesson, lesson.weights * lesson.shares / lesson.propensities
        )
        predictions, votes = [first], cheapest(first, starts) * share
        least = np.repeat(self._rule.least(starts, lesson.ages), sizes)
        for model in self._models[1:]:
            covered = np.maximum(votes, least)
            norm = np.repeat(np.add.reduceat(covered, starts[:-1]), sizes) if len(covered) else covered
            bonus = self._psi * least * norm / covered
            predictions.append(teach_all(model, pairs, lesson, costs - bonus, lesson.weights, looks=True))
            votes = votes + cheapest(predictions[-1], starts) * share
        return np.stack(predictions)

    @staticmethod
    def load(state: dict[str, Any]) -> FrozenOraclePolicy:
        """Rebuild a frozen policy from its state; arrays may be read-only memory maps."""
        return FrozenOraclePolicy.from_state(state, Covering)
