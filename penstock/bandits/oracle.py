"""Policies on a regression oracle: a learner predicts what each action costs, a rule makes chances of it.

Rewards are larger-is-better outside and become costs in [0, 1] inside: ``(high - reward) / (high - low)`` of
the declared reward range. A policy is a `Rule`, which is a pure function, and one or more learners; all that
differs between policies is which rule, how many learners, and what they are taught.
"""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol

import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray

from penstock import learners
from penstock.bandits.base import exact
from penstock.bandits.pairs import ACTION, Pairs, labelled, reordered
from penstock.bandits.parameters import Floor, check
from penstock.bandits.pmf import floored
from penstock.decisions import Logged, Offers
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.events import Batch, Task
from penstock.learners import Learner
from penstock.registry import OneOf
from penstock.state import State, prefixed, section

__all__ = ["CostType", "FrozenOraclePolicy", "LearnerChoice", "OraclePolicy", "Rule"]

CostType = Literal["dm", "mtr", "ips", "dr"]
Loss = Literal["squared", "logistic"]
Outside = Literal["clip", "refuse"]
Smallest = Annotated[float, Gt(0), Le(1)]
LearnerChoice = Annotated[Mapping[str, Any], OneOf(learners.LEARNERS, "learner")]

DEFAULT_LEARNER: Final[Mapping[str, Any]] = {"kind": "sgd"}
_CROSSES: Final = (("*", ACTION),)


@dataclass(frozen=True, slots=True)
class Rule(ABC):
    """Turns predicted costs into a distribution; a frozen dataclass of plain numbers, which it checks."""

    def __post_init__(self) -> None:
        check(type(self), dataclasses.asdict(self))

    @abstractmethod
    def probabilities(
        self, costs: NDArray[np.float64], starts: NDArray[np.int64], ages: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distribution over every event's actions, shape (m,).

        Parameters
        ----------
        costs : float64, shape (B, m)
            What each learner predicts (see `OraclePolicy._look`), which need not be in [0, 1].
        starts : int64, shape (n + 1,)
        ages : int64, shape (n,)
            Events learned before each event.
        """


@dataclass(frozen=True, slots=True)
class Lesson:
    """A log, ready to be learned.

    Attributes
    ----------
    offers : Offers
    entries : int64, shape (n,)
        Of each event which of the m actions was taken.
    costs : float64, shape (n,), in [0, 1]
    propensities : float64, shape (n,)
        Not below the smallest that learning admits.
    weights : float64, shape (n,)
    ages : int64, shape (n,)
        Events learned before each.
    shares : float64, shape (n,)
        Events by actions seen, up to and including each event.
    """

    offers: Offers
    entries: NDArray[np.int64]
    costs: NDArray[np.float64]
    propensities: NDArray[np.float64]
    weights: NDArray[np.float64]
    ages: NDArray[np.int64]
    shares: NDArray[np.float64]


class OraclePolicy:
    """What all policies on a regression oracle share. Not registered itself.

    Parameters
    ----------
    seed : int
        Handed to the learners, each of which gets another.
    rule : Rule
    n_learners : int
        How many the rule wants predictions of.
    learner : mapping
        ``kind`` and parameters of the learner, as in a configuration. An "sgd" without interactions gets
        ``[["*", "action"]]``: the context crossed with the action.
    cost_type : {"dm", "mtr", "ips", "dr"}
        What a learner is taught of an event in which action a, taken with probability p, cost c.
        "dm": c for the action taken. "mtr": the same, with importance 1/p times the number of events by the
        number of actions seen, so that it is about 1. "ips": c/p for the action taken and 0 for the others.
        "dr": what a "dm" learner of its own predicts, for the action taken corrected by (c - prediction)/p.
    reward_range : two numbers
        Lowest and highest reward there can be.
    loss : {"squared", "logistic"}
        Logistic where rewards are one of the two ends of their range: the learner is a classifier then.
    floor : float, 0..1
        Share of decisions made uniformly at random, whatever the rule says.
    min_propensity : float
        Smaller propensities count as this when learning; what is logged stays as it was.
    outside : {"clip", "refuse"}
        What becomes of a reward outside of its range: it is cut to it and counted in the state, or it is an
        error.

    Raises
    ------
    ConfigError
        If a parameter is out of range, or does not fit the others.
    """

    def __init__(
        self,
        *,
        seed: int,
        rule: Rule,
        learner: LearnerChoice,
        cost_type: CostType,
        reward_range: Sequence[float],
        loss: Loss,
        floor: Floor,
        min_propensity: Smallest,
        outside: Outside,
        n_learners: int = 1,
    ) -> None:
        check(
            OraclePolicy,
            {
                "cost_type": cost_type,
                "loss": loss,
                "floor": floor,
                "min_propensity": min_propensity,
                "outside": outside,
            },
        )
        if loss == "logistic" and cost_type not in ("dm", "mtr"):
            raise ConfigError(f"loss: 'logistic' learns rewards as they are, not cost_type {cost_type!r}")
        self._low, self._high = _checked_range(reward_range)
        self._rule = rule
        self._cost_type = cost_type
        self._loss = loss
        self._floor = floor
        self._min_propensity = min_propensity
        self._clips = outside == "clip"
        self._kind, self._parameters = _checked_learner(learner)
        self._seed = seed
        self._pairs = Pairs()
        self._models = [self._learner(i) for i in range(n_learners)]
        self._values = [self._learner(n_learners)] if self._wants_values() else []
        self._events = 0
        self._offered = 0
        self._clipped = 0

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Return the exact distribution that is to be sampled and logged, shape (m,). Changes nothing."""
        ages = np.full(len(offers), self._events)
        return _chances(self._rule, self._floor, self._look(self._pairs.all(offers)), offers.starts, ages)

    def learn(self, logged: Logged) -> None:
        """Learn every decision, in order; those of weight 0 change nothing.

        Raises
        ------
        BadRecord
            If a reward is outside of its range and that is refused, or with the logistic loss not at one of
            the range's ends. Nothing has been learned then.
        """
        lesson, after = self._prepare(logged)
        self._study(lesson, looks=False)
        self._events, self._offered, self._clipped = after

    def progress(self, logged: Logged) -> NDArray[np.float64]:
        """For each decision in order: give the distribution, then learn it. Returns shape (m,).

        Raises
        ------
        BadRecord
            As `learn`.
        """
        lesson, after = self._prepare(logged)
        costs = self._study(lesson, looks=True)
        self._events, self._offered, self._clipped = after
        return _chances(self._rule, self._floor, costs, logged.offers.starts, lesson.ages)

    def freeze(self) -> FrozenOraclePolicy:
        """Return a policy of what is known now, that later learning does not touch."""
        return FrozenOraclePolicy(
            self._rule, self._floor, self._kind, [model.freeze() for model in self._models], self._events
        )

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened; shares no memory with the policy.

        ============ ==========================================================
        events       decisions learned
        offered      actions that were offered in them
        clipped      rewards outside of the range, if they are clipped
        models/i/…   states of the learners, with "dr" that of the values last
        ============ ==========================================================
        """
        state: State = {"events": self._events, "offered": self._offered, "clipped": self._clipped}
        for i, model in enumerate([*self._models, *self._values]):
            state |= prefixed(model.state(), f"models/{i}")
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of such a policy.
        """
        counts = [_count(state, name) for name in ("events", "offered", "clipped")]
        for i, model in enumerate([*self._models, *self._values]):
            model.restore(section(state, f"models/{i}"))
        self._events, self._offered, self._clipped = counts

    def _learner(self, number: int) -> Learner:
        task = Task("binary" if self._loss == "logistic" else "regression")
        return learners.build(self._kind, task, seed=self._seed + number, **self._parameters)

    def _wants_values(self) -> bool:
        """Whether there is a learner for the predictions that "dr" corrects."""
        return self._cost_type == "dr"

    def _look(self, pairs: Batch) -> NDArray[np.float64]:
        """Predict costs, shape (B, m)."""
        return np.stack([model.predict(pairs) for model in self._models])

    def _prepare(self, logged: Logged) -> tuple[Lesson, tuple[int, int, int]]:
        """Check a log and make it a lesson; return with it the counts after it."""
        active = logged.weights > 0
        rewards, clipped = self._admitted(logged.rewards, active)
        sizes = np.diff(logged.offers.starts)
        events = self._events + np.cumsum(active)
        offered = self._offered + np.cumsum(np.where(active, sizes, 0))
        lesson = Lesson(
            logged.offers,
            logged.entries,
            (self._high - rewards) / (self._high - self._low),
            np.maximum(logged.propensities, self._min_propensity),
            logged.weights,
            events - active,
            events / np.maximum(offered, 1),
        )
        if not len(logged):
            return lesson, (self._events, self._offered, self._clipped)
        return lesson, (int(events[-1]), int(offered[-1]), self._clipped + clipped)

    def _admitted(
        self, rewards: NDArray[np.float64], active: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], int]:
        low, high = self._low, self._high
        outside = active & ~((rewards >= low) & (rewards <= high))
        expected = f"a reward in [{low!r}, {high!r}]"
        if outside.any() and self._clips:
            rewards = np.clip(rewards, low, high)
        if self._loss == "logistic":
            outside_ends = active & (rewards != low) & (rewards != high)
            expected = f"a reward of {low!r} or {high!r}"
        else:
            outside_ends = outside & (not self._clips)
        if outside_ends.any():
            first = int(np.argmax(outside_ends))
            raise BadRecord(expected, rewards[first].item(), path="$.reward", position=f"events[{first}]")
        return np.where(active, rewards, low), int(outside.sum())

    def _study(self, lesson: Lesson, *, looks: bool) -> NDArray[np.float64]:
        """Teach every learner; with `looks` return what each predicted just before, shape (B, m)."""
        if self._cost_type in ("dm", "mtr"):
            importance = lesson.weights
            if self._cost_type == "mtr":
                importance = importance * lesson.shares / lesson.propensities
            return self._teach_chosen(lesson, importance, looks=looks)
        pairs = self._pairs.all(lesson.offers)
        costs = self._vector(lesson, pairs)
        return np.stack(
            [
                teach_all(model, pairs, lesson, costs, lesson.weights * self._times(lesson, i), looks=looks)
                for i, model in enumerate(self._models)
            ]
        )

    def _teach_chosen(
        self, lesson: Lesson, importance: NDArray[np.float64], *, looks: bool
    ) -> NDArray[np.float64]:
        """Teach every learner the action taken only."""
        if looks:
            pairs = self._pairs.all(lesson.offers)
            return np.stack(
                [
                    look_and_teach(model, pairs, lesson, importance * self._times(lesson, i))
                    for i, model in enumerate(self._models)
                ]
            )
        pairs = self._pairs.chosen(lesson.offers, lesson.entries)
        for i, model in enumerate(self._models):
            model.learn(labelled(pairs, lesson.costs, importance * self._times(lesson, i)))
        return np.empty((len(self._models), 0))

    def _times(self, lesson: Lesson, number: int) -> NDArray[np.float64] | float:
        """How many times a learner is taught each event."""
        return 1.0

    def _vector(self, lesson: Lesson, pairs: Batch) -> NDArray[np.float64]:
        """Estimated cost of every action, by "ips" or "dr"; the latter's values learn on the way."""
        if self._cost_type == "ips":
            costs = np.zeros(len(pairs))
            costs[lesson.entries] = lesson.costs / lesson.propensities
            return costs
        return self._doubly_robust(lesson, pairs)

    def _doubly_robust(self, lesson: Lesson, pairs: Batch) -> NDArray[np.float64]:
        (values,) = self._values
        costs = in_range(look_and_teach(values, pairs, lesson, lesson.weights))
        costs[lesson.entries] += (lesson.costs - costs[lesson.entries]) / lesson.propensities
        return costs


class Predictor(Protocol):
    """What a frozen policy needs of a frozen learner."""

    def predict(self, batch: Batch, /) -> NDArray[np.float64]:
        """Predict every row."""
        ...

    def state(self) -> State:
        """Everything needed to rebuild it."""
        ...


class FrozenOraclePolicy:
    """A policy on a regression oracle as it was when it was frozen.

    Build it with ``freeze`` or ``load`` of the policy. Threads may share one if its models can be shared.
    """

    def __init__(self, rule: Rule, floor: float, kind: str, models: Sequence[Predictor], events: int) -> None:
        self._rule = rule
        self._floor = floor
        self._kind = kind
        self._models = tuple(models)
        self._events = events
        self._pairs = Pairs()

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Distribution over the offered actions of every event, one after the other, shape (m,)."""
        ages = np.full(len(offers), self._events)
        return _chances(self._rule, self._floor, self._look(self._pairs.all(offers)), offers.starts, ages)

    def state(self) -> State:
        """Everything that ``load`` of the policy needs, for a snapshot."""
        state: State = {
            "rule": json.dumps(dataclasses.asdict(self._rule)),
            "floor": self._floor,
            "learner": self._kind,
            "events": self._events,
            "n_models": len(self._models),
        }
        for i, model in enumerate(self._models):
            state |= prefixed(model.state(), f"models/{i}")
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any], rule: type[Rule]) -> FrozenOraclePolicy:
        """Rebuild what `state` wrote; `rule` is the policy's.

        Raises
        ------
        StoreError
            If it is not the state of such a policy.
        """
        kind, floor = state.get("learner"), state.get("floor")
        try:
            parameters = rule(**json.loads(state["rule"]))
            check(OraclePolicy, {"floor": floor})
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise StoreError(f"policy: its rule cannot be read: {error}") from None
        if not isinstance(kind, str):
            raise StoreError(f"policy: expected the name of a learner, got {kind!r}")
        models = [
            cls._load_model(kind, section(state, f"models/{i}")) for i in range(_count(state, "n_models"))
        ]
        return cls(parameters, float(floor), kind, models, _count(state, "events"))  # type: ignore[arg-type]

    @staticmethod
    def _load_model(kind: str, state: State) -> Predictor:
        return learners.load_model(kind, state)

    def _look(self, pairs: Batch) -> NDArray[np.float64]:
        return np.stack([model.predict(pairs) for model in self._models])


def look_and_teach(
    learner: Learner, pairs: Batch, lesson: Lesson, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Predict every action of an event, then teach the one taken; and so the next. Returns shape (m,)."""
    # Events of weight 0 are predicted only: with the action taken moved to the end of its event, and all
    # others at weight 0, one call does it for the whole log.
    starts = lesson.offers.starts
    entries = np.arange(len(pairs))
    last = np.repeat(starts[1:] - 1, np.diff(starts))
    chosen = np.repeat(lesson.entries, np.diff(starts))
    places = np.where(entries == chosen, last, entries - (entries > chosen))
    order = np.empty_like(places)
    order[places] = entries
    labels, importance = np.zeros(len(pairs)), np.zeros(len(pairs))
    labels[starts[1:] - 1] = lesson.costs
    importance[starts[1:] - 1] = weights
    return learner.progress(labelled(reordered(pairs, order), labels, importance))[places]


def teach_all(
    learner: Learner,
    pairs: Batch,
    lesson: Lesson,
    costs: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    looks: bool,
) -> NDArray[np.float64]:
    """Teach the costs of every action of an event; with `looks` predict all of them first. Shape (m,)."""
    starts = lesson.offers.starts
    sizes = np.diff(starts)
    importance = np.repeat(weights, sizes)
    if not looks:
        learner.learn(labelled(pairs, costs, importance))
        return np.empty(0)
    entries = np.arange(len(pairs))
    looked = entries + np.repeat(starts[:-1], sizes)  # of 2K places an event has, the first K
    taught = looked + np.repeat(sizes, sizes)
    order = np.empty(2 * len(pairs), np.int64)
    labels, both = np.zeros(len(order)), np.zeros(len(order))
    order[looked] = order[taught] = entries
    labels[taught] = costs
    both[taught] = importance
    return learner.progress(labelled(reordered(pairs, order), labels, both))[looked]


def in_range(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut predictions to the range of costs."""
    return np.clip(costs, 0.0, 1.0)


def _chances(
    rule: Rule,
    floor: float,
    costs: NDArray[np.float64],
    starts: NDArray[np.int64],
    ages: NDArray[np.int64],
) -> NDArray[np.float64]:
    if len(starts) == 1:
        return np.empty(0)
    return exact(floored(rule.probabilities(costs, starts, ages), starts, floor), starts)


def _checked_range(reward_range: Sequence[float]) -> tuple[float, float]:
    if len(reward_range) == 2:
        low, high = (float(end) for end in reward_range)
        if low < high and math.isfinite(high - low):
            return low, high
    raise ConfigError(f"reward_range: expected two finite numbers, the lower one first, got {reward_range!r}")


def _checked_learner(learner: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    parameters = dict(learner)
    kind = parameters.pop("kind", None)
    if not isinstance(kind, str):
        raise ConfigError(f"learner: expected a mapping with a kind, got {learner!r}")
    if kind == "sgd":
        parameters.setdefault("interactions", _CROSSES)
        if parameters.get("consolidation") and parameters.get("consolidate_every") is None:
            raise ConfigError("learner: give `consolidate_every`: a policy is not told of promotions")
    return kind, parameters


def _count(state: Mapping[str, Any], name: str) -> int:
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise StoreError(f"policy: expected {name} to be a count, got {value!r}")
    return value
