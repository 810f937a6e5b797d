"""Events of any source, sent to the Kafka topic that another pipeline learns from."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from penstock import sources
from penstock.errors import ConfigError, ServiceError
from penstock.events import Batch, TaskKind

if TYPE_CHECKING:
    from penstock.config import Pipeline

__all__ = ["PARTITIONS", "Sent", "Shape", "produce"]

PARTITIONS: Final = 4
"""Of a topic that has to be made, where nobody says how many."""

_CHUNK: Final = 1024  # events read at a time
_SLICE_S: Final = 0.5  # of a wait: how long Ctrl-C may go unnoticed
_log = logging.getLogger("penstock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What `produce` did."""

    events: int
    rejected: int  # records of the source that are no events; they were left out
    topic: str
    partitions: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How feedback in JSON has to look for a source to read it: what it calls its fields.

    Attributes
    ----------
    task : "binary", "multiclass" or "regression"
    label, weight, id, time, features : str
        Names of the fields.
    classes : pair of class names, optional
        Of a binary task: negative, positive. 0 and 1 where not given.

    Examples
    --------
    >>> batch = Batch.from_rows([{"age": 31, "user": {"country": "SE"}}], [1.0])
    >>> [(key, record)] = Shape(task="binary").records(batch, first=7, name="clicks")
    >>> key, record.decode()
    ('clicks-7', '{"id":"clicks-7","features":{"age":31,"user":{"country":"SE"}},"label":1,"weight":1.0}')
    """

    task: TaskKind
    label: str = "label"
    weight: str = "weight"
    id: str = "id"
    time: str = "time"
    features: str = "features"
    classes: Sequence[str | int | bool] | None = field(default=None)

    @classmethod
    def of(cls, pipeline: Pipeline) -> Shape:
        """Return what a pipeline's source reads.

        Raises
        ------
        ConfigError
            If it does not read feedback in JSON from Kafka.
        """
        kind, given = pipeline.source.kind, pipeline.source.parameters
        if kind != "kafka":
            raise ConfigError(f"{pipeline.name}: `source.kind`: expected 'kafka', got {kind!r}")
        if given.get("format", "json") != "json":
            raise ConfigError(f"{pipeline.name}: `source.format`: only JSON is sent, got {given['format']!r}")
        names = {
            role: given[role] for role in ("label", "weight", "id", "time", "features") if given.get(role)
        }
        return cls(task=pipeline.task, classes=given.get("classes"), **names)

    def records(self, batch: Batch, *, first: int, name: str) -> Iterator[tuple[str, bytes]]:
        """Give the key and the JSON of each event. What is not known of an event is left out.

        Parameters
        ----------
        batch : Batch
            Labels as a source gives them.
        first : int
            Number of its first event in the source.
        name : str
            What the key of an event without an id begins with; its number follows.

        Raises
        ------
        ConfigError
            If a feature cannot be said in JSON.
        """
        labels = self._labels(batch)
        weights, times = batch.weights.tolist(), batch.times.tolist()
        ids = itertools.repeat("", len(batch)) if batch.ids is None else batch.ids
        for i, (given, row) in enumerate(zip(ids, batch.rows, strict=True)):
            key = given or f"{name}-{first + i}"
            record: dict[str, Any] = {self.id: key}
            if times[i] == times[i]:
                record[self.time] = times[i]
            record[self.features] = row
            if labels[i] is not None:
                record[self.label] = labels[i]
            record[self.weight] = weights[i]
            try:
                yield key, orjson.dumps(record, default=_plain, option=orjson.OPT_NON_STR_KEYS)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"event {key!r} cannot be sent as JSON: {error}") from None

    def _labels(self, batch: Batch) -> list[Any]:
        """Return each label as a record has it; None where there is none."""
        labels = batch.labels.tolist()
        if self.task == "multiclass":
            return [label or None for label in labels]
        if self.task == "regression":
            return [label if label == label else None for label in labels]
        negative, positive = self.classes or (0, 1)
        return [None if label != label else positive if label else negative for label in labels]


def _plain(value: Any) -> Any:
    """Turn what orjson does not know into the Python value that a source takes it for."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()  # numpy's float32 too becomes the float64 that was hashed
    return float(value)


def produce(
    origin: Pipeline,
    target: Pipeline,
    *,
    limit: int | None = None,
    rate: float | None = None,
    partitions: int | None = None,
) -> Sent:
    """Send the events of one pipeline's source to the topic of another's.

    An event's key is its id, or else the name of `origin` and the event's number: sent once more, it has
    the same key, by which a reader can tell that it was there already.

    Parameters
    ----------
    origin, target : Pipeline
        Their task must be the same. The topic is made if it is not there.
    limit : int, optional
        How many events to send.
    rate : float, optional
        Events a second, at most.
    partitions : int, optional
        Of a topic that has to be made; `PARTITIONS` if not given.

    Raises
    ------
    ConfigError
        If the pipelines do not fit together, or the topic's partitions are not as many as asked for.
    DataError
        If the source cannot be used.
    ServiceError
        If the broker cannot be reached, or does not take every event.
    """
    from penstock.kafka import client, topics

    shape = Shape.of(target)
    if origin.task != target.task:
        raise ConfigError(
            f"{origin.name} is {origin.task}, {target.name} is {target.task}: expected one task"
        )
    given = target.source.parameters
    if origin.source.kind == "kafka" and origin.source.parameters.get("topics") == given["topics"]:
        raise ConfigError(f"{origin.name} reads the topic that it would be sent to, {given['topics']!r}")
    named = [given["topics"]] if isinstance(given["topics"], str) else list(given["topics"])
    topic = named[0]
    if len(named) > 1:
        raise ConfigError(f"{target.name}: `source.topics`: expected one topic to send to, got {len(named)}")
    connection = client.Connection(bootstrap=given["bootstrap"], settings=given.get("settings") or {})
    source = sources.build(origin.source.kind, origin.learning_task, **origin.source.parameters)

    began = time.monotonic()
    n_partitions = topics.ensure(connection, topic, create=True, n_partitions=partitions or PARTITIONS)
    if partitions not in (None, n_partitions):
        raise ConfigError(
            f"the topic {topic!r} is there already, with {n_partitions} partitions, not {partitions}"
        )
    sender = _Sender(client.producer(connection), topic)
    rejected = 0
    for chunk in source.chunks(None, _CHUNK if rate is None else max(1, min(_CHUNK, int(rate * _SLICE_S)))):
        for bad in chunk.rejected:
            _log.warning("left out: %s", bad.reason)
        rejected += len(chunk.rejected)
        room = len(chunk.batch) if limit is None else limit - sender.events
        for key, record in shape.records(chunk.batch.slice(0, room), first=sender.events, name=origin.name):
            if rate is not None:
                sender.wait_until(began + sender.events / rate)
            sender.send(key, record)
        if limit is not None and sender.events >= limit:
            break
    sender.finish()
    return Sent(
        events=sender.events,
        rejected=rejected,
        topic=topic,
        partitions=n_partitions,
        seconds=time.monotonic() - began,
    )


class _Sender:
    """Sends records to one topic; the first that the broker does not take ends it."""

    def __init__(self, producer: Any, topic: str) -> None:
        self.events = 0
        self._producer = producer
        self._topic = topic
        self._failed: list[Any] = []

    def send(self, key: str, record: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._topic, record, key=key, on_delivery=self._delivered)
            except BufferError:  # the broker is slower than we are
                self._poll(_SLICE_S)
            else:
                break
        self.events += 1
        self._poll(0.0)

    def wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0.0:
            self._poll(min(left, _SLICE_S))

    def finish(self) -> None:
        while self._producer.flush(_SLICE_S):
            self._check()
        self._check()

    def _poll(self, wait_s: float) -> None:
        self._producer.poll(wait_s)
        self._check()

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append((error, message.key()))

    def _check(self) -> None:
        if self._failed:
            error, key = self._failed[0]
            text = f"topic {self._topic!r} does not take event {key.decode()!r}: {error.str()}"
            raise ServiceError(text)
