"""Dead letters in a topic: the original bytes, with headers that say why and from where.

========================= =====================================================================
key                       position of the record: ``clicks[3]@1841``
value                     its bytes, as they came; null if it had none, or too many for a message
``penstock-reason``       one line
``penstock-omitted``      how many bytes there were, if they are not there
``penstock-key``          the record's own key, if it had one
``penstock-timestamp``    its own timestamp, in milliseconds since the Unix epoch
``original.NAME``         each of its own headers
========================= =====================================================================

A record with the header ``penstock-replayed`` is no letter: it marks the letter of its key as sent back, that
of the pipeline in the header ``penstock-replayed-for``. A pipeline looks at its own letters only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Message

from penstock.config import Component, SnapshotsSpec
from penstock.errors import ConfigError
from penstock.kafka import topics
from penstock.kafka.client import Connection, producer
from penstock.kafka.topic_log import WRITER, TopicLog
from penstock.kafka.transactions import Transactions
from penstock.outputs_config import ToTopics
from penstock.sources import Rejected

__all__ = ["REPLAYED", "Letter", "SendBack", "TopicLetters", "connected", "marked", "read"]

REPLAYED: Final = "penstock-replayed"
"""Header of a record that was sent back: the position it had first."""

# Not the header of a writer: a writer that comes back would take the mark for its letter.
_REPLAYED_FOR: Final = "penstock-replayed-for"
_REASON: Final = "penstock-reason"
_OMITTED: Final = "penstock-omitted"
_KEY: Final = "penstock-key"
_TIMESTAMP: Final = "penstock-timestamp"
_ORIGINAL: Final = "original."
_POSITION: Final = re.compile(r"(.+)\[\d+\]@\d+", re.DOTALL)
_MAX_BYTES: Final = 900_000  # a broker takes 1 MB a record, all things included, unless it is told otherwise
_MAX_REASON: Final = 10_000


def connected(spec: ToTopics | SnapshotsSpec, source: object, *, where: str) -> Connection:
    """Return the connection that an output is configured with, or else its source's.

    Raises
    ------
    ConfigError
        If neither says which broker.
    """
    given = source.parameters if isinstance(source, Component) else dict(source)  # type: ignore[call-overload]
    if spec.bootstrap is not None:
        return Connection(bootstrap=spec.bootstrap, settings=spec.settings)
    if "bootstrap" not in given:
        raise ConfigError(f"`{where}.bootstrap`: missing, and the source is not Kafka")
    settings = {**(given.get("settings") or {}), **spec.settings}
    return Connection(bootstrap=given["bootstrap"], settings=settings)


class TopicLetters:
    """Keeps rejected records in a topic, each once.

    Parameters
    ----------
    connection, topic, writer, state, create
        Of `penstock.kafka.topic_log.TopicLog`.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        *,
        writer: str,
        state: Mapping[str, Any] | None = None,
        create: bool = True,
    ) -> None:
        self.where: Final = f"the topic {topic}"
        self._log = TopicLog(connection, topic, writer=writer, state=state, create=create)

    def take(self, letter: Rejected) -> None:
        """Append one."""
        headers: list[tuple[str, bytes | None]] = [(_REASON, _bytes(letter.reason)[:_MAX_REASON])]
        if letter.key is not None:
            headers.append((_KEY, letter.key))
        if letter.timestamp_ms is not None:
            headers.append((_TIMESTAMP, str(letter.timestamp_ms).encode()))
        originals = [(_ORIGINAL + name, value) for name, value in letter.headers]
        n_bytes = len(letter.data or b"") + len(letter.key or b"")
        n_bytes += sum(len(name) + len(value or b"") for name, value in originals)
        if n_bytes <= _MAX_BYTES:
            self._log.append(letter.data, key=letter.where, headers=[*headers, *originals])
        else:
            omitted = (_OMITTED, str(n_bytes).encode())
            self._log.append(None, key=letter.where, headers=[headers[0], omitted])

    def poll(self) -> None:
        """Let readers see what has waited for a second."""
        self._log.poll()

    def flush(self) -> dict[str, Any]:
        """Make what was taken safe; return what the checkpoint has to hold."""
        return {"log": self._log.flush()}

    def close(self) -> None:
        """Let go of the broker."""
        self._log.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter, as it is read back.

    Attributes
    ----------
    where : str
        Position of the record; it names the letter.
    reason : str
    data : bytes or None
        None: the record had none, or too many of them.
    n_omitted : int
        How many there were, if they were too many.
    key, headers, timestamp_ms
        What the record had when it came.
    """

    where: str
    reason: str
    data: bytes | None
    n_omitted: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None

    @property
    def topic(self) -> str | None:
        """The one that the record is from; None if it is from none."""
        found = _POSITION.fullmatch(self.where)
        return None if found is None else found[1]


def marked(connection: Connection, topic: str, writer: str) -> set[str]:
    """Return the positions of those letters of the pipeline `writer` that were sent back."""
    mine, sent = _bytes(writer), set()
    for message in topics.read(connection, topic, {}):
        headers = dict(_headers(message))
        if REPLAYED in headers and headers.get(_REPLAYED_FOR, mine) == mine:
            sent.add(_text(message.key()))
    return sent


def read(connection: Connection, topic: str, writer: str) -> Iterator[Letter]:
    """Give every letter in a topic that is of the pipeline `writer`."""
    for message in topics.read(connection, topic, {}):
        headers = _headers(message)
        ours = dict(headers)
        if _REASON not in ours or REPLAYED in ours or ours.get(WRITER) != _bytes(writer):
            continue  # somebody else's, or a mark
        stamp = ours.get(_TIMESTAMP)
        yield Letter(
            where=_text(message.key()),
            reason=_text(ours[_REASON]),
            data=message.value(),
            n_omitted=int(ours.get(_OMITTED, 0)),
            key=ours.get(_KEY),
            headers=tuple((n.removeprefix(_ORIGINAL), v) for n, v in headers if n.startswith(_ORIGINAL)),
            timestamp_ms=int(stamp) if stamp is not None and stamp.isdigit() else None,
        )


class SendBack:
    """Sends letters back, and marks them as sent in the same transaction.

    Whoever takes over from a run that died finds either both or neither.

    Parameters
    ----------
    connection : Connection
        Of all topics.
    marks : str or None
        Topic to mark them in; None: somebody else remembers.
    writer : str
        Pipeline that they are of.
    target : str or None
        Topic to send them to; None: each to the one that it is from.
    send : bool
        Whether to send them at all; without it they are only marked.
    name : str
        Of the letters: one at a time sends them.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        marks: str | None,
        writer: str,
        target: str | None,
        send: bool,
        name: str,
    ) -> None:
        self._connection = connection
        self._marks = marks
        self._writer = _bytes(writer)
        self._target = target
        self._sends = send
        self._there: set[str] = set()
        self._producer = producer(
            connection, **{"transactional.id": f"penstock.dlq.{name}", "transaction.timeout.ms": 60_000}
        )
        what = "the topics that letters go back to" if send else f"the topic {marks}"
        self._transactions = Transactions(self._producer, what=what, timeout_s=30.0)

    def __call__(self, letters: list[Letter]) -> None:
        """Send some of them, all or none.

        Raises
        ------
        ConfigError
            If there is no topic to send one to.
        ServiceError
            If they cannot be sent.
        """
        targets = [self._target or letter.topic or "" for letter in letters]
        if self._sends:
            for topic in {*targets} - self._there:
                topics.ensure(self._connection, topic, create=False)
                self._there.add(topic)
        self._transactions.begin()
        for letter, target in zip(letters, targets, strict=True):
            where = _bytes(letter.where)
            if self._sends:
                self._transactions.send(
                    target,
                    letter.data,
                    key=letter.key,
                    headers=[*(h for h in letter.headers if h[0] != REPLAYED), (REPLAYED, where)],
                    timestamp_ms=letter.timestamp_ms,
                )
            if self._marks is not None:
                mark = _bytes(target if self._sends else "a file")
                self._transactions.send(
                    self._marks, None, key=where, headers=[(REPLAYED, mark), (_REPLAYED_FOR, self._writer)]
                )
        self._transactions.commit()

    def close(self) -> None:
        """Let go of the broker."""
        self._producer.close()


def _headers(message: Message) -> list[tuple[str, Any]]:
    headers: Any = message.headers()
    return list(headers or ())


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="surrogateescape")
