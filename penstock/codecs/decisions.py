"""Logs of decisions with what they earned: what all their formats share, and JSON lines.

What a record has to hold to be learned from, and to judge other policies by, is checked here for every
format; one that lacks it is rejected like any other bad record:

============================================ ==============================
no actions, or one twice                     rejected
an action that was not offered (retired)     rejected
propensity missing, 0, above 1, NaN          rejected
reward or weight missing or not finite       rejected (a weight may be left out: 1)
weight 0                                     kept, and counts nowhere
a value that is no feature                   rejected
============================================ ==============================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock._native.features import encode_rows
from penstock.codecs.base import Framer, Where, utf8_error
from penstock.codecs.framing import Lines
from penstock.codecs.values import read_id, read_number, read_time, read_weight
from penstock.decisions import Logged, Offers, keys_of
from penstock.errors import BadRecord
from penstock.events import Features, Row
from penstock.feedback import actions_of, plain
from penstock.sources.base import Rejected

__all__ = [
    "PROPENSITY",
    "DecisionJSON",
    "Decisions",
    "DecodedLog",
    "LogCodec",
    "Records",
    "decoded_json",
    "dumped",
    "read_propensity",
    "rejected",
    "spans",
]

PROPENSITY: Final = "a number in (0, 1]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Logged decisions, with what only their log knows of them.

    Attributes
    ----------
    logged : Logged
        n decisions.
    ids : sequence of str, length n
        Empty where the record has none.
    times : float64, shape (n,)
        Seconds since the Unix epoch; NaN where the record has none.
    where : callable
        Position of the record of decision i.
    """

    logged: Logged
    ids: Sequence[str]
    times: NDArray[np.float64]
    where: Where

    def __len__(self) -> int:
        return len(self.logged)


DecodedLog: TypeAlias = "tuple[Records, tuple[Rejected, ...]]"


@runtime_checkable
class LogCodec(Protocol):
    """Decodes one format of a log; as `Codec`, but for what it gives."""

    @property
    def needs_header(self) -> bool:
        """Whether nothing can be decoded before `with_header` was given the first record of the file."""
        ...

    def with_header(self, record: bytes, where: str) -> LogCodec:
        """Return the codec for the records that follow `record`."""
        ...

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> Framer:
        """Return what cuts a stream into records of at most `limit` bytes."""
        ...

    def decode(self, records: Sequence[bytes], where: Where) -> DecodedLog:
        """Decode every record on its own; the good ones, and the bad ones, in order."""
        ...


class Decisions:
    """Decisions while they are put together, and the records among them that turned out bad.

    Parameters
    ----------
    pipeline : str
        Name that the keys of the decisions are made with.
    context_path, action_path : str
        Where a record holds its context, and (with ``{}`` for the number) the features of an action.
    """

    def __init__(self, pipeline: str, *, context_path: str, action_path: str) -> None:
        self._pipeline = pipeline
        self._context_path = context_path
        self._action_path = action_path
        self._kept: list[int] = []
        self._contexts: list[Row] = []
        self._arms: list[str] = []
        self._action_rows: list[Row] = []
        self._sizes: list[int] = []
        self._numbers: list[tuple[int, float, float, float, float]] = []
        self._ids: list[str] = []
        self._bad: list[tuple[int, BadRecord]] = []

    def add(
        self,
        record: int,
        *,
        context: Row,
        arms: Sequence[str],
        action_rows: Sequence[Row] | None,
        chosen: int,
        propensity: float,
        reward: float,
        weight: float = 1.0,
        time: float = math.nan,
        id: str = "",  # noqa: A002  (the field's name)
    ) -> None:
        """Take a decision whose fields have been checked."""
        self._kept.append(record)
        self._contexts.append(context)
        self._arms += arms
        self._action_rows += action_rows if action_rows is not None else ({},) * len(arms)
        self._sizes.append(len(arms))
        self._numbers.append((chosen, propensity, reward, weight, time))
        self._ids.append(id)

    def reject(self, record: int, error: BadRecord) -> None:
        """Take a record for bad."""
        self._bad.append((record, error))

    def decoded(self, where: Where, raw: Callable[[int], bytes]) -> DecodedLog:
        """Return the good decisions, and a dead letter for every bad record.

        Parameters
        ----------
        where, raw : callable
            Position and original bytes of record i.
        """
        contexts, bad_contexts = encode_rows(self._contexts)
        actions, bad_actions = encode_rows(self._action_rows)
        starts = np.concatenate(([0], np.cumsum(self._sizes, dtype=np.int64)))
        unusable = {
            i: BadRecord(error.expected, error.got, path=self._context_path + error.path.removeprefix("$"))
            for i, error in bad_contexts
        }
        for entry, error in bad_actions:
            i = int(np.searchsorted(starts, entry, side="right")) - 1
            path = self._action_path.format(entry - int(starts[i])) + error.path.removeprefix("$")
            unusable.setdefault(i, BadRecord(error.expected, error.got, path=path))
        kept = np.array(self._kept, dtype=np.int64)
        good = np.array([i for i in range(len(kept)) if i not in unusable], dtype=np.int64)
        bad = sorted([*self._bad, *((self._kept[i], error) for i, error in unusable.items())], key=_number)
        records = self._records(good, contexts, actions, starts, where)
        return records, tuple(
            rejected(error, where(i), raw(i), int(np.searchsorted(kept[good], i))) for i, error in bad
        )

    def _records(
        self,
        good: NDArray[np.int64],
        contexts: Features,
        actions: Features,
        starts: NDArray[np.int64],
        where: Where,
    ) -> Records:
        numbers = np.array(self._numbers, dtype=np.float64).reshape(-1, 5)[good]
        rows: Sequence[Row] = self._contexts
        action_rows: Sequence[Row] = self._action_rows
        arms = np.array([*self._arms, None], dtype=object)[:-1]  # never taken for a matrix
        if len(good) < len(rows):
            sizes = np.diff(starts)
            keeps = np.zeros(len(rows), dtype=bool)
            keeps[good] = True
            entries = np.flatnonzero(np.repeat(keeps, sizes))
            rows = [rows[i] for i in good.tolist()]
            action_rows = [action_rows[i] for i in entries.tolist()]
            arms, contexts, actions = arms[entries], contexts.take(good), actions.take(entries)
            starts = np.concatenate(([0], np.cumsum(sizes[good])))
        ids = [self._ids[i] for i in good.tolist()]
        names = [name or where(self._kept[i]) for name, i in zip(ids, good.tolist(), strict=True)]
        offers = Offers(
            contexts=contexts,
            rows=rows,
            starts=starts,
            arms=arms,
            actions=actions,
            action_rows=action_rows,
            keys=keys_of(names, self._pipeline),
        )
        logged = Logged(
            offers=offers,
            chosen=numbers[:, 0].astype(np.int64),
            propensities=numbers[:, 1].copy(),
            rewards=numbers[:, 2].copy(),
            weights=numbers[:, 3].copy(),
        )
        kept = [self._kept[i] for i in good.tolist()]
        return Records(logged=logged, ids=ids, times=numbers[:, 4].copy(), where=lambda i: where(kept[i]))


def _number(entry: tuple[int, BadRecord]) -> int:
    return entry[0]


def rejected(error: BadRecord, where: str, data: bytes, after: int) -> Rejected:
    """Make the dead letter of a record."""
    reason = str(BadRecord(error.expected, error.got, path=error.path, position=where))
    return Rejected(reason=reason, where=where, data=data, after=after)


def decoded_json(data: bytes) -> dict[str, Any]:
    """Return the object that a line is.

    Raises
    ------
    BadRecord
        If it is none.
    """
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        expected = utf8_error(data) or f"JSON ({error.msg}, column {error.colno})"
        raise BadRecord(expected, data) from None
    if not isinstance(record, dict):
        raise BadRecord("a mapping of names to values", record)
    return record


def read_propensity(value: Any, *, path: str) -> float:
    """Return a probability that something was taken with, hence not 0."""
    propensity = read_number(value, text=False, path=path, expected=PROPENSITY)
    if not 0.0 < propensity <= 1.0:
        raise BadRecord(PROPENSITY, value, path=path)
    return propensity


class DecisionJSON:
    """Decodes JSON lines of decisions that have been joined with their rewards.

    ::

        {"id": "d-1", "time": 1.7e9, "context": {"hour": 9}, "actions": ["news", "sport"], "action": "news",
         "propensity": 0.75, "reward": 1.0}

    ``actions`` may map each action to its features instead. ``weight``, ``time``, ``context`` and ``id`` may
    be left out; other fields are not looked at. A record whose id came before is a decision like any other.

    Parameters
    ----------
    pipeline : str
        Name that the keys of the decisions are made with: chance in learning is the learner's own, whichever
        pipeline decided. A decision without an id gets its key from its position.

    Examples
    --------
    >>> line = b'{"actions": ["news", "sport"], "action": "sport", "propensity": 0.25, "reward": 1}'
    >>> (records, _) = DecisionJSON().decode([line], "log:{}".format)
    >>> records.logged.chosen, records.logged.propensities
    (array([1]), array([0.25]))
    """

    needs_header = False

    def __init__(self, *, pipeline: str = "") -> None:
        self._pipeline = pipeline

    def with_header(self, record: bytes, where: str) -> DecisionJSON:
        """JSON has no header."""
        del record, where
        return self

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> Lines:
        """Cut at line ends."""
        return Lines(limit, offset, number)

    def decode(self, records: Sequence[bytes], where: Where) -> DecodedLog:
        """Decode one decision a line."""
        decisions = Decisions(self._pipeline, context_path="$.context", action_path="$.actions[{}]")
        for i, data in enumerate(records):
            try:
                decisions.add(i, **self._fields(decoded_json(data)))
            except BadRecord as error:
                decisions.reject(i, error)
        return decisions.decoded(where, records.__getitem__)

    def _fields(self, record: dict[str, Any]) -> dict[str, Any]:
        context = record.get("context", {})
        if not isinstance(context, dict):
            raise BadRecord("a mapping of names to features", context, path="$.context")
        arms, action_rows = actions_of(record.get("actions"))
        action = record.get("action")
        if not isinstance(action, str) or action not in arms:
            raise BadRecord("one of the offered actions", action, path="$.action")
        fields: dict[str, Any] = {
            "context": context,
            "arms": arms,
            "action_rows": action_rows,
            "chosen": arms.index(action),
            "propensity": read_propensity(record.get("propensity"), path="$.propensity"),
            "reward": read_number(record.get("reward"), text=False, path="$.reward"),
        }
        for name, read in (("weight", _read_weight), ("time", _read_time), ("id", _read_id)):
            if record.get(name) is not None:
                fields[name] = read(record[name])
        return fields

    def encode(
        self, logged: Logged, *, ids: Sequence[str] | None = None, times: NDArray[np.float64] | None = None
    ) -> Iterator[bytes]:
        """Write each decision as a line without its end; `decode` reads it back as it is.

        Raises
        ------
        BadRecord
            Names the first event that holds what JSON cannot.
        """
        offers = logged.offers
        for i, (low, high) in enumerate(spans(offers)):
            arms, rows = offers.arms[low:high].tolist(), offers.action_rows[low:high]
            record = {
                "context": offers.rows[i],
                "actions": dict(zip(arms, rows, strict=True)) if any(rows) else arms,
                "action": arms[int(logged.chosen[i])],
                "propensity": logged.propensities[i].item(),
                "reward": logged.rewards[i].item(),
            }
            if logged.weights[i] != 1.0:
                record["weight"] = logged.weights[i].item()
            if times is not None and math.isfinite(times[i]):
                record = {"time": times[i].item(), **record}
            if ids is not None and ids[i]:
                record = {"id": ids[i], **record}
            yield dumped(record, i)


def spans(offers: Offers) -> Iterator[tuple[int, int]]:
    """Of each event where its actions begin and end."""
    return pairwise(offers.starts.tolist())


def dumped(record: Mapping[str, Any], event: int) -> bytes:
    """Return the line of a record, or raise `BadRecord`."""
    try:
        return orjson.dumps(record, default=plain, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        where = f"events[{event}]"
        raise BadRecord(f"values that JSON can hold ({error})", record, position=where) from None


def _read_weight(value: Any) -> float:
    return read_weight(value, text=False, path="$.weight")


def _read_time(value: Any) -> float:
    return read_time(value, text=False, path="$.time")


def _read_id(value: Any) -> str:
    return read_id(value, path="$.id")
