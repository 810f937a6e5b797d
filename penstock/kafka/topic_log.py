"""A topic that one writer appends to, each record exactly once, through crashes.

Records are written in short transactions, and every record that must not come twice has a key that names
it. A checkpoint holds how far the topic had been written. After a crash the writer repeats what came
after its checkpoint; before that, the log reads from there to the topic's end and learns which of these
keys made it: they are not appended again. What was under way in a transaction is rolled back by the next
instance, which also fences the old one off, should it still live.

So a reader with ``isolation.level=read_committed`` (librdkafka's default) sees every record once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, Message

from penstock.errors import ServiceError
from penstock.kafka import topics
from penstock.kafka.client import Connection, producer
from penstock.kafka.transactions import Headers, RolledBack, TooLarge, Transactions

__all__ = ["WRITER", "TopicLog"]

WRITER: Final = "penstock-writer"
"""Header with the name of who appended a record, so that several pipelines may share a topic."""

_log = logging.getLogger("penstock.kafka")
_TRANSACTION_S: Final = 1.0  # a record is visible to readers after about this long
_TRANSACTION_RECORDS: Final = 1000  # they are kept in memory, to be sent again after a roll-back
_TRANSACTION_BYTES: Final = 4 << 20
_LEAVE_S: Final = 5.0  # for the last words to a broker that may be gone
_BROKER_WAITS_S: Final = 300  # for an open transaction, before the broker rolls it back itself


@dataclass(frozen=True, slots=True)
class _Record:
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class TopicLog:
    """Appends to a topic, as the only writer of its name.

    Parameters
    ----------
    connection : Connection
    topic : str
    writer : str
        Name of the pipeline. There is one writer of a name for a topic: a second one takes over.
    state : mapping, optional
        What `flush` returned for the checkpoint that is resumed; without it nothing has been written yet,
        and what is in the topic is left alone.
    create : bool
        Make the topic, with one partition, if it is not there.
    timeout_s : float
        How long a broker that cannot be reached is waited for.

    Raises
    ------
    ConfigError
        If the topic is missing and may not be made, or a setting is wrong.
    ServiceError
        If the broker cannot be reached, or refuses.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        *,
        writer: str,
        state: Mapping[str, Any] | None = None,
        create: bool = True,
        timeout_s: float = 30.0,
    ) -> None:
        self.topic: Final = topic
        self._writer = (WRITER, writer.encode())
        self._timeout_s = timeout_s
        topics.ensure(connection, topic, create=create, timeout_s=timeout_s)
        self._producer = producer(
            connection,
            **{
                "transactional.id": f"penstock.{writer}.{topic}",
                "transaction.timeout.ms": _BROKER_WAITS_S * 1000,
                "linger.ms": 5,
            },
        )
        # First to take over, then to look: nothing of an older instance can come after the look.
        self._transactions = Transactions(self._producer, what=f"the topic {topic}", timeout_s=timeout_s)
        self._there: Counter[bytes] = Counter()  # appended before, and going to be appended again
        self._ends: dict[int, int]
        if state is None or state["topic"] != topic:
            found = topics.ends(connection, topic, timeout_s=timeout_s)
            self._ends = {partition: high for partition, (_, high) in found.items()}
        else:
            self._ends = {int(partition): end for partition, end in state["ends"].items()}
            self._there.update(key.encode() for key in state.get("there", ()))
            for message in topics.read(connection, topic, self._ends, timeout_s=timeout_s):
                self._find(message)
        self._open: list[_Record] = []
        self._open_bytes = 0
        self._opened_at = 0.0
        self._began = False  # whether the broker has been sent what is open
        self._failure: ServiceError | None = None  # after which nothing more can be said of what is there

    def append(self, value: bytes | None, *, key: str | None = None, headers: Headers = ()) -> bool:
        """Write a record, unless it was written before the crash that this run resumes from.

        It is visible to readers a second later, or after `flush`.

        Parameters
        ----------
        value : bytes or None
        key : str, optional
            Names the record. Without one it is written again whenever it is appended again.
        headers : sequence of (str, bytes or None)

        Returns
        -------
        bool
            False: it was there already.

        Raises
        ------
        ServiceError
            If it cannot be written, or a newer instance has taken over.
        """
        if self._failure is not None:
            raise self._failure
        name = None if key is None else key.encode(errors="surrogateescape")
        if name is not None and self._there[name]:
            self._there[name] -= 1
            if not self._there[name]:
                del self._there[name]
            return False
        record = _Record(name, value, (*headers, self._writer))
        if not self._open:
            self._opened_at = time.monotonic()
        try:
            if not self._open:
                self._transactions.begin()
                self._began = True
            if self._began:
                self._send(record)
        except RolledBack:
            self._began = False  # `_commit` makes it again
        except TooLarge:
            raise
        except ServiceError as error:
            self._failure = error
            raise
        self._open.append(record)
        self._open_bytes += len(value or b"") + sum(len(v or b"") for _, v in record.headers)
        if len(self._open) >= _TRANSACTION_RECORDS or self._open_bytes >= _TRANSACTION_BYTES:
            self._commit()
        return True

    def poll(self) -> None:
        """Commit what has waited for a second. To be called now and then.

        Raises
        ------
        ServiceError
            As `append`.
        """
        if self._open and time.monotonic() - self._opened_at >= _TRANSACTION_S:
            self._commit()

    def flush(self) -> dict[str, Any]:
        """Commit everything that was appended; return what a checkpoint has to hold, plain JSON.

        Raises
        ------
        ServiceError
            As `append`.
        """
        self._commit()
        state: dict[str, Any] = {
            "topic": self.topic,
            "ends": {str(partition): end for partition, end in sorted(self._ends.items())},
        }
        if there := [key.decode(errors="surrogateescape") for key in self._there.elements()]:
            state["there"] = there
        return state

    def close(self) -> None:
        """Let go of the broker. What was appended since the last `flush` is given up."""
        if self._failure is not None:
            # A broker that did not answer would be waited for once more. What is open is rolled back by the
            # next instance, or by the broker after a while.
            self._open.clear()
            return
        if self._open and self._began:
            try:
                self._transactions.roll_back(_LEAVE_S)
            except ServiceError as error:  # the next instance rolls it back, or the broker after a while
                _log.warning("%s", error)
                self._open.clear()
                return
        self._open.clear()
        self._producer.close()

    def _find(self, message: Message) -> None:
        key = message.key()
        if key is not None and self._writer in (message.headers() or ()):
            self._there[key] += 1
        self._reached(None, message)

    def _reached(self, error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error is None and partition is not None and offset is not None:
            self._ends[partition] = max(self._ends.get(partition, 0), offset + 1)

    def _send(self, record: _Record) -> None:
        self._transactions.send(
            self.topic, record.value, key=record.key, headers=record.headers, on_delivery=self._reached
        )

    def _commit(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._open:
            return
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                if not self._began:
                    self._transactions.begin()
                    self._began = True
                    for record in self._open:
                        self._send(record)
                self._transactions.commit()
            except RolledBack as error:
                if time.monotonic() > deadline:
                    self._failure = ServiceError(str(error))
                    raise self._failure from error
                _log.warning("%s; trying again", error)
                self._began = False
            except ServiceError as error:
                self._failure = error
                raise
            else:
                break
        self._open.clear()
        self._open_bytes = 0
