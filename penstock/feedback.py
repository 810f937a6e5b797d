"""What travels from an application back to the engine: decisions as they were made, and rewards.

On disk and in topics both are JSON, one record a line::

    {"id": "d-1", "time": 1.7e9, "context": {"hour": 9}, "actions": ["news", "sport"], "action": "news",
     "propensity": 0.75, "snapshot": 3}
    {"id": "d-1", "time": 1.7e9, "reward": 1.0}

A decision's ``actions`` are a list of ids, or an object from ids to the features of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, SupportsFloat, TypeAlias, get_args

import numpy as np
import orjson

from penstock._native.features import require_features
from penstock.decisions import Decision
from penstock.errors import BadRecord
from penstock.events import Row

__all__ = [
    "MAX_RECORD_BYTES",
    "MODES",
    "DecisionEvent",
    "Mode",
    "RewardEvent",
    "actions_of",
    "decision_of",
    "parse",
    "plain",
]

MAX_RECORD_BYTES: Final = 16 << 20
"""Of a line in a file: 10,000 actions of 50 numbers fit, a payload that would fill the disk does not."""
_ROUNDED: Final = 1e-3  # a log may have been written with few digits

Mode: TypeAlias = Literal["online", "apprentice", "logging_only"]
MODES: Final[tuple[str, ...]] = get_args(Mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionEvent:
    """A decision on its way to be learned: everything that was known when it was made.

    Attributes
    ----------
    id : str
    time : float
        Event time in seconds since the Unix epoch, finite.
    context : dict
    actions : tuple of str
        What could be chosen: at least one, all different.
    action_rows : tuple of dicts or None
        Features of each action, where they have any.
    chosen : int
        Which of the `actions` was taken, counted from 0.
    propensity : float, in (0, 1]
        Probability with which it was taken.
    weight : float
        Importance, finite and >= 0.
    snapshot : int
        Version of the policy that decided; 0 where there was none.
    probabilities : tuple of float or None
        The whole distribution that was drawn from, where it is known.
    pipeline : str
        Name that the key of the decision was made with.
    mode : "online", "apprentice" or "logging_only"
        As `Predictor` describes them.
    intended : tuple of (int, tuple of float) or None
        Where a baseline was played: what the policy would have drawn, and from which distribution.

    Raises
    ------
    BadRecord
        If a number is out of its range.
    """

    id: str
    time: float
    context: Row
    actions: tuple[str, ...]
    action_rows: tuple[Row, ...] | None = None
    chosen: int
    propensity: float
    weight: float = 1.0
    snapshot: int = 0
    probabilities: tuple[float, ...] | None = None
    pipeline: str = ""
    mode: Mode = "online"
    intended: tuple[int, tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.time):
            raise BadRecord("a finite number", self.time, path="$.time")
        if not 0 <= self.chosen < len(self.actions):
            raise BadRecord("one of the actions", self.chosen, path="$.action")
        if not 0.0 < self.propensity <= 1.0:
            raise BadRecord("a number in (0, 1]", self.propensity, path="$.propensity")
        if not 0.0 <= self.weight < math.inf:
            raise BadRecord("a finite number >= 0", self.weight, path="$.weight")
        if self.probabilities is not None and self.probabilities[self.chosen] != self.propensity:
            expected = f"the propensity among the probabilities, {self.probabilities[self.chosen]!r}"
            raise BadRecord(expected, self.propensity, path="$.propensity")

    @property
    def action(self) -> str:
        """What was taken."""
        return self.actions[self.chosen]

    @property
    def decision(self) -> Decision:
        """What the application was told.

        Raises
        ------
        BadRecord
            If the log does not hold the whole distribution.
        """
        if self.probabilities is None:
            raise BadRecord("the probability of every action", None, path="$.probabilities")
        return Decision(
            id=self.id,
            actions=self.actions,
            action=self.action,
            propensity=self.propensity,
            probabilities=self.probabilities,
            snapshot=self.snapshot,
        )

    def record(self) -> dict[str, Any]:
        """As it is written; what is at its default is left out."""
        record: dict[str, Any] = {
            "id": self.id,
            "time": self.time,
            "context": self.context,
            "actions": self.actions
            if self.action_rows is None
            else dict(zip(self.actions, self.action_rows, strict=True)),
            "action": self.action,
            "propensity": self.propensity,
            "snapshot": self.snapshot,
        }
        if self.probabilities is not None:
            record["probabilities"] = self.probabilities
        if self.weight != 1.0:
            record["weight"] = self.weight
        if self.pipeline:
            record["pipeline"] = self.pipeline
        if self.mode != "online":
            record["mode"] = self.mode
        if self.intended is not None:
            position, probabilities = self.intended
            record["intended"] = {"action": self.actions[position], "probabilities": probabilities}
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardEvent:
    """What a decision earned, or a part of it.

    Attributes
    ----------
    id : str
        Of the decision.
    time : float
        Event time in seconds since the Unix epoch, finite.
    value : float
        Finite; larger is better.
    reward_id : str or None
        The same twice for one decision is one reward, delivered twice. Rewards without one all count.

    Raises
    ------
    BadRecord
        If the time or the value is not finite.
    """

    id: str
    time: float
    value: float
    reward_id: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("reward", self.value), ("time", self.time)):
            if not math.isfinite(value):
                raise BadRecord("a finite number", value, path=f"$.{name}")

    def record(self) -> dict[str, Any]:
        """As it is written."""
        record = {"id": self.id, "time": self.time, "reward": self.value}
        return record if self.reward_id is None else {**record, "reward_id": self.reward_id}


def parse(line: bytes | str | Mapping[str, Any], *, position: str = "") -> DecisionEvent | RewardEvent:
    """Read one record: a reward if it has the field ``reward``, or a decision.

    Parameters
    ----------
    line : bytes, str or mapping
        JSON, or what it decodes to.
    position : str
        Of the record, for the message.

    Raises
    ------
    BadRecord
        Names the first field that is missing or wrong, or what in a context or an action is no feature:
        nobody could learn it, and what JSON has no word for would not survive a checkpoint.

    Examples
    --------
    >>> parse('{"id": "d-1", "time": 12.5, "reward": 1}')
    RewardEvent(id='d-1', time=12.5, value=1.0, reward_id=None)
    >>> parse('{"id": "d-1", "time": 12.5, "reward": "much"}', position="rewards.jsonl:7")
    Traceback (most recent call last):
    penstock.errors.BadRecord: expected a finite number, got 'much' - at `$.reward`, rewards.jsonl:7
    """
    if isinstance(line, bytes | str):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadRecord(f"JSON ({error})", line, position=position) from None
    else:
        record = line
    if not isinstance(record, Mapping):
        raise BadRecord("an object", record, position=position)
    try:
        if "reward" in record:
            return _reward(record)
        event = decision_of(record)
        require_features(event.context, "$.context")
        for action, row in zip(event.actions, event.action_rows or (), strict=False):
            require_features(row, f"$.actions.{action}")
    except BadRecord as error:
        raise BadRecord(error.expected, error.got, path=error.path, position=position) from None
    return event


def _reward(record: Mapping[str, Any]) -> RewardEvent:
    reward_id = record.get("reward_id")
    return RewardEvent(
        id=_text(record, "id"),
        time=_number(record, "time"),
        value=_number(record, "reward"),
        reward_id=None if reward_id is None else _text(record, "reward_id"),
    )


def decision_of(record: Mapping[str, Any]) -> DecisionEvent:
    """Read what `DecisionEvent.record` gives; whether contexts and actions hold features is not looked at.

    Raises
    ------
    BadRecord
        Names the first field that is missing or wrong.
    """
    context = record.get("context")
    if not isinstance(context, dict):
        raise BadRecord("an object", context, path="$.context")
    actions, action_rows = actions_of(record.get("actions"))
    snapshot = record.get("snapshot", 0)
    if type(snapshot) is not int or snapshot < 0:
        raise BadRecord("a version", snapshot, path="$.snapshot")
    mode = record.get("mode", "online")
    if mode not in MODES:
        raise BadRecord(f"one of {', '.join(MODES)}", mode, path="$.mode")
    pipeline = record.get("pipeline", "")
    if not isinstance(pipeline, str):
        raise BadRecord("a string", pipeline, path="$.pipeline")
    chosen = _position(record.get("action"), actions, "$.action")
    probabilities = record.get("probabilities")
    if probabilities is not None:
        probabilities = _distribution(probabilities, actions, "$.probabilities")
    intended = record.get("intended")
    if intended is not None:
        if not isinstance(intended, Mapping):
            raise BadRecord("an object", intended, path="$.intended")
        intended = (
            _position(intended.get("action"), actions, "$.intended.action"),
            _distribution(intended.get("probabilities"), actions, "$.intended.probabilities"),
        )
    return DecisionEvent(
        id=_text(record, "id"),
        time=_number(record, "time"),
        context=context,
        actions=actions,
        action_rows=action_rows,
        chosen=chosen,
        propensity=_number(record, "propensity"),
        weight=_number(record, "weight") if "weight" in record else 1.0,
        snapshot=snapshot,
        probabilities=probabilities,
        pipeline=pipeline,
        mode=mode,
        intended=intended,
    )


def actions_of(given: object) -> tuple[tuple[str, ...], tuple[Row, ...] | None]:
    """Return the ids of offered actions, and their features if `given` maps ids to features.

    Raises
    ------
    BadRecord
        If there is none, or one twice, or one that is no string, or features that are no mapping.
    """
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        raise BadRecord("a list of actions, or a mapping from actions to features", given, path="$.actions")
    actions: tuple[str, ...] = tuple(given)
    if not actions:
        raise BadRecord("at least one action", given, path="$.actions")
    for action in actions:
        if not isinstance(action, str):
            raise BadRecord("a string as action", action, path="$.actions")
    if len(set(actions)) != len(actions):
        raise BadRecord("different actions", list(actions), path="$.actions")
    if not isinstance(given, Mapping):
        return actions, None
    rows = tuple(given.values())
    for action, row in zip(actions, rows, strict=True):
        if not isinstance(row, Mapping):
            raise BadRecord("a mapping of names to features", row, path=f"$.actions.{action}")
    return actions, rows


def plain(value: object) -> Any:
    """Turn what orjson does not know into JSON of the same value: its ``default``.

    As for a learner, whatever has ``__float__`` is a number: a `Decimal`, a `Fraction`.

    Raises
    ------
    TypeError
        If there is none.
    """
    if isinstance(value, np.generic):
        value = value.item()
        if isinstance(value, bool | int | float | str):
            return value
    elif isinstance(value, np.ndarray):
        return value.tolist()
    elif isinstance(value, Mapping):
        return dict(value)
    elif isinstance(value, tuple):  # a named one
        return list(value)
    elif isinstance(value, SupportsFloat):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise BadRecord("a string that is not empty", value, path=f"$.{name}")
    return value


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecord("a finite number", value, path=f"$.{name}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadRecord("a finite number", value, path=f"$.{name}")
    return number


def _position(action: Any, actions: tuple[str, ...], path: str) -> int:
    if action not in actions:
        raise BadRecord("one of the actions", action, path=path)
    return actions.index(action)


def _distribution(given: object, actions: tuple[str, ...], path: str) -> tuple[float, ...]:
    if not isinstance(given, list | tuple) or len(given) != len(actions):
        raise BadRecord(f"{len(actions)} probabilities, one an action", given, path=path)
    for probability in given:
        if isinstance(probability, bool) or not isinstance(probability, int | float):
            raise BadRecord("a probability", probability, path=path)
        if not 0.0 <= probability <= 1.0:
            raise BadRecord("a probability", probability, path=path)
    if abs(math.fsum(given) - 1.0) > _ROUNDED:
        raise BadRecord("probabilities that sum to 1", math.fsum(given), path=path)
    return tuple(map(float, given))
