"""A snapshot directory that follows a topic: what applications on other machines serve from."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock import tensors
from penstock.errors import BadRecord, DataError, PenstockError, ServiceError, StoreError
from penstock.kafka.client import Connection, consumer, partitions, translated
from penstock.kafka.snapshot_log import (
    PARTITION,
    SERVING,
    AliasRecord,
    Contents,
    HeldVersion,
    LogRecord,
    Part,
    PartRecord,
    Record,
    VersionRecord,
    decode,
    outruns,
)
from penstock.snapshots import Alias, SnapshotStore

__all__ = ["Follower"]

_log = logging.getLogger("penstock.kafka")
_STATE: Final = ".mirror"
_LOCK: Final = ".mirror.lock"
_RETRY_S: Final = 1.0  # after an error
_STANDBY_S: Final = 0.5  # between two attempts to take over from another process
_LOOK_S: Final = 0.2  # how long one wait for a record may take
_PROBE_S: Final = 2.0  # between two questions to a broker that did not answer
_REREAD_S: Final = 12 * 3600.0  # a broker keeps what takes a record back for 24 h, unless told otherwise
_CONSUMER: Final = {
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
    "queued.max.messages.kbytes": 16 << 10,
    "fetch.wait.max.ms": 200,  # the end of a topic is told after so long
    "reconnect.backoff.max.ms": 2000,  # a broker that is back is found after so long
}


@dataclass(slots=True)
class _Incoming(HeldVersion):
    """A version of which not everything is there yet; its parts lie in a file without a name."""

    since: int = 0  # offset of its first record
    spool: IO[bytes] | None = None
    at: dict[int, int] = field(default_factory=dict)

    def add(self, part: int, data: bytes, directory: Path) -> None:
        described = Part.of(data)
        if self.parts.get(part) == described:
            return
        if self.spool is None:
            self.spool = tempfile.TemporaryFile(dir=directory, prefix=".incoming-")  # noqa: SIM115
        self.at[part] = self.spool.seek(0, os.SEEK_END)
        self.spool.write(data)
        self.parts[part] = described

    def read(self, contents: Contents) -> Iterator[bytes]:
        assert self.spool is not None
        for i, part in enumerate(contents.parts):
            self.spool.seek(self.at[i])
            yield self.spool.read(part.size)

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()


@dataclass(slots=True)
class _Progress:
    """How far a reader is, and what it remembers until it can be done."""

    scanning: bool  # from the first record, so that what does not come is not there any more
    next_offset: int = 0
    incoming: dict[int, _Incoming] = field(default_factory=dict)
    aliases: dict[str, tuple[int, Alias | None]] = field(default_factory=dict)  # with the offset
    doomed: set[int] = field(default_factory=set)
    seen_log: bool = False
    seen_versions: set[int] = field(default_factory=set)
    seen_aliases: set[str] = field(default_factory=set)

    def resume_at(self) -> int:
        """Where a reader that remembers nothing but `doomed` has to start."""
        offsets = [self.next_offset, *(version.since for version in self.incoming.values())]
        return min(offsets + [offset for offset, _ in self.aliases.values()])


class Follower:
    """Keeps a directory as a topic says: a `SnapshotStore` that anybody may read.

    A version is there once its hashes are verified, and an alias moves once its version is there, never to
    an older promotion. What the publisher pruned is removed, unless an alias still names it. Whatever else is
    in the topic is logged, and ignored. While the broker is away the directory stays as it is.

    Of several followers of one directory, in any number of processes, one works and the others wait to take
    over.

    Parameters
    ----------
    connection : Connection
    topic : str
    path : path
        The directory; made if it is not there. One that holds snapshots which did not come from this topic
        is refused.

    Notes
    -----
    Where to go on is kept in the directory. After half a day's absence the topic is read from its start,
    as records that take something back may be gone; what is there already is not written again.
    """

    def __init__(self, connection: Connection, topic: str, path: str | os.PathLike[str]) -> None:
        self._connection = connection
        self._topic = topic
        self._store = SnapshotStore(path)
        self._consumer: Consumer | None = None
        self._progress = _Progress(scanning=True)
        self._log_id: str | None = None
        self._resume: tuple[int, set[int]] | None = None  # until the log has proved to be the same
        self._saved: dict[str, Any] | None = None
        self._lock: IO[bytes] | None = None
        self._fault: KafkaError | None = None
        self._probed_at = 0.0
        self._error: str | None = None
        self._caught_up = False
        self._end: int | None = None  # offset of the end, if nothing has come since it was reached
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._at_end: Callable[[], None] = lambda: None

    @property
    def path(self) -> Path:
        """The directory."""
        return self._store.path

    @property
    def error(self) -> str | None:
        """Why the topic cannot be followed at the moment; None if it can."""
        return self._error

    @property
    def standby(self) -> bool:
        """Whether another follower is at work in this directory, or none is yet."""
        return self._lock is None

    @property
    def caught_up(self) -> bool:
        """Whether the directory has held everything that was in the topic, once since this follower began."""
        return self._caught_up

    def run_once(self, timeout_s: float = 60.0) -> bool:
        """Read to where the topic ends now; return whether it was reached.

        Not for a follower that was started.

        Raises
        ------
        ServiceError
            If the broker cannot be reached.
        DataError
            If there is no such topic.
        StoreError
            If the directory cannot be used, or mirrors something else.
        """
        deadline = time.monotonic() + timeout_s
        target: int | None = None
        while time.monotonic() < deadline:
            try:
                if self._consumer is None and not self._connect():
                    return False
                target = self._target(_LOOK_S) if target is None else target
                if target is not None and self._end is not None and self._end >= target:
                    return True
                self._step(_LOOK_S)
            except PenstockError:
                self._disconnect()
                raise
            if self._fault is not None:
                raise ServiceError(self._error)
        return False

    def start(self, at_end: Callable[[], None] = lambda: None) -> None:
        """Follow in the background, until `close`, and call `at_end` then.

        What goes wrong is logged, told by `error`, and tried again.
        """
        self._at_end = at_end
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="penstock-mirror", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, without waiting for it."""
        self._stopped.set()

    def close(self) -> None:
        """Stop following. The directory stays."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._disconnect()

    def after_fork(self) -> None:
        """Begin anew in a forked child, where no thread lives on; one that was started is started again."""
        _ABANDONED.append(self._consumer)  # librdkafka would wait for its threads for ever
        self._consumer = None
        if self._lock is not None:
            self._lock.close()  # the parent's descriptor keeps the lock
            self._lock = None
        self._fault = self._error = None
        started = self._thread is not None and not self._stopped.is_set()
        self._thread = None
        if started:
            self.start(self._at_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Follower({self._topic!r}, {str(self.path)!r})"

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                self._step(_LOOK_S)
                wait_s = _STANDBY_S if self._consumer is None else 0.0
            except Exception as error:  # whatever it is, the directory goes on serving
                self._say(str(error))
                self._disconnect()
                wait_s = _RETRY_S
            if wait_s:
                self._stopped.wait(wait_s)
        self._disconnect()
        self._at_end()

    def _say(self, error: str) -> None:
        if error != self._error:
            _log.error("following the snapshots in topic %s: %s", self._topic, error)
        self._error = error

    def _step(self, timeout_s: float) -> bool:
        """Take the next record, if one comes; return whether the topic ended here."""
        if self._consumer is None and not self._connect():
            return False
        assert self._consumer is not None
        message = self._consumer.poll(timeout_s)
        if message is None:
            self._probe()
            return False
        error = message.error()
        if error is None:
            self._fault = self._error = self._end = None
            self._receive(message)
            return False
        if error.code() == KafkaError._PARTITION_EOF:
            self._fault = self._error = None
            return self._ended(message.offset() or 0)
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            _log.warning("%s[%d] is not what it was; reading it from the start", self._topic, PARTITION)
            self._rescan()
        elif not error.retriable():
            raise translated(error, f"topic {self._topic!r}")
        return False

    def _target(self, timeout_s: float) -> int | None:
        """Ask where the topic ends now; None if that is not known yet. Ends on the way may be older news."""
        assert self._consumer is not None
        try:
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, PARTITION), timeout=timeout_s, cached=False
            )
        except KafkaException:
            return None  # what is wrong is told by `poll`
        return int(end)

    def _connect(self) -> bool:
        """Return whether this follower is the one that works."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / _LOCK, "ab")  # noqa: SIM115 - held as long as this follower works
        except OSError as error:
            raise StoreError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            self._caught_up = self._caught_up or self._others_caught_up()
            return False
        self._lock = lock
        self._load()
        self._fault = None
        self._consumer = consumer(self._connection, **_CONSUMER, error_cb=self._hear)
        self._consumer.assign([TopicPartition(self._topic, PARTITION, OFFSET_BEGINNING)])
        return True

    def _disconnect(self) -> None:
        client, self._consumer, self._end = self._consumer, None, None
        if client is not None:
            client.close()
        for incoming in self._progress.incoming.values():
            incoming.close()
        self._progress = _Progress(scanning=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _hear(self, error: KafkaError) -> None:
        """Take what befalls the connection; from within `poll`."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self._fault is None:
            self._fault = error
            self._say(str(translated(error, f"Kafka at {self._connection.bootstrap}")))

    def _probe(self) -> None:
        """Look whether a broker that was away is back; a topic without news does not tell."""
        if self._fault is None or time.monotonic() - self._probed_at < _PROBE_S:
            return
        self._probed_at = time.monotonic()
        assert self._consumer is not None
        if partitions(self._consumer, [self._topic], timeout_s=0.5) is not None:
            self._fault = self._error = None

    def _receive(self, message: Message) -> None:
        offset = message.offset()
        assert offset is not None
        try:
            record: Record | None = decode(message.key(), message.value())
        except BadRecord as error:
            _log.warning("%s[%d]@%d is not a snapshot's record: %s", self._topic, PARTITION, offset, error)
            record = None
        if self._resume is not None and self._resumed(record):
            return
        progress = self._progress
        progress.next_offset = offset + 1
        match record:
            case LogRecord():
                self._recognise(record)
            case PartRecord():
                self._take_part(record, offset)
            case VersionRecord():
                self._take_version(record, offset)
            case AliasRecord():
                self._take_alias(record, offset)
        if self._caught_up and not progress.scanning:
            self._settle()

    def _resumed(self, first: Record | None) -> bool:
        """Go on where this directory was left, if the first record shows that the log is the same."""
        assert self._resume is not None
        assert self._consumer is not None
        (offset, doomed), self._resume = self._resume, None
        if not isinstance(first, LogRecord) or first.id != self._log_id:
            return False
        self._progress = _Progress(scanning=False, next_offset=offset, doomed=doomed, seen_log=True)
        self._consumer.assign([TopicPartition(self._topic, PARTITION, offset)])
        return True

    def _rescan(self) -> None:
        assert self._consumer is not None
        for incoming in self._progress.incoming.values():
            incoming.close()
        self._progress, self._resume = _Progress(scanning=True), None
        self._consumer.assign([TopicPartition(self._topic, PARTITION, OFFSET_BEGINNING)])

    def _recognise(self, record: LogRecord) -> None:
        if self._log_id is None:
            self._log_id = record.id
        elif record.id != self._log_id:
            raise StoreError(
                f"{self.path} mirrors another topic {self._topic!r} than the one that is there now, "
                f"which was made anew: empty the directory to follow it"
            )
        self._progress.seen_log = True

    def _incoming(self, version: int, offset: int) -> _Incoming:
        return self._progress.incoming.setdefault(version, _Incoming(since=offset))

    def _take_part(self, record: PartRecord, offset: int) -> None:
        progress = self._progress
        if self._store.file(record.version).exists():
            return
        if record.data is None:
            if (incoming := progress.incoming.get(record.version)) is not None:
                incoming.parts.pop(record.part, None)
                if not incoming.parts and incoming.contents is None:
                    progress.incoming.pop(record.version).close()
            return
        incoming = self._incoming(record.version, offset)
        try:
            assert isinstance(record.data, bytes)
            incoming.add(record.part, record.data, self.path)
        except OSError as error:
            raise StoreError(f"cannot write to {self.path}: {error.strerror}") from error
        self._complete(record.version)

    def _take_version(self, record: VersionRecord, offset: int) -> None:
        progress, version, contents = self._progress, record.version, record.contents
        if contents is None:
            progress.seen_versions.discard(version)
            progress.doomed.add(version)
            if (incoming := progress.incoming.pop(version, None)) is not None:
                incoming.close()
            return
        progress.seen_versions.add(version)
        progress.doomed.discard(version)
        if not self._store.file(version).exists():
            self._incoming(version, offset).contents = contents
            self._complete(version)
        elif self._store.manifest(version)["sha256"] != contents.sha256:
            _log.error(
                "%s[%d]@%d: version %d is there with other content, which stays: a snapshot never changes",
                *(self._topic, PARTITION, offset, version),
            )

    def _take_alias(self, record: AliasRecord, offset: int) -> None:
        pending, alias = self._progress.aliases, record.alias
        if alias is None:
            self._progress.seen_aliases.discard(record.name)
        else:
            self._progress.seen_aliases.add(record.name)
            if outruns(pending.get(record.name, (0, None))[1], alias):
                return
        pending[record.name] = offset, alias

    def _complete(self, version: int) -> None:
        """Take in a version if all of it is there."""
        incoming = self._progress.incoming[version]
        if not incoming.complete:
            return
        assert incoming.contents is not None
        try:
            self._store.adopt(version, incoming.read(incoming.contents))
        except DataError as error:
            _log.error("topic %s, version %d: %s", self._topic, version, error)
        except OSError as error:
            raise StoreError(f"cannot read what was written to {self.path}: {error.strerror}") from error
        self._progress.incoming.pop(version).close()

    def _ended(self, offset: int) -> bool:
        """Do what had to wait for the end of the topic; return False if it begins once more here."""
        if self._resume is not None:
            self._resume = None  # the topic is empty: nothing says that it is the same
        progress = self._progress
        progress.next_offset = max(progress.next_offset, offset)
        if progress.scanning and progress.seen_log:
            progress.doomed.update(set(self._store.versions()) - progress.seen_versions)
            for name in self._store.aliases().keys() - progress.seen_aliases:
                progress.aliases.setdefault(name, (offset, None))
            progress.scanning = False
        self._settle()
        self._save()
        self._caught_up = True
        self._end = offset
        return True

    def _settle(self) -> None:
        """Move the aliases whose versions are there, then remove what is taken back."""
        progress = self._progress
        for name, (_, alias) in list(progress.aliases.items()):
            if alias is None:
                if name != SERVING:
                    self._store.drop_alias(name)
            elif self._store.file(alias.version).exists():
                self._move(name, alias)
            else:
                continue
            del progress.aliases[name]
        for version in sorted(progress.doomed):
            if self._store.remove(version):
                progress.doomed.discard(version)

    def _move(self, name: str, alias: Alias) -> None:
        if outruns(self._store.peek(name), alias):
            _log.warning("topic %s: %s was to go back to promotion %s", self._topic, name, alias.sequence)
        else:
            self._store.set_alias(name, alias.version, alias.sequence)

    def _load(self) -> None:
        """Read where to go on, or make sure that the directory is free."""
        file = self.path / _STATE
        try:
            saved = json.loads(file.read_bytes())
            old = time.time() - file.stat().st_mtime > _REREAD_S
            topic, log = saved["topic"], saved["log"]
            offset, doomed = saved["offset"], {int(version) for version in saved["doomed"]}
        except FileNotFoundError:
            if self._store.versions() or self._store.aliases():
                raise StoreError(
                    f"{self.path} holds snapshots that came from elsewhere: "
                    f"a mirror needs a directory of its own"
                ) from None
            self._save(begun=False)
            topic, log, offset, doomed, old = self._topic, None, None, set(), False
        except OSError as error:
            raise StoreError(f"cannot read {file}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{file} is damaged: remove it together with the directory") from error
        if topic != self._topic:
            raise StoreError(f"{self.path} mirrors the topic {topic!r}, not {self._topic!r}")
        self._log_id = log
        dangling = any(
            not self._store.file(alias.version).exists() for alias in self._store.aliases().values()
        )
        usable = type(offset) is int and log is not None and not old and not dangling
        self._resume = (offset, doomed) if usable else None
        self._progress = _Progress(scanning=True)

    def _save(self, *, begun: bool = True) -> None:
        progress = self._progress
        state = {
            "topic": self._topic,
            "log": self._log_id,
            "offset": progress.resume_at() if begun else None,
            "doomed": sorted(progress.doomed),
            "hour": int(time.time() // 3600),  # says, with the file's time, that somebody followed
        }
        if state != self._saved:
            tensors.replace(self.path / _STATE, [json.dumps(state).encode() + b"\n"])
            self._saved = state

    def _others_caught_up(self) -> bool:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return json.loads((self.path / _STATE).read_bytes())["offset"] is not None
        return False


_ABANDONED: Final[list[Consumer | None]] = []
