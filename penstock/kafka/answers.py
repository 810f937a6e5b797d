"""Requests in one topic, answers in another: each request is answered exactly once.

The answers to some requests and the group's position behind them are one Kafka transaction. A copy that is
killed leaves neither, and another one answers the same requests. A copy that lost its partitions without
knowing cannot commit: the broker knows by the group's generation (KIP-447), so any number of copies need
nothing but the group between them. Readers of the answers use ``isolation.level=read_committed``.
"""

from __future__ import annotations

import functools
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.errors import BadRecord, ConfigError, DataError, ServiceError, StoreError
from penstock.feedback import DecisionEvent, RewardEvent, plain
from penstock.kafka import topics
from penstock.kafka.client import Connection, consumer, describe, producer, translated, watermarks
from penstock.kafka.requests import Answer, answer_all, failure
from penstock.kafka.transactions import RolledBack, TooLarge, Transactions
from penstock.outputs_config import AnswersSpec
from penstock.predictor import Predictor
from penstock.sinks import FileSink
from penstock.snapshots import SnapshotStore

__all__ = ["REQUEST", "Answered", "answer"]

REQUEST: Final = "penstock-request"
"""Header of an answer: the position of its request, ``requests[2]@17``."""

_log = logging.getLogger("penstock.kafka")
_WAIT_S: Final = 0.2  # for requests, and so until a signal is noticed
_LINGER_S: Final = 0.005
_REFRESH_S: Final = 0.5  # between two looks for a new snapshot
_TIMEOUT_S: Final = 30.0
_MAX_DECISION: Final = 900_000  # bytes; a broker takes 1 MB a record, unless it is told otherwise


@dataclass(frozen=True, slots=True)
class Answered:
    """How it ended.

    Attributes
    ----------
    requests : int
        Answered by this process.
    errors : int
        Answered with an error.
    """

    requests: int
    errors: int


class _Held:
    """A sink that holds decisions until their transaction is about to be committed."""

    def __init__(self) -> None:
        self.events: list[DecisionEvent | RewardEvent] = []
        self.records: list[bytes] = []  # as they are written

    def send(self, event: DecisionEvent | RewardEvent) -> None:
        """Hold it, unless it is larger than a message may be: its request is refused, and nobody's else."""
        record = orjson.dumps(event.record(), default=plain)
        if len(record) > _MAX_DECISION:
            raise BadRecord(f"a decision of at most {_MAX_DECISION:,} bytes", f"one of {len(record):,}")
        self.events.append(event)
        self.records.append(record)

    def close(self) -> None:
        """Hold nothing any more."""
        self.events.clear()
        self.records.clear()


def answer(
    spec: AnswersSpec,
    connection: Connection,
    *,
    pipeline: str,
    snapshots: Path,
    bandit: bool,
    trust_pickle: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Answered:
    """Answer requests until `should_stop` says so.

    Parameters
    ----------
    spec : AnswersSpec
    connection : Connection
    pipeline : str
        Its name; names the consumer group if `spec` does not.
    snapshots : Path
        Directory whose alias ``serving`` answers.
    bandit : bool
        Whether requests are to be decided, not predicted.
    trust_pickle : bool
        As for `Predictor`.
    should_stop : callable
        Asked between transactions, several times a second.

    Raises
    ------
    ConfigError
        If a topic is missing or does not fit, or a setting is wrong.
    DataError
        If requests are gone from their topic before they were answered.
    ServiceError
        If the broker cannot be reached, refuses, or another copy has the same `instance`.
    StoreError
        If the snapshot cannot be used.
    """
    n_requests = describe(connection, [spec.requests], _TIMEOUT_S)[spec.requests]
    n_results = topics.ensure(connection, spec.results, create=spec.create, n_partitions=n_requests)
    if n_results < n_requests:
        raise ConfigError(
            f"`answers.results`: {spec.results} has {n_results} partitions, and {spec.requests} has "
            f"{n_requests}: answers go to the partition of their request; give it as many"
        )
    if spec.decisions is not None:
        topics.ensure(connection, spec.decisions, create=spec.create, n_partitions=n_requests)
    held = _Held()
    predictor = _predictor(spec, pipeline, snapshots, bandit, trust_pickle, held, should_stop)
    if predictor is None:
        return Answered(0, 0)
    with predictor:
        return _Copy(spec, connection, pipeline, predictor, bandit, held, snapshots).run(should_stop)


def _predictor(
    spec: AnswersSpec,
    pipeline: str,
    snapshots: Path,
    bandit: bool,
    trust_pickle: bool,
    held: _Held,
    should_stop: Callable[[], bool],
) -> Predictor | None:
    """Return what answers, as soon as there is something; None if asked to stop before."""
    uniform = bandit and spec.cold_start == "uniform"
    store = SnapshotStore(snapshots, trust_pickle=trust_pickle)
    told = False
    while not uniform and store.peek("serving") is None:
        if not told:
            hint = "; `answers.cold_start: uniform` would decide at random until then" if bandit else ""
            _log.info("no snapshot serves yet in %s: requests wait for the first one%s", snapshots, hint)
            told = True
        if should_stop():
            return None
        time.sleep(_WAIT_S)
    predictor = Predictor(
        snapshots,
        follow=False,  # between transactions only: what a transaction answers comes from one snapshot
        trust_pickle=trust_pickle,
        cold_start="uniform" if uniform else None,
        sink=held,
        pipeline=pipeline,
    )
    task = predictor.manifest["task"]
    if (task == "bandit") != bandit:
        predictor.close()
        raise StoreError(f"{snapshots} holds snapshots for task {task!r}, which is not the pipeline's")
    return predictor


class _Copy:
    """One of any number of processes that answer."""

    def __init__(
        self,
        spec: AnswersSpec,
        connection: Connection,
        pipeline: str,
        predictor: Predictor,
        bandit: bool,
        held: _Held,
        snapshots: Path,
    ) -> None:
        self._spec = spec
        self._predictor = predictor
        self._bandit = bandit
        self._held = held
        self._file = FileSink(snapshots) if bandit and spec.decisions is None else None
        self._n_answers = self._n_errors = 0
        self._next: dict[int, int] = {}  # offset to be answered next, of each partition that is ours
        self._fault: Exception | None = None
        self._refreshed_at = time.monotonic()
        group = spec.group or f"penstock-answers-{pipeline}"
        # Fenced by the group's generation, an id need not be the same after a restart; where it is, what a
        # killed process left open is rolled back at once, and not only after its time-out.
        name = spec.instance or uuid.uuid4().hex
        self._producer = producer(
            connection,
            **{
                "transactional.id": f"{group}.{name}",
                "transaction.timeout.ms": int(spec.transaction_timeout_s * 1000),
                "linger.ms": 1,
            },
        )
        what = f"the topic {spec.results}"
        self._transactions = Transactions(self._producer, what=what, timeout_s=_TIMEOUT_S)
        settings: dict[str, Any] = {
            "group.id": group,
            "partition.assignment.strategy": "cooperative-sticky",
            "isolation.level": "read_committed",
            "session.timeout.ms": int(spec.session_timeout_s * 1000),
            "heartbeat.interval.ms": int(spec.session_timeout_s * 1000 / 5),
        }
        if spec.instance is not None:
            settings["group.instance.id"] = spec.instance
        self._consumer: Consumer = consumer(connection, **settings)

    def run(self, should_stop: Callable[[], bool]) -> Answered:
        """Answer until asked to stop."""
        try:
            self._consumer.subscribe(
                [self._spec.requests],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._revoked,
            )
            while not should_stop():
                messages = self._read()
                if time.monotonic() - self._refreshed_at >= _REFRESH_S:
                    self._predictor.refresh()
                    self._refreshed_at = time.monotonic()
                if messages:
                    self._answer(messages)
        finally:
            self._consumer.close()
            self._producer.close()
            if self._file is not None:
                self._file.close()
        return Answered(self._n_answers, self._n_errors)

    def _read(self) -> list[Message]:
        """Return requests that are ours to answer, each partition's in order and without a gap."""
        taken = self._consumer.consume(1, _WAIT_S)
        if taken and self._spec.batch > 1:
            taken += self._consumer.consume(self._spec.batch - 1, _LINGER_S)
        if self._fault is not None:  # met inside a callback, out of which nothing can be raised
            raise self._fault
        messages = []
        reached: dict[int, int] = {}
        for message in taken:
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is not None:
                self._judge(error, message)
            elif (
                partition in self._next
                and offset is not None
                # What was fetched before a rebalance may have been answered by somebody else since.
                and offset >= reached.get(partition, self._next[partition])
            ):
                reached[partition] = offset + 1
                messages.append(message)
        return messages

    def _answer(self, messages: list[Message]) -> None:
        """Answer these in one transaction, or leave everything as it was."""
        offsets = {message.partition() or 0: (message.offset() or 0) + 1 for message in messages}
        try:
            self._transactions.begin()
            answers = answer_all(self._predictor, [m.value() for m in messages], bandit=self._bandit)
            n_errors = 0
            for message, told in zip(messages, answers, strict=True):
                n_errors += self._send(message, told)
            if self._spec.decisions is not None:
                for event, record in zip(self._held.events, self._held.records, strict=True):
                    key = event.id.encode(errors="replace")
                    self._transactions.send(self._spec.decisions, record, key=key)
            positions = [TopicPartition(self._spec.requests, p, offset) for p, offset in offsets.items()]
            self._transactions.add_offsets(positions, self._consumer.consumer_group_metadata())
            self._transactions.commit()
        except RolledBack as error:
            _log.warning("%s; the requests are answered once more", error)
            self._held.close()
            self._go_back()
            return
        self._next.update(offsets)
        self._n_answers += len(messages)
        self._n_errors += n_errors
        if self._file is not None:
            # Behind the commit: a decision that is logged was given out. One that a crash keeps out of the
            # log is not learned from, which biases nothing.
            for event in self._held.events:
                self._file.send(event)
        self._held.close()

    def _send(self, message: Message, told: Answer) -> bool:
        """Send an answer; return whether it is an error."""
        where = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        send = functools.partial(
            self._transactions.send,
            self._spec.results,
            headers=[(REQUEST, where.encode())],
            partition=message.partition(),
        )
        try:
            send(told.data, key=message.key())
        except TooLarge:
            told = failure("the answer would be larger than a message may be")
            send(told.data)
        return told.failed

    def _go_back(self) -> None:
        """Read on from what is committed."""
        mine = [TopicPartition(self._spec.requests, partition) for partition in self._next]
        try:
            for place in self._committed(self._consumer, mine):
                self._next[place.partition] = place.offset
                self._consumer.seek(place)
        except KafkaException as error:
            fault = error.args[0]
            # A partition that goes at this moment cannot be sought in; its next owner reads from there.
            if fault.code() not in (KafkaError._STATE, KafkaError._UNKNOWN_PARTITION):
                raise translated(fault, f"the topic {self._spec.requests}") from error

    def _assigned(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            places = self._committed(client, partitions)
            client.incremental_assign(places)
        except (KafkaException, ServiceError, DataError) as error:
            self._fault = (
                error
                if not isinstance(error, KafkaException)
                else translated(error.args[0], f"the topic {self._spec.requests}")
            )
            return
        self._next.update({place.partition: place.offset for place in places})
        _log.info("answers partitions %s of %s", sorted(self._next), self._spec.requests)

    def _revoked(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        for place in partitions:
            self._next.pop(place.partition, None)
        client.incremental_unassign(partitions)

    def _committed(self, client: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Return where the group is, once every transaction that could change it has ended.

        Where it has never been, that is the first request there is.
        """
        deadline = time.monotonic() + _TIMEOUT_S + self._spec.transaction_timeout_s
        while True:
            try:
                places = client.committed(partitions, timeout=_TIMEOUT_S) if partitions else []
            except KafkaException as error:
                fault = error.args[0]
            else:
                fault = next((place.error for place in places if place.error is not None), None)
                if fault is None:
                    break
            if not fault.retriable() and fault.code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                raise translated(fault, f"the group's position in {self._spec.requests}")
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"the group's position in {self._spec.requests} cannot be had: {fault.str()}"
                )
            time.sleep(_WAIT_S)
        for place in places:
            if place.offset < 0:
                place.offset, _ = watermarks(client, place.topic, place.partition, _TIMEOUT_S)
        return [TopicPartition(place.topic, place.partition, place.offset) for place in places]

    def _judge(self, error: KafkaError, message: Message) -> None:
        where = f"{self._spec.requests}[{message.partition()}]"
        if error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
            raise DataError(
                f"{where}: requests from {self._next.get(message.partition() or 0)} on are gone before they "
                f"were answered ({error.str()}); move the group's offset to go on without them"
            )
        if error.fatal() or not error.retriable():
            raise translated(error, where)
