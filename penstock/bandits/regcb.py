"""RegCB: what an action could plausibly cost decides whether it is tried."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.bandits.oracle import (
    DEFAULT_LEARNER,
    CostType,
    FrozenOraclePolicy,
    LearnerChoice,
    OraclePolicy,
    Outside,
    Rule,
    Smallest,
    in_range,
)
from penstock.bandits.parameters import Floor, Positive, check
from penstock.bandits.pmf import cheapest, normalised
from penstock.decisions import Logged
from penstock.errors import ConfigError, StoreError
from penstock.events import Batch, Task
from penstock.learners.sgd import SGD
from penstock.state import State

__all__ = ["Plausible", "RegCB"]

# Outside of the range of costs by 1: what a learner would have to be shown to move a prediction to its end.
_BELOW: Final = -1.0
_ABOVE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Plausible(Rule):
    """Chooses by the range of costs that the events seen so far do not rule out.

    The lowest plausible cost of an action is where its prediction would go if it were shown a cost of -1
    with the largest importance w for which ``w * (f^2 - (f - w * s)^2) <= mellowness * log(K * events)``;
    f is the prediction's distance from there, s the sensitivity. The highest one is its mirror image.

    Parameters
    ----------
    mellowness : float
        Larger explores more; worth a search among 0.1, 0.01 and 0.001.
    elimination : bool
        Choose evenly among all actions whose lowest plausible cost is not above the highest one of another;
        or else the action of the lowest (ties evenly).
    """

    mellowness: Positive
    elimination: bool

    def probabilities(
        self, costs: NDArray[np.float64], starts: NDArray[np.int64], ages: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distribution over every event's actions, shape (m,); see `Rule`.

        `costs` has three rows: predictions, and their sensitivities to a cost of -1 and of 2.
        """
        expected, to_below, to_above = in_range(costs[0]), costs[1], costs[2]
        sizes = np.diff(starts)
        slack = np.repeat(self.mellowness * np.log(np.maximum(ages * sizes, 1)), sizes)
        lowest = np.maximum(expected - _reach(expected - _BELOW, to_below, slack), 0.0)
        if not self.elimination:
            return cheapest(lowest, starts)
        highest = np.minimum(expected + _reach(_ABOVE - expected, to_above, slack), 1.0)
        bound = np.repeat(np.minimum.reduceat(highest, starts[:-1]), sizes)
        return normalised((lowest <= bound).astype(np.float64), starts)


class RegCB(OraclePolicy):
    """RegCB: regression with confidence bounds; optimistic, or eliminating what is surely worse.

    It chooses without chance among what is plausible: with a `floor` of some 0.01 the log can be used to
    evaluate other policies.

    Parameters
    ----------
    mellowness : float
        Larger explores more; worth a search among 0.1, 0.01 and 0.001. VW's sensitivities are half of ours,
        so half its mellowness explores as much.
    elimination : bool
        Choose evenly among all actions that may be the best, or else the one that may cost the least.
    learner : mapping
        An "sgd" whose update is "nag", "adagrad" or "sgd": the bounds come from its sensitivities.
    cost_type : {"dm", "mtr"}
    reward_range, floor, min_propensity, outside
        See `OraclePolicy`.

    References
    ----------
    Foster, Agarwal, Dudík, Luo and Schapire (2018), Practical contextual bandits with regression oracles,
    ICML (arXiv:1803.01088). Krishnamurthy et al. (2017), Active learning for cost-sensitive classification,
    ICML (arXiv:1703.01014), section 7.1: the bounds by sensitivity.

    Examples
    --------
    >>> from penstock.decisions import Offers
    >>> offers = Offers.from_rows([{"hour": 9}], [["news", "sport"]])
    >>> RegCB().probabilities(offers)
    array([0.5, 0.5])
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        mellowness: Positive = 0.01,
        elimination: bool = False,
        learner: LearnerChoice = DEFAULT_LEARNER,
        cost_type: CostType = "dm",
        reward_range: Sequence[float] = (0.0, 1.0),
        floor: Floor = 0.0,
        min_propensity: Smallest = 1e-3,
        outside: Outside = "clip",
    ) -> None:
        check(RegCB, {"mellowness": mellowness, "elimination": elimination})
        if learner.get("kind") != "sgd" or learner.get("update", "nag") in ("ftrl", "coin"):
            raise ConfigError(
                f"learner: regcb needs an 'sgd' updated by nag, adagrad or sgd, got {learner!r}"
            )
        if cost_type not in ("dm", "mtr"):
            raise ConfigError(f"cost_type: regcb learns by 'dm' or 'mtr', got {cost_type!r}")
        super().__init__(
            seed=seed,
            rule=Plausible(mellowness, elimination),
            learner=learner,
            cost_type=cost_type,
            reward_range=reward_range,
            loss="squared",
            floor=floor,
            min_propensity=min_propensity,
            outside=outside,
        )

    def progress(self, logged: Logged) -> NDArray[np.float64]:
        """For each decision in order: give the distribution, then learn it. Returns shape (m,).

        Raises
        ------
        BadRecord
            As `learn`.
        """
        self._prepare(logged)  # refuses all of it before any of it is learned
        parts = [np.empty(0)]
        for i in range(len(logged)):
            event = logged.slice(i, i + 1)
            parts.append(self.probabilities(event.offers))
            self.learn(event)
        return np.concatenate(parts)

    def freeze(self) -> FrozenRegCB:
        """Return a policy of what is known now, that later learning does not touch."""
        models = [_Sensitive(self._parameters, model.state()) for model in self._models]
        return FrozenRegCB(self._rule, self._floor, self._kind, models, self._events)

    def _look(self, pairs: Batch) -> NDArray[np.float64]:
        (learner,) = self._models
        assert isinstance(learner, SGD)
        return _bounds(learner, pairs)

    @staticmethod
    def load(state: dict[str, Any]) -> FrozenOraclePolicy:
        """Rebuild a frozen policy from its state; arrays may be read-only memory maps."""
        return FrozenRegCB.from_state(state, Plausible)


class _Sensitive:
    """A frozen learner that still knows its sensitivities: unlike an `SGDModel` all of its state."""

    def __init__(self, parameters: Mapping[str, Any], state: State) -> None:
        self._parameters = dict(parameters)
        self._learner = SGD(Task("regression"), **parameters)
        self._learner.restore(state)
        self._one_at_a_time = threading.Lock()  # a learner is of one thread

    def predict(self, pairs: Batch) -> NDArray[np.float64]:
        """Predict costs, and what `Plausible` wants to know beside them; shape (3, m)."""
        with self._one_at_a_time:
            return _bounds(self._learner, pairs)

    def state(self) -> State:
        """Everything needed to rebuild it."""
        return {**self._learner.state(), "parameters": json.dumps(self._parameters)}


class FrozenRegCB(FrozenOraclePolicy):
    """A `RegCB` as it was when it was frozen."""

    @staticmethod
    def _load_model(kind: str, state: State) -> Any:
        try:
            return _Sensitive(json.loads(state["parameters"]), state)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise StoreError(f"regcb: its learner cannot be read: {error}") from None

    def _look(self, pairs: Batch) -> NDArray[np.float64]:
        (model,) = self._models
        return model.predict(pairs)


def _bounds(learner: SGD, pairs: Batch) -> NDArray[np.float64]:
    return np.stack(
        [learner.predict(pairs), learner.sensitivity(pairs, _BELOW), learner.sensitivity(pairs, _ABOVE)]
    )


def _reach(
    distance: NDArray[np.float64], sensitivity: NDArray[np.float64], slack: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far a prediction moves under the largest plausible importance; never beyond `distance` (>= 1)."""
    # With w = u * distance / sensitivity the condition is u^2 * (2 - u) <= ratio, whose left side grows in
    # u over [0, 1]: the middle root of a cubic, in its trigonometric form.
    ratio = np.minimum(slack * sensitivity / distance**3, 1.0)
    u = 2.0 / 3.0 + 4.0 / 3.0 * np.cos((np.arccos(1.0 - 27.0 / 16.0 * ratio) - 2.0 * np.pi) / 3.0)
    return np.clip(u, 0.0, 1.0) * distance
