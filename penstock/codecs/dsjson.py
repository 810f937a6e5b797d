"""VW's dsjson: what the Decision Service and Personalizer log, one contextual bandit decision a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.dsjson import DecisionReader
from penstock._native.features import require_features
from penstock.codecs.base import Where
from penstock.codecs.decisions import (
    Decisions,
    DecodedLog,
    Records,
    decoded_json,
    dumped,
    read_propensity,
    spans,
)
from penstock.codecs.declined import with_dates
from penstock.codecs.spans import LineSpans, Spans
from penstock.codecs.values import class_name, path_of, read_id, read_number, read_time
from penstock.codecs.woven import lazy_rows, woven
from penstock.decisions import Logged, Offers, keys_of
from penstock.errors import BadRecord
from penstock.events import Row
from penstock.feedback import DecisionEvent, RewardEvent

__all__ = ["DSJSON"]

_SLOTS: Final = ("_outcomes", "_slots")  # of conditional contextual bandits, and of slates
_MAX_DEPTH: Final = 32  # beyond it nothing is a feature, and the record bad
_PROBABILITY: Final = "a number in [0, 1]"
_ROUNDED: Final = 1e-3  # of a sum of probabilities: a log may have been written with few digits
_TOLERANCE: Final = 1e-5  # of a probability that is written twice, as float32


class DSJSON:
    """Decodes and writes dsjson. Rewards are larger-is-better, so they are minus ``_label_cost``.

    ====================== =================================================================
    _label_cost            minus the reward
    _label_probability     the propensity; if it is not there, what ``p`` says of the action
    _label_Action          what was taken, from 1; and ``_labelIndex``, from 0: one is needed
    a, p                   all actions, from 1, what was taken first; and their probabilities
    c                      the context; ``_multi`` in it the features of each action
    EventId, Timestamp     id and time
    pdrop                  probability with which the event might have been dropped: those that were
                           not weigh ``1 / (1 - pdrop)``
    _skipLearn             the decision was not put into effect: weight 0
    ====================== =================================================================

    Names that begin with an underscore are no features, as in VW, but for ``_text``, which is one category
    here. ``o`` (the single observations) is not looked at: the label is what they came to. Decisions over
    several slots (``_outcomes``) are rejected.

    A kernel hashes the lines straight from their bytes; what it declines, because it is unusual or wrong,
    goes the longer way by dicts, which says what is wrong with it. Rows are made if somebody reads them.

    Parameters
    ----------
    arm : str, optional
        Where in an action its identity stands, such as ``i.id`` or ``_tag``. Where not given, the
        action's number, from 1, is taken for its identity.
    pipeline : str
        Name that the keys of the decisions are made with; a decision without an id gets its key from its
        position.

    Examples
    --------
    >>> line = (
    ...     b'{"_label_cost":-1,"_label_probability":0.75,"_label_Action":2,"_labelIndex":1,'
    ...     b'"a":[2,1],"c":{"user":{"id":"a"},"_multi":[{"i":{"id":"x"}},{"i":{"id":"y"}}]},"p":[0.75,0.25]}'
    ... )
    >>> records, _ = DSJSON(arm="i.id").decode([line], "log:{}".format)
    >>> log = records.logged
    >>> log.offers.arms.tolist(), log.chosen, log.rewards, log.propensities
    (['x', 'y'], array([1]), array([1.]), array([0.75]))
    """

    needs_header = False

    def __init__(self, *, arm: str | None = None, pipeline: str = "") -> None:
        self._arm = arm.split(".") if arm else None
        self._pipeline = pipeline
        self._reader = DecisionReader(arm=self._arm or ())

    def with_header(self, record: bytes, where: str) -> DSJSON:
        """There is no header."""
        del record, where
        return self

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> LineSpans:
        """Cut at line ends."""
        return LineSpans(limit, offset, number)

    def decode(self, records: Sequence[bytes], where: Where) -> DecodedLog:
        """Decode one decision a line."""
        read = self._reader.read(records.parts if isinstance(records, Spans) else list(records))
        if read is None:
            return self._decode(records, where)
        contexts, starts, arms, actions, chosen, propensities, rewards, weights, times, ids = read[:-3]
        dates, kept, declined = read[-3:]
        if dates:
            declined = with_dates(times, dates, kept, declined, text=False)

        def read_rows(number: int) -> tuple[Row, Sequence[Row]]:
            context = decoded_json(records[number])["c"]
            return _features(context), [_features(action) for action in context["_multi"]]

        numbers = kept.tolist()
        names = [name or where(i) for name, i in zip(ids, numbers, strict=True)]
        rows, action_rows = lazy_rows(starts, kept, read_rows)
        logged = Logged(
            offers=Offers(
                contexts=contexts,
                rows=rows,
                starts=starts,
                arms=arms,
                actions=actions,
                action_rows=action_rows,
                keys=keys_of(names, self._pipeline),
            ),
            chosen=chosen,
            propensities=propensities,
            rewards=rewards,
            weights=weights,
        )
        decoded = Records(logged=logged, ids=ids, times=times, where=lambda i: where(numbers[i]))
        if len(declined) == 0:
            return decoded, ()
        others = declined.tolist()
        slow = self._decode([records[i] for i in others], lambda i: where(others[i]))
        return woven(decoded, kept, slow, declined, where, read_rows)

    def _decode(self, records: Sequence[bytes], where: Where) -> DecodedLog:
        """Decode by way of dicts."""
        decisions = Decisions(self._pipeline, context_path="$.c", action_path="$.c._multi[{}]")
        for i, data in enumerate(records):
            try:
                decisions.add(i, **self._fields(decoded_json(data)))
            except BadRecord as error:
                decisions.reject(i, error)
        return decisions.decoded(where, records.__getitem__)

    def feedback(self, data: bytes) -> tuple[DecisionEvent, RewardEvent]:
        """Read one line as the decision that it was, and what it earned, at the same time.

        Both have the id of the event, so that a line that comes twice counts once where they are joined.

        Raises
        ------
        BadRecord
            If it is no such line, or holds what is no feature, or lacks the ``EventId`` or ``Timestamp``
            that joining needs.
        """
        record = decoded_json(data)
        fields = self._fields(record)
        for field, name in (("id", "EventId"), ("time", "Timestamp")):
            if fields.get(field) in (None, ""):
                raise BadRecord(
                    "what the event is called, and when it was", record.get(name), path=f"$.{name}"
                )
        require_features(fields["context"], "$.c")
        for j, row in enumerate(fields["action_rows"]):
            require_features(row, f"$.c._multi[{j}]")
        event, time = fields["id"], fields["time"]
        decision = DecisionEvent(
            id=event,
            time=time,
            context=fields["context"],
            actions=tuple(fields["arms"]),
            action_rows=tuple(fields["action_rows"]),
            chosen=fields["chosen"],
            propensity=fields["propensity"],
            weight=fields["weight"],
        )
        return decision, RewardEvent(id=event, time=time, value=fields["reward"], reward_id=event)

    def _fields(self, record: dict[str, Any]) -> dict[str, Any]:
        context = record.get("c")
        if not isinstance(context, dict):
            raise BadRecord("a mapping of names to features", context, path="$.c")
        for name in _SLOTS:
            if name in record or name in context:
                path = f"$.{name}" if name in record else f"$.c.{name}"
                raise BadRecord("one action a decision (not slots, as of ccb)", name, path=path)
        actions = context.get("_multi")
        if not isinstance(actions, list) or not actions:
            raise BadRecord("a list of at least one action", actions, path="$.c._multi")
        for j, action in enumerate(actions):
            if not isinstance(action, dict):
                raise BadRecord("a mapping of names to features", action, path=f"$.c._multi[{j}]")
        chosen = _chosen(record, len(actions))
        fields: dict[str, Any] = {
            "context": _features(context),
            "arms": self._arms(actions),
            "action_rows": [_features(action) for action in actions],
            "chosen": chosen,
            "propensity": _propensity(record, chosen, len(actions)),
            "reward": 0.0 - read_number(record.get("_label_cost"), text=False, path="$._label_cost"),
            "weight": _weight(record),
        }
        if record.get("EventId") is not None:
            fields["id"] = read_id(record["EventId"], path="$.EventId")
        if record.get("Timestamp") is not None:
            fields["time"] = read_time(record["Timestamp"], text=False, path="$.Timestamp")
        return fields

    def _arms(self, actions: Sequence[Mapping[str, Any]]) -> list[str]:
        if self._arm is None:
            return [str(number) for number in range(1, len(actions) + 1)]
        arms: list[str] = []
        for j, action in enumerate(actions):
            value: Any = action
            for name in self._arm:
                value = value.get(name) if isinstance(value, dict) else None
            path = f"$.c._multi[{j}].{'.'.join(self._arm)}"
            arm = class_name(value)
            if arm is None:
                raise BadRecord("what the action is called", value, path=path)
            if arm in arms:
                raise BadRecord("different actions", arm, path=path)
            arms.append(arm)
        return arms

    def encode(
        self,
        logged: Logged,
        *,
        ids: Sequence[str] | None = None,
        times: NDArray[np.float64] | None = None,
        probabilities: NDArray[np.float64] | None = None,
    ) -> Iterator[bytes]:
        """Write each decision as a line without its end, for ``vw --dsjson --cb_explore_adf`` and others.

        Parameters
        ----------
        logged : Logged
            n events that offer m actions.
        ids : sequence of str, length n, optional
        times : float64, shape (n,), optional
            Seconds since the Unix epoch; NaN where there is none.
        probabilities : float64, shape (m,), optional
            The whole distributions that were drawn from, for the field ``p``; without them it is left out.

        Yields
        ------
        bytes
            The identity of an action is its ``_tag``: ``DSJSON(arm="_tag")`` reads it back. An action without
            features gets its identity as one, ``{"id": arm}``: VW could not tell it from others.

        Raises
        ------
        BadRecord
            If a weight is between 0 and 1, which no drop accounts for, or a name begins with an underscore,
            which makes it no feature, or a value is not JSON.
        """
        offers = logged.offers
        for i, (low, high) in enumerate(spans(offers)):
            chosen = int(logged.chosen[i])
            order = [chosen, *(j for j in range(high - low) if j != chosen)]
            record: dict[str, Any] = {
                "_label_cost": 0.0 - logged.rewards[i].item(),
                "_label_probability": logged.propensities[i].item(),
                "_label_Action": chosen + 1,
                "_labelIndex": chosen,
            }
            reward: dict[str, Any] = {"v": logged.rewards[i].item(), "ActionTaken": False}
            if ids is not None and ids[i]:
                reward["EventId"] = ids[i]
            record["o"] = [reward]
            if times is not None and math.isfinite(times[i]):
                moment = datetime.fromtimestamp(times[i].item(), UTC)
                record["Timestamp"] = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
            record["Version"] = "1"
            if ids is not None and ids[i]:
                record["EventId"] = ids[i]
            record["a"] = [j + 1 for j in order]
            arms, rows = offers.arms[low:high].tolist(), offers.action_rows[low:high]
            _require_names(offers.rows[i], "$.c", i)
            for j, row in enumerate(rows):
                _require_names(row, f"$.c._multi[{j}]", i)
            actions = [{"_tag": arm, **(row or {"id": arm})} for arm, row in zip(arms, rows, strict=True)]
            record["c"] = {**offers.rows[i], "_multi": actions}
            if probabilities is not None:
                record["p"] = [probabilities[low + j].item() for j in order]
            record |= _drop(logged.weights[i].item(), i)
            yield dumped(record, i)


def _chosen(record: Mapping[str, Any], n: int) -> int:
    """Return which of n actions was taken, counted from 0."""
    positions = {}
    for name, first in (("_label_Action", 1), ("_labelIndex", 0)):
        value = record.get(name)
        if value is None:
            continue
        if type(value) is not int or not first <= value < n + first:
            raise BadRecord(f"one of {n} actions, counted from {first}", value, path=f"$.{name}")
        positions[name] = value - first
    if not positions:
        raise BadRecord("the number of the action that was taken", None, path="$._label_Action")
    if len(set(positions.values())) > 1:
        expected = f"{positions['_label_Action']}, as _label_Action says"
        raise BadRecord(expected, positions["_labelIndex"], path="$._labelIndex")
    return next(iter(positions.values()))


def _propensity(record: Mapping[str, Any], chosen: int, n: int) -> float:
    order, given = record.get("a"), record.get("p")
    if not isinstance(order, list) or sorted(map(_integer, order)) != list(range(1, n + 1)):
        raise BadRecord(f"each of {n} actions once, counted from 1", order, path="$.a")
    told = record.get("_label_probability")
    if given is None:
        return read_propensity(told, path="$._label_probability")
    if not isinstance(given, list) or len(given) != n:
        raise BadRecord(f"{n} probabilities", given, path="$.p")
    for i, probability in enumerate(given):
        if not 0.0 <= read_number(probability, text=False, path=f"$.p[{i}]", expected=_PROBABILITY) <= 1.0:
            raise BadRecord(_PROBABILITY, probability, path=f"$.p[{i}]")
    total = math.fsum(given)
    if abs(total - 1.0) > _ROUNDED:
        raise BadRecord("probabilities that sum to 1", total, path="$.p")
    place = order.index(chosen + 1)
    listed = read_propensity(given[place], path=f"$.p[{place}]")
    if told is None:
        return listed
    propensity = read_propensity(told, path="$._label_probability")
    if abs(propensity - listed) > _TOLERANCE:
        raise BadRecord(f"{listed!r}, as p says", told, path="$._label_probability")
    return propensity


def _integer(value: Any) -> int:
    return value if type(value) is int else -1


def _weight(record: Mapping[str, Any]) -> float:
    skips = record.get("_skipLearn", False)
    if not isinstance(skips, bool):
        raise BadRecord("true or false", skips, path="$._skipLearn")
    expected = "a number in [0, 1)"
    dropped = read_number(record.get("pdrop", 0.0), text=False, path="$.pdrop", expected=expected)
    if not 0.0 <= dropped < 1.0:
        raise BadRecord(expected, dropped, path="$.pdrop")
    return 0.0 if skips else 1.0 / (1.0 - dropped)


def _features(names: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Leave out what VW takes for no feature, as deep as features can be nested."""
    return {
        name: _features(value, depth + 1) if isinstance(value, dict) and depth < _MAX_DEPTH else value
        for name, value in names.items()
        if _is_feature(name)
    }


def _is_feature(name: str) -> bool:
    return not name.startswith("_") or name == "_text"


def _require_names(names: Mapping[str, Any], path: str, event: int) -> None:
    """Refuse what `_features` would leave out, unnoticed, or take for something else."""
    for name, value in names.items():
        inside = path_of(name, path)
        if not _is_feature(name):
            expected = "a name that does not begin with an underscore, which in dsjson is no feature"
            raise BadRecord(expected, name, path=inside, position=f"events[{event}]")
        if isinstance(value, Mapping):
            _require_names(value, inside, event)


def _drop(weight: float, event: int) -> dict[str, Any]:
    """Return the fields that make VW weigh an event so."""
    if weight == 0.0:
        return {"_skipLearn": True}
    if weight < 1.0:
        expected = "a weight of 0, or at least 1 (dsjson has the probability of a drop for it)"
        raise BadRecord(expected, weight, path="$.weight", position=f"events[{event}]")
    return {} if weight == 1.0 else {"pdrop": 1.0 - 1.0 / weight}
