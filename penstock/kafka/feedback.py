"""Decisions and rewards from topics, read as one stream in the order of their times."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from annotated_types import Ge, Gt, Le, MinLen
from confluent_kafka import Message

from penstock.codecs.feedback import Format, Reads, reader
from penstock.errors import BadRecord
from penstock.feedback import DecisionEvent, RewardEvent
from penstock.journal import Run
from penstock.kafka.order import MAX_CONNECT_S, Ahead, Ordered, Taken, run_of
from penstock.kafka.reader import Assignment, Health, Place, Reader, Start, named
from penstock.kafka.source import options, rejected_with_metadata, timestamp_ms
from penstock.sources.base import Position, Rejected
from penstock.sources.feedback import Feedback

__all__ = ["KafkaFeedback"]

_MAX_POLL_S: Final = 5.0
Event: TypeAlias = "DecisionEvent | RewardEvent"
Found: TypeAlias = "tuple[Event, ...] | BadRecord"


class KafkaFeedback:
    """Reads decisions and rewards as `penstock.kafka.sink.KafkaSink` writes them.

    What comes next is the earliest of the first records of all partitions. One of which no record has come
    yet, and which is not at its end either, is waited for; those ahead of it are paused. So a reader that has
    much to catch up on does not see the rewards of one partition long after those of another. What still
    comes late is for the joiner to hold. The order that came about is kept in a journal, as by
    `penstock.kafka.source.KafkaSource`.

    Parameters
    ----------
    bootstrap : str
    decisions : str
        Topic.
    rewards : str, optional
        Topic; that of the decisions, if not given.
    format, arm
        As of `penstock.codecs.feedback.reader`.
    max_ahead_s : float or None
        How far the time of a record may lie ahead of that of its message, in seconds; further, it is
        rejected: a single time in milliseconds would make everything that comes after it too late. None: any
        time is taken.
    settings, group, assignment, start, journal, keep, follow, poll_s, linger_s, connect_timeout_s
        As of `penstock.kafka.source.KafkaSource`.
    """

    def __init__(
        self,
        bootstrap: str,
        decisions: str,
        rewards: str | None = None,
        *,
        format: Format = "json",  # noqa: A002  (the option's name)
        arm: str | None = None,
        max_ahead_s: Annotated[float, Ge(0)] | None = 86_400.0,
        settings: Mapping[str, bool | int | float | str] | None = None,
        group: Annotated[str, MinLen(1)] | None = None,
        assignment: Assignment = "fixed",
        start: Start = "earliest",
        journal: str | None = None,
        keep: Annotated[int, Ge(0)] | None = None,
        follow: bool = True,
        poll_s: Annotated[float, Gt(0), Le(_MAX_POLL_S)] = 0.5,
        linger_s: Annotated[float, Ge(0), Le(_MAX_POLL_S)] = 0.1,
        connect_timeout_s: Annotated[float, Gt(0), Le(MAX_CONNECT_S)] = 30.0,
    ) -> None:
        self._by_time = _ByTime(reader(format, arm=arm), max_ahead_s)
        self._ordered = Ordered(
            options(
                bootstrap,
                list(dict.fromkeys((decisions, rewards or decisions))),
                settings=settings,
                group=group,
                assignment=assignment,
                start=start,
                journal=journal,
                keep=keep,
                follow=follow,
                poll_s=poll_s,
                linger_s=linger_s,
                connect_timeout_s=connect_timeout_s,
            ),
            self._by_time,
        )

    @property
    def health(self) -> Health:
        """Whether records can come, and if not, why. Any thread may ask."""
        return self._ordered.health

    @property
    def repeating(self) -> bool:
        """Whether what the journal holds is read again, after a crash. Any thread may ask."""
        return self._ordered.repeating

    @property
    def journal_path(self) -> Path | None:
        """Where the order journal is; may be set as long as nothing was read."""
        return self._ordered.journal_path

    @journal_path.setter
    def journal_path(self, path: Path) -> None:
        self._ordered.journal_path = path

    def lag(self) -> dict[str, dict[int, int]]:
        """How many offsets of each topic's partitions are still to be read. Any thread may ask."""
        return self._ordered.lag()

    def sync(self) -> None:
        """Have on the disk whatever a position speaks of. Any thread may ask."""
        self._ordered.sync()

    def saved(self, position: Position) -> None:
        """Take note that a checkpoint with `position` is in place."""
        self._ordered.saved(position)

    def ahead(self, position: Position | None) -> Ahead:
        """Say what reading from `position` would begin with; nothing is touched."""
        return self._ordered.ahead(position)

    def chunks(self, position: Position | None, size: int) -> Iterator[Feedback]:
        """Read from `position`, as `penstock.kafka.source.KafkaSource.chunks`."""
        for taken in self._ordered.read(position, size):
            yield self._feedback(taken)

    def replay(self, position: Position | None, size: int, until: int | None = None) -> Iterator[Feedback]:
        """Read once more what the journal holds from `position` on, before its entry `until`."""
        for taken in self._ordered.replay(position, size, until):
            yield self._feedback(taken)

    def _feedback(self, taken: Taken) -> Feedback:
        events: list[Event] = []
        rejected: list[Rejected] = []
        for message, found in zip(taken.messages, self._by_time.parsed(taken.messages), strict=True):
            if isinstance(found, BadRecord):
                letter = Rejected(
                    reason=str(found), where=found.position, data=message.value(), after=len(events)
                )
                rejected.append(rejected_with_metadata(letter, message))
            else:
                events += found
        return Feedback(batch=events, rejected=tuple(rejected), position=taken.position)


class _ByTime:
    """Merges partitions by event time."""

    def __init__(self, read: Reads, max_ahead_s: float | None) -> None:
        self._read = read
        self._max_ahead_s = math.inf if max_ahead_s is None else max_ahead_s
        self._heads: dict[Place, tuple[Message, Found]] = {}
        self._last: tuple[list[Message], list[Found]] = ([], [])

    def __call__(self, reader: Reader, n: int) -> tuple[list[Message], list[Run]]:
        """Take what comes next, as long as it is certain that nothing earlier is on its way."""
        messages: list[Message] = []
        found: list[Found] = []
        runs: list[tuple[Place, int]] = []  # and where in `messages` each begins
        self._last = messages, found
        waiting = dict(reader.waiting())
        if any(place not in waiting and not reader.is_at_end(place) for place in reader.places):
            return messages, []
        heads = [(self._time(place, buffer), place) for place, buffer in waiting.items()]
        heapq.heapify(heads)
        while heads and len(messages) < n:
            _, place = heads[0]
            found.append(self._heads.pop(place)[1])
            messages += reader.take(place, 1)
            if not runs or runs[-1][0] != place:
                runs.append((place, len(messages) - 1))
            buffer = waiting[place]
            if buffer:
                heapq.heapreplace(heads, (self._time(place, buffer), place))
            elif reader.is_at_end(place):
                heapq.heappop(heads)
            else:
                break
        ends = [begin for _, begin in runs[1:]] + ([len(messages)] if runs else [])
        return messages, [
            run_of(place, messages[begin:end]) for (place, begin), end in zip(runs, ends, strict=True)
        ]

    def parsed(self, messages: list[Message]) -> list[Found]:
        """Return what each record is; those that were taken last have been looked at."""
        taken, found = self._last
        return found if taken is messages else [self._parsed(message) for message in messages]

    def _time(self, place: Place, buffer: deque[Message]) -> float:
        head = self._heads.get(place)
        if head is None or head[0] is not buffer[0]:
            head = self._heads[place] = (buffer[0], self._parsed(buffer[0]))
        return -math.inf if isinstance(head[1], BadRecord) else head[1][0].time

    def _parsed(self, message: Message) -> Found:
        where = named(message.topic() or "", message.partition() or 0, message.offset())
        try:
            found = self._read(message.value() or b"", where)
        except BadRecord as error:
            return error
        # The message's own time and not the clock: a second reading has to come to the same.
        stamp, time = timestamp_ms(message), found[0].time
        if stamp is not None and time - stamp / 1000.0 > self._max_ahead_s:
            latest = f"{self._max_ahead_s:g} s (`max_ahead_s`) after the message's own, {stamp / 1000.0:.3f}"
            return BadRecord(f"a time in seconds, at most {latest}", time, path="$.time", position=where)
        return found
