"""Models of the reward, for the estimators that correct one: fitted on the past of each decision only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock import learners
from penstock.bandits.estimators import checked_range
from penstock.bandits.oracle import Lesson, look_and_teach
from penstock.bandits.pairs import Pairs
from penstock.decisions import Logged, Offers
from penstock.events import Task
from penstock.state import State, prefixed, section

__all__ = ["LearnedReward", "RewardModel"]

_SGD: Final[Mapping[str, Any]] = {"kind": "sgd", "interactions": (("*", "action"),)}


@runtime_checkable
class RewardModel(Protocol):
    """Predicts what each offered action would earn.

    However a log is cut, the predictions are the same, to the bit.
    """

    def predict(self, offers: Offers) -> NDArray[np.float64]:
        """Predict the reward of every offered action, shape (m,). Changes nothing."""
        ...

    def progress(self, logged: Logged) -> NDArray[np.float64]:
        """For each decision in order: predict every offered action, then learn the reward. Returns (m,).

        Decisions of weight 0 are predicted and change nothing.
        """
        ...

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        ...

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        ...


class LearnedReward:
    """Any regression learner of the package, over context, action and their products.

    Parameters
    ----------
    reward_range : two numbers
        Lowest and highest reward there can be; predictions are cut to it.
    learner : mapping
        ``kind`` and parameters of the learner, as in a configuration. By default the native "sgd" that
        crosses the context with the action.
    seed : int

    Examples
    --------
    >>> model = LearnedReward()
    >>> offers = Offers.from_rows([{"hour": 9}] * 50, [["news", "sport"]] * 50)
    >>> chosen = np.arange(50) % 2
    >>> earned = 1.0 - chosen
    >>> log = Logged(
    ...     offers=offers, chosen=chosen, propensities=np.full(50, 0.5), rewards=earned, weights=np.ones(50)
    ... )
    >>> model.progress(log)[:2]
    array([0., 0.])
    >>> model.predict(offers.slice(0, 1)).round(1)
    array([1., 0.])
    """

    def __init__(
        self,
        *,
        reward_range: Sequence[float] = (0.0, 1.0),
        learner: Mapping[str, Any] = _SGD,
        seed: int = 0,
    ) -> None:
        self._low, self._high = checked_range(reward_range)
        self._learner = learners.build(task=Task("regression"), seed=seed, **learner)
        self._pairs = Pairs()

    def predict(self, offers: Offers) -> NDArray[np.float64]:
        """Predict the reward of every offered action, shape (m,). Changes nothing."""
        return self._rewards(np.clip(self._learner.predict(self._pairs.all(offers)), 0.0, 1.0))

    def progress(self, logged: Logged) -> NDArray[np.float64]:
        """For each decision in order: predict every offered action, then learn the reward. Returns (m,)."""
        if not len(logged):
            return np.empty(0)
        scaled = (logged.rewards - self._low) / (self._high - self._low)
        lesson = Lesson(
            logged.offers,
            logged.entries,
            scaled,
            logged.propensities,
            logged.weights,
            ages=np.zeros(len(logged), np.int64),  # no rule asks
            shares=np.ones(len(logged)),
        )
        pairs = self._pairs.all(logged.offers)
        return self._rewards(look_and_teach(self._learner, pairs, lesson, logged.weights))

    def _rewards(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._low + (self._high - self._low) * scaled

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        return prefixed(self._learner.state(), "learner")

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        self._learner.restore(section(state, "learner"))
