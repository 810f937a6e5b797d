"""Feedback from Kafka topics: every record learned exactly once, in an order that can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from pydantic import Field

from penstock import codecs
from penstock._native.features import encode_rows
from penstock.codecs import Codec, Fields
from penstock.codecs.fields import FeatureType
from penstock.config import Strict, validated
from penstock.errors import ConfigError
from penstock.events import Batch, Features, Row, Task
from penstock.kafka.client import Connection
from penstock.kafka.order import MAX_CONNECT_S, Ahead, Options, Ordered, Taken
from penstock.kafka.reader import Assignment, Health, Start, named
from penstock.outputs_config import Bootstrap, TopicNames
from penstock.sources.base import Chunk, Position, Rejected

__all__ = ["KafkaSource", "Metadata", "Payload", "rejected_with_metadata", "timestamp_ms"]

Payload: TypeAlias = Literal["json", "msgpack", "vw"]
Told: TypeAlias = Annotated[str, Field(pattern=r"^(key|timestamp|topic|partition|header:.+)$")]

_HEADER: Final = "header:"
_MAX_POLL_S: Final = 5.0  # SIGTERM is noticed after that


class Metadata(Strict):
    """What of a message besides its value becomes a part of the event.

    Attributes
    ----------
    id : "key" or "header:NAME", optional
        Instead of the record's.
    time : "timestamp", optional
        Instead of the record's.
    features : mapping of str to "key", "timestamp", "topic", "partition" or "header:NAME"
        Features to add. One that the message does not have is left out, and so is one that the record has.
    """

    id: Annotated[str, Field(pattern=r"^(key|header:.+)$")] | None = None
    time: Literal["timestamp"] | None = None
    features: Mapping[str, Told] = {}


class KafkaSource:
    """Reads feedback from one or several topics.

    Partitions have no order among each other, so the one in which their records are learned is written to a
    journal before they are: a run that dies repeats it. Offsets of the group are for those who watch;
    positions come from the checkpoint alone.

    Parameters
    ----------
    task : Task
    bootstrap : str
        ``host:port`` of a broker, or several with commas; ``embedded`` for librdkafka's in-process broker.
    topics : str, or sequence of str
    format : "json", "msgpack" or "vw"
        Of a message's value: one record.
    label, weight, id, time, features, ignore, types, classes, require_label
        The roles of a record's fields; see `penstock.codecs.fields.Fields`.
    metadata : mapping, optional
        What of the message itself becomes a part of the event; see `Metadata`.
    settings : mapping
        Of librdkafka, passed through; ``${NAME}`` is taken from the environment.
    group : str, optional
        Name of a consumer group, to commit offsets to after each checkpoint.
    assignment : "fixed" or "group"
        ``fixed``: all partitions, which nobody can take away. ``group``: those that the group gives us, which
        are read on from where *we* were, whatever others have read in between.
    start : "earliest" or "latest"
        Where to begin the very first time. Partitions that are added later are read from their beginning.
    journal : str, optional
        Directory of the order journal; see `penstock.journal`. The daemon keeps one beside its checkpoint if
        it is not told where. Without a journal every record is still learned once, in an order that a
        second reading need not have.
    keep : int, optional
        How many segments (64 MB each) of the journal to keep that no recovery needs. All, if not given.
    follow : bool
        Wait for more at the end. Without it reading ends where the partitions end when it begins.
    poll_s : float
        How long to wait for records before looking at other duties, in seconds.
    linger_s : float
        How long to wait for more when there are some, in seconds. Longer makes fewer, larger chunks.
    connect_timeout_s : float
        How long a broker may take to answer at the start, in seconds. Later, it is waited for.

    Raises
    ------
    ConfigError
        If the options do not go together.
    """

    def __init__(
        self,
        task: Task,
        bootstrap: Bootstrap,
        topics: TopicNames,
        *,
        format: Payload = "json",  # noqa: A002  (the option's name)
        label: str = "label",
        weight: str | None = None,
        id: str | None = None,  # noqa: A002  (the option's name)
        time: str | None = None,
        features: str | None = None,
        ignore: Sequence[str] = (),
        types: Mapping[str, FeatureType] | None = None,
        classes: Annotated[Sequence[str | int | bool], MinLen(2)] | None = None,
        require_label: bool = True,
        metadata: Mapping[str, Any] | None = None,
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
        roles = Fields(
            task,
            label=label,
            weight=weight,
            id=id,
            time=time,
            features=features,
            ignore=ignore,
            types=types,
            classes=classes,
            require_label=require_label,
        )
        self._codec: Codec = codecs.build(format, roles)
        self._metadata = validated(Metadata, metadata or {}, where="source.metadata")
        if self._metadata.features and format == "vw":
            raise ConfigError("`metadata.features`: a line of VW has its features already")
        self._ordered = Ordered(
            options(
                bootstrap,
                [topics] if isinstance(topics, str) else list(topics),
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
        """How many offsets of each topic's partitions are still to be learned. Any thread may ask."""
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

    def chunks(self, position: Position | None, size: int) -> Iterator[Chunk]:
        """Read from `position`; see `penstock.sources.base.Source`.

        Raises
        ------
        DataError
            If an offset that comes next is not there any more, or records are not those of the journal.
        ServiceError
            If no broker answers at first, or it refuses.
        StoreError
            If the journal cannot be read or written.
        """
        for taken in self._ordered.read(position, size):
            yield self._chunk(taken)

    def replay(self, position: Position | None, size: int, until: int | None = None) -> Iterator[Chunk]:
        """Read once more what the journal holds from `position` on, before its entry `until`."""
        for taken in self._ordered.replay(position, size, until):
            yield self._chunk(taken)

    def _chunk(self, taken: Taken) -> Chunk:
        messages = taken.messages

        def where(i: int) -> str:
            return _where(messages[i])

        batch, rejected = self._codec.decode([message.value() or b"" for message in messages], where)
        if self._metadata.id or self._metadata.time or self._metadata.features:
            batch = _with_metadata(batch, _kept(messages, rejected), self._metadata)
        if rejected:
            rejected = tuple(
                rejected_with_metadata(letter, messages[letter.after + i])
                for i, letter in enumerate(rejected)
            )
        return Chunk(batch=batch, rejected=rejected, position=taken.position)


def options(
    bootstrap: str,
    topics: Sequence[str],
    *,
    settings: Mapping[str, bool | int | float | str] | None,
    journal: str | None,
    group: str | None,
    assignment: Assignment,
    **others: Any,
) -> Options:
    """Gather the options that every reader of topics has."""
    if assignment == "group" and group is None:
        raise ConfigError("`assignment: group` needs `group`, the name of the group")
    if len(set(topics)) < len(topics):
        raise ConfigError(f"`topics`: one is named twice in {', '.join(topics)}")
    return Options(
        connection=validated(
            Connection, {"bootstrap": bootstrap, "settings": settings or {}}, where="source"
        ),
        topics=topics,
        journal=None if journal is None else Path(journal),
        group=group,
        assignment=assignment,
        **others,
    )


def _where(message: Message) -> str:
    return named(message.topic() or "", message.partition() or 0, message.offset())


def rejected_with_metadata(letter: Rejected, message: Message) -> Rejected:
    """Return a dead letter with everything else that its message had."""
    return Rejected(
        reason=letter.reason,
        where=letter.where,
        data=message.value(),
        after=letter.after,
        key=message.key(),
        headers=tuple(_headers(message)),
        timestamp_ms=timestamp_ms(message),
    )


def _kept(messages: Sequence[Message], rejected: Sequence[Rejected]) -> list[Message]:
    """Return the messages that became events: `after` says how many came before each bad one."""
    bad = {letter.after + i for i, letter in enumerate(rejected)}
    return [message for i, message in enumerate(messages) if i not in bad] if bad else list(messages)


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    headers: Any = message.headers()
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in headers or ()]


def timestamp_ms(message: Message) -> int | None:
    """When a message was written, in milliseconds since the Unix epoch; None if it does not say."""
    kind, milliseconds = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds


def _with_metadata(batch: Batch, messages: Sequence[Message], metadata: Metadata) -> Batch:
    changes: dict[str, Any] = {}
    if metadata.id is not None:
        changes["ids"] = [str(_told(message, metadata.id) or "") for message in messages]
    if metadata.time is not None:
        stamps = [timestamp_ms(message) for message in messages]
        changes["times"] = np.array([np.nan if t is None else t / 1000.0 for t in stamps], dtype=np.float64)
    if metadata.features:
        rows = [_added(row, message, metadata) for row, message in zip(batch.rows, messages, strict=True)]
        added, _ = encode_rows(rows)
        changes["features"] = _beside(batch.features, added)
        changes["rows"] = [{**row, **more} for row, more in zip(batch.rows, rows, strict=True)]
    given = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
    return Batch(**{**given, **changes})


def _added(row: Row, message: Message, metadata: Metadata) -> dict[str, Any]:
    """Return the features that a message adds to a record."""
    told = {name: _told(message, what) for name, what in metadata.features.items() if name not in row}
    return {name: value for name, value in told.items() if value is not None}


def _told(message: Message, what: str) -> Any:
    """Return what a message tells; text where it is UTF-8, hexadecimal digits where it is not."""
    if what == "timestamp":
        stamp = timestamp_ms(message)
        return None if stamp is None else stamp / 1000.0
    if what == "topic":
        return message.topic()
    if what == "partition":
        return str(message.partition())
    found: Any = message.key()
    if what.startswith(_HEADER):
        name = what.removeprefix(_HEADER)
        found = next((value for key, value in reversed(_headers(message)) if key == name), None)
    if found is None:
        return None
    try:
        return found.decode()
    except UnicodeDecodeError:
        return found.hex()


def _beside(left: Features, right: Features) -> Features:
    """Return a matrix whose rows are those of both, one behind the other."""
    n = len(left)
    lengths = np.stack([np.diff(left.indptr), np.diff(right.indptr)], axis=1)
    # Row by row: the entries of the left one, then those of the right one.
    starts = np.stack([left.indptr[:-1], right.indptr[:-1] + len(left.indices)], axis=1)
    indptr = np.concatenate(([0], np.cumsum(lengths.sum(axis=1))))
    ends = np.cumsum(lengths.ravel())
    entries = np.repeat(starts.ravel() - (ends - lengths.ravel()), lengths.ravel()) + np.arange(
        ends[-1] if n else 0
    )
    return Features(
        indptr.astype(np.int64),
        np.concatenate([left.indices, right.indices])[entries],
        np.concatenate([left.values, right.values])[entries],
        np.concatenate([left.namespaces, right.namespaces])[entries],
    )
