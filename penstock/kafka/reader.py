"""Records of many partitions, each in its order, from positions of ours and nobody else's."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.errors import ConfigError, DataError, ServiceError
from penstock.kafka.client import (
    Connection,
    consumer,
    identities,
    partitions,
    translated,
    unreachable,
    watermarks,
)

__all__ = ["Assignment", "Health", "Offsets", "Place", "Reader", "Start", "check_topics", "named"]

Place: TypeAlias = "tuple[str, int]"
"""A partition of a topic."""

Offsets: TypeAlias = "dict[Place, int]"
Assignment: TypeAlias = Literal["fixed", "group"]
Start: TypeAlias = Literal["earliest", "latest"]

_SLICE_S: Final = 0.5  # of a wait: how long a signal may go unnoticed
_REFRESH_S: Final = 30.0  # how soon new partitions are noticed, and a topic that is gone
_RETRY_S: Final = 2.0  # between two looks at a broker that is down
_SILENT: Final = 4  # looks without an answer, and it is down
_LAG_EVERY_S: Final = 1.0
_ASKED_S: Final = 5.0  # a broker that has just told the partitions, for what it may not know
_AHEAD_BYTES: Final = 64 << 20  # of records that wait for those of other partitions, all together
_AHEAD_RECORDS: Final = 100_000
_SKIPPED: Final = frozenset(  # librdkafka goes on behind what it cannot read: we do not
    {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED}
)
_log = logging.getLogger("penstock.kafka")


class Health(NamedTuple):
    """Whether records can come, and if not, why."""

    ok: bool
    text: str


def named(topic: str, partition: int, offset: int | None = None) -> str:
    """Write a position as people do.

    Examples
    --------
    >>> named("clicks", 3, 1841)
    'clicks[3]@1841'
    """
    return f"{topic}[{partition}]" if offset is None else f"{topic}[{partition}]@{offset}"


def check_topics(offsets: Iterable[Place], topics: Sequence[str]) -> None:
    """Refuse positions in a topic that is not ours."""
    for topic, _ in offsets:
        if topic not in topics:
            raise ConfigError(f"the position is in topic {topic!r}, and the topics are {', '.join(topics)}")


class Reader:
    """Reads partitions into buffers, one for each, from which records are taken in whatever order.

    Parameters
    ----------
    connection : Connection
    topics : sequence of str
    group : str, optional
        Consumer group: to share partitions in, if `assignment` says so, and to commit to.
    assignment : "fixed" or "group"
        All partitions; or those that the group gives us, from wherever *we* have come with them.
    start : "earliest" or "latest"
        Where a partition is begun that has no position, the first time.
    follow : bool
        Without it, reading ends at the ends that the partitions had when it began.
    connect_timeout_s : float
        How long the broker may take to answer at first.

    Attributes
    ----------
    health : Health
        For whoever watches; any thread may read it.
    lag : mapping of place to int
        How many offsets of each partition are still to be taken; any thread may read it.
    ids : mapping of topic to str
        What the broker calls each topic, which no other topic ever was; without those it does not tell.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Sequence[str],
        *,
        group: str | None = None,
        assignment: Assignment = "fixed",
        start: Start = "earliest",
        follow: bool = True,
        connect_timeout_s: float = 30.0,
    ) -> None:
        self.health = Health(False, "not connected yet")
        self.lag: Mapping[Place, int] = {}
        self.ids: Mapping[str, str] = {}
        self.next: Offsets = {}  # behind the last record taken
        self._connection = connection
        self._topics = list(topics)
        self._group = group
        self._assignment = assignment
        self._start = start
        self._follow = follow
        self._connect_timeout_s = connect_timeout_s
        self._buffers: dict[str, dict[int, deque[Message]]] = {topic: {} for topic in topics}
        self._at_end: set[Place] = set()
        self._ends: Offsets = {}  # without `follow`: where to stop
        self._paused: set[Place] = set()
        self._new: Offsets = {}  # partitions that were just begun, and where
        self._faults: deque[KafkaError] = deque(maxlen=8)
        self._failure: Exception | None = None  # found within a callback
        self._is_live = False
        self._missing_since: float | None = None
        self._unanswered = 0  # looks at the topics, one after the other
        self._refreshed_at = self._looked_at = self._lag_at = time.monotonic()
        settings: dict[str, Any] = {"error_cb": self._on_error, "enable.partition.eof": True}
        if group is not None:
            settings["group.id"] = group
        if assignment == "group":
            settings["partition.assignment.strategy"] = "cooperative-sticky"
        self._consumer: Consumer = consumer(connection, **settings)

    def connect(self) -> Iterator[None]:
        """Wait for the broker, giving way from time to time.

        Raises
        ------
        ConfigError
            If there is no such topic.
        ServiceError
            If no broker answers in time.
        """
        deadline = time.monotonic() + self._connect_timeout_s
        while (found := partitions(self._consumer, self._topics, timeout_s=_SLICE_S)) is None:
            self._consumer.poll(0)  # what is wrong with the connection is told here
            if time.monotonic() >= deadline:
                raise unreachable(self._connection, self._connect_timeout_s, self._faults)
            yield
        self._known = found
        self.ids = identities(self._connection, self._topics, min(_ASKED_S, self._connect_timeout_s))
        self.health = Health(True, "connected")

    def begin(self, offsets: Mapping[Place, int], *, replaying: bool) -> None:
        """Assign the partitions at `offsets`, whatever the group does; all of them, once `go_live` is called.

        Raises
        ------
        ConfigError
            If an offset is of a topic that is not ours.
        DataError
            If the broker no longer has, or does not have, an offset.
        """
        check_topics(offsets, self._topics)
        if not self._follow:
            for topic, n in self._known.items():
                for partition in range(n):
                    self._ends[topic, partition] = self._watermarks((topic, partition))[1]
        self.next = dict(offsets)
        if replaying or self._assignment == "fixed":
            for place, offset in offsets.items():
                self._check(place, offset)
            self._consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
            for topic, partition in offsets:
                self._buffers[topic].setdefault(partition, deque())

    def add(self, place: Place, offset: int) -> None:
        """Begin a partition, while a journal is read again."""
        self.next[place] = offset
        self._check(place, offset)
        self._buffers[place[0]][place[1]] = deque()
        self._consumer.incremental_assign([TopicPartition(*place, offset)])

    def go_live(self) -> None:
        """Read on: partitions that were never seen are begun, and may be given and taken by the group."""
        self._is_live = True
        if self._assignment == "fixed":
            self._begin_new(self._known)
            return
        for topic, n in self._known.items():
            for partition in range(n):
                if (topic, partition) not in self.next:  # where it begins for us, whenever it is given to us
                    self._origin((topic, partition))
        self._consumer.unassign()
        for buffers in self._buffers.values():
            buffers.clear()
        self._paused.clear()
        self._at_end.clear()
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def take_new(self) -> Offsets:
        """Return the partitions begun since the last call, and where."""
        new, self._new = self._new, {}
        return new

    def fill(self, n: int, wait_s: float, linger_s: float = 0.0) -> bool:
        """Fetch at most `n` records into the buffers; return whether there were any.

        Parameters
        ----------
        n : int
        wait_s : float
            How long to wait for the first one.
        linger_s : float
            How long for the others.

        Raises
        ------
        DataError, ServiceError
            If a partition cannot be read any more.
        """
        found = self._distribute(messages := self._consumer.consume(1, wait_s))
        if messages and n > 1:
            # What came before must be in its buffer by now: should the group take its partition away while
            # this waits, and give it back, it is going to be fetched again.
            found |= self._distribute(self._consumer.consume(n - 1, linger_s))
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        now = time.monotonic()
        if found:
            self._unanswered = 0
            if not self.health.ok:
                self._is_back()
        if self._is_live and now - self._refreshed_at >= (_REFRESH_S if self.health.ok else _RETRY_S):
            self._refresh()
        if now - self._lag_at >= _LAG_EVERY_S:
            self._lag_at = now
            self._measure_lag()
        return found

    def _distribute(self, messages: list[Message]) -> bool:
        found = False
        by_topic = self._buffers
        only = by_topic[self._topics[0]] if len(self._topics) == 1 else None
        at_end = self._at_end
        for message in messages:
            if message.error() is not None:
                self._take_event(message)
                continue
            buffers = by_topic[message.topic()] if only is None else only  # type: ignore[index]
            buffer = buffers.get(message.partition())  # type: ignore[arg-type]
            if buffer is not None:  # it was not revoked in between
                buffer.append(message)
                found = True
                if at_end:
                    at_end.discard((message.topic(), message.partition()))
        if self._ends and found:
            self._cut_ends()
        return found

    def _cut_ends(self) -> None:
        """Leave what came after the ends to another run."""
        for place, end in self._ends.items():
            buffer = self._buffers[place[0]].get(place[1])
            while buffer and buffer[-1].offset() >= end:  # type: ignore[operator]
                buffer.pop()
                if place not in self._paused:
                    self._paused.add(place)
                    self._consumer.pause([TopicPartition(*place)])
                self._at_end.add(place)

    @property
    def places(self) -> list[Place]:
        """Partitions that are ours at the moment."""
        return [(topic, partition) for topic, buffers in self._buffers.items() for partition in buffers]

    def waiting(self) -> list[tuple[Place, deque[Message]]]:
        """Partitions with records that can be taken, and these."""
        return [
            ((topic, partition), buffer)
            for topic, buffers in self._buffers.items()
            for partition, buffer in buffers.items()
            if buffer
        ]

    def n_buffered(self, place: Place) -> int:
        """How many records of a partition can be taken."""
        return len(self._buffers[place[0]].get(place[1], ()))

    def is_at_end(self, place: Place) -> bool:
        """Whether a partition has no more by now (or, without `follow`, for us)."""
        return place in self._at_end or self.next.get(place, 0) >= self._ends.get(place, 1 << 63)

    def is_done(self) -> bool:
        """Without `follow`: whether everything was taken."""
        return (
            not self._follow
            and self._is_live
            and bool(self.places)
            and all(self.is_at_end(place) and not self.n_buffered(place) for place in self.places)
        )

    def take(self, place: Place, n: int) -> list[Message]:
        """Take at most `n` records of a partition."""
        buffer = self._buffers[place[0]][place[1]]
        n = min(n, len(buffer))
        pop = buffer.popleft
        taken = [pop() for _ in range(n)]
        if taken:
            self.next[place] = taken[-1].offset() + 1  # type: ignore[operator]
        return taken

    def balance(self) -> None:
        """Pause partitions that are far ahead of what is taken, and let others go on."""
        share = max(1, len(self.places))
        for place in self.places:
            buffer = self._buffers[place[0]][place[1]]
            if place in self._ends and place in self._at_end:
                continue
            if place in self._paused:
                if (
                    len(buffer) * share * 4 <= _AHEAD_RECORDS
                    and sum(map(len, buffer)) * share * 4 <= _AHEAD_BYTES
                ):
                    self._paused.discard(place)
                    self._consumer.resume([TopicPartition(*place)])
            elif len(buffer) * share > _AHEAD_RECORDS or sum(map(len, buffer)) * share > _AHEAD_BYTES:
                self._paused.add(place)
                self._consumer.pause([TopicPartition(*place)])

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Tell the group where we are, for those who watch it. Nothing depends on it."""
        if self._group is None or not offsets:
            return
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*place, offset) for place, offset in offsets.items()],
                asynchronous=True,
            )
        except KafkaException as error:
            _log.debug("the group's offsets were not committed: %s", error)

    def close(self) -> None:
        """Leave the group, and let go of everything."""
        self.health = Health(False, "closed")
        self._consumer.close()

    def _begin_new(self, known: Mapping[str, int]) -> None:
        """Begin the partitions that we have no position in."""
        fresh = [(topic, p) for topic, n in known.items() for p in range(n) if (topic, p) not in self.next]
        begun: list[TopicPartition] = []
        try:
            for place in fresh:
                self._origin(place)
                self._buffers[place[0]][place[1]] = deque()
                begun.append(TopicPartition(*place, self.next[place]))
        finally:  # one that has no leader yet stops none of those before it
            if begun:
                self._consumer.incremental_assign(begun)

    def _origin(self, place: Place) -> None:
        """Decide where a partition begins for us: once, for this is kept."""
        low, high = self._watermarks(place)
        # One that was made after the others has records that nobody was there to miss: all of them count.
        latest = self._start == "latest" and not any(topic == place[0] for topic, _ in self._seen_before())
        self.next[place] = self._new[place] = high if latest else low

    def _seen_before(self) -> list[Place]:
        return [place for place in self.next if place not in self._new]

    def _watermarks(self, place: Place) -> tuple[int, int]:
        return watermarks(self._consumer, *place, self._connect_timeout_s)

    def _check(self, place: Place, offset: int) -> None:
        low, high = self._watermarks(place)
        if not low <= offset <= high:
            raise self._out_of_range(place, offset, low, high)

    def _out_of_range(self, place: Place, offset: int, low: int, high: int) -> DataError:
        why = "it was deleted before it was learned" if offset < low else "was the topic made anew?"
        return DataError(
            f"{named(*place)}: offset {offset} is wanted, and the broker has {low} to {high}: {why}; "
            f"what was learned so far is kept"
        )

    def _take_event(self, message: Message) -> None:
        """Take what comes in the place of a record."""
        error = message.error()
        assert error is not None
        place = (message.topic() or "", message.partition() or 0)
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if place[0] in self._buffers and place[1] in self._buffers[place[0]]:
                self._at_end.add(place)
                if not self.health.ok:
                    self._is_back()
        elif code == KafkaError._AUTO_OFFSET_RESET:
            wanted = message.offset()
            self._failure = self._out_of_range(
                place, self.next.get(place, 0) if wanted is None else wanted, *self._watermarks(place)
            )
        elif code in _SKIPPED:
            reached = self.next.get(place, 0) + self.n_buffered(place)
            self._failure = DataError(
                f"{named(*place)}: records from about offset {reached} on cannot be read: {error.str()}; "
                f"what was learned so far is kept"
            )
        elif code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            self._failure = translated(error, named(*place))
        elif code in (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError._UNKNOWN_TOPIC,
            KafkaError._UNKNOWN_PARTITION,
        ):
            self._refreshed_at = 0.0  # a broker that has just been started may not know it yet: ask
        elif error.fatal():
            self._failure = translated(error, named(*place) if place[0] else self._connection.bootstrap)
        else:
            self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        """Note what befalls the connection; librdkafka goes on trying."""
        self._faults.append(error)
        if error.fatal():
            self._failure = translated(error, self._connection.bootstrap)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and self.health.ok:
            self._is_lost()

    def _is_lost(self) -> None:
        self.health = Health(False, f"no broker answers at {self._connection.bootstrap}")
        _log.warning("%s: waiting", unreachable(self._connection, None, self._faults))

    def _is_back(self) -> None:
        self.health = Health(True, "connected")
        _log.warning("a Kafka broker answers again at %s", self._connection.bootstrap)

    def _refresh(self) -> None:
        """Look for new partitions, and whether the topics and the broker are still there."""
        self._refreshed_at = time.monotonic()
        try:
            known = partitions(self._consumer, self._topics, timeout_s=_SLICE_S)
        except ConfigError as error:
            # A broker that has just been started may not know all topics yet.
            self._missing_since = self._missing_since or self._refreshed_at
            self._refreshed_at -= _REFRESH_S - _RETRY_S
            if time.monotonic() - self._missing_since >= self._connect_timeout_s:
                raise DataError(f"{error}; it was there before: was it deleted?") from None
            return
        if known is None:
            # One that hangs breaks no connection: librdkafka says nothing for a minute.
            self._unanswered += 1
            if self._unanswered == _SILENT and self.health.ok:
                self._is_lost()
            if self.health.ok:
                self._refreshed_at -= _REFRESH_S - _RETRY_S
            return
        self._unanswered = 0
        self._missing_since = None
        if not self.health.ok:
            self._is_back()
        if self._assignment == "fixed" and self._follow and known != self._known:
            try:
                self._begin_new(known)
            except (DataError, ServiceError) as error:
                _log.warning("a new partition cannot be read yet: %s", error)
                self._refreshed_at -= _REFRESH_S - _RETRY_S
                return
        self._known = known

    def _measure_lag(self) -> None:
        lag: dict[Place, int] = {}
        for place in self.places:
            try:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            except KafkaException:
                continue
            if high >= 0:
                # Behind the last record may lie marks of transactions, which nobody takes.
                is_done = place in self._at_end and not self.n_buffered(place)
                lag[place] = 0 if is_done else max(0, high - self.next.get(place, 0))
        self.lag = lag

    def _on_assign(self, client: Consumer, given: list[TopicPartition]) -> None:
        self._in_callback(lambda: self._assign(client, given))

    def _assign(self, client: Consumer, given: list[TopicPartition]) -> None:
        for partition in given:
            place = (partition.topic, partition.partition)
            if place not in self.next:
                self._origin(place)
            else:
                with contextlib.suppress(ServiceError):  # a broker that is away: fetching finds out as well
                    self._check(place, self.next[place])
            self._buffers[place[0]][place[1]] = deque()
            partition.offset = self.next[place]
        client.incremental_assign(given)
        self._log_rebalance("given", given)

    def _on_revoke(self, client: Consumer, taken: list[TopicPartition]) -> None:
        for partition in taken:
            place = (partition.topic, partition.partition)
            # What was fetched and not taken will be fetched again, by whoever gets the partition.
            self._buffers[place[0]].pop(place[1], None)
            self._paused.discard(place)
            self._at_end.discard(place)
        self._in_callback(lambda: client.incremental_unassign(taken))
        self._log_rebalance("took away", taken)

    def _log_rebalance(self, verb: str, moved: list[TopicPartition]) -> None:
        if moved:
            names = ", ".join(named(place.topic, place.partition) for place in moved)
            _log.info("group %s: %s %s", self._group, verb, names)

    def _in_callback(self, function: Callable[[], None]) -> None:
        """Keep what goes wrong until the call that we are in has returned."""
        try:
            function()
        except Exception as error:
            self._failure = error
