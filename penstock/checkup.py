"""What ``penstock run --dry-run`` does: everything that a run needs at its start, looked at beforehand.

Nothing is learned, and nothing stays behind: a file is made and removed in each directory that is to be
written to, and topics are asked for, not made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from penstock import checkpoints, runner
from penstock.bandit_config import BanditPipeline, Followed
from penstock.checkpoints import Checkpoint
from penstock.config import Component, SnapshotsSpec
from penstock.errors import ConfigError, DataError, InUse, PenstockError, ServiceError, StoreError
from penstock.outputs_config import MonitorSpec, ToTopics
from penstock.runner import AnyPipeline
from penstock.snapshots import SnapshotStore
from penstock.state import section
from penstock.tensors import signing_key

if TYPE_CHECKING:
    from penstock.kafka.client import Connection
    from penstock.kafka.order import Ahead

__all__ = ["Check", "checks", "worse"]

_ANSWER_S: Final = 10.0  # for a broker, if the source does not say
_PROBE: Final = b"\0" * 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    what : str
    found : str
        What is there, in a few words; empty if there is a problem.
    problem : PenstockError or None
    """

    what: str
    found: str = ""
    problem: PenstockError | None = None

    def line(self) -> str:
        """Say it in one line.

        Examples
        --------
        >>> print(Check(what="checkpoint", found="event 17").line())
        ok       checkpoint      event 17
        """
        if self.problem is None:
            return f"ok       {self.what:15} {self.found}".rstrip()
        return f"problem  {self.what:15} {' '.join(str(self.problem).split())}"


def worse(code: int, problem: PenstockError) -> int:
    """Return the exit code after one more problem: 2 if the configuration is to blame for any, or else 4."""
    return 2 if isinstance(problem, ConfigError) or code == ConfigError.exit_code else ServiceError.exit_code


def checks(read: Callable[[], AnyPipeline], *, standby: bool = False) -> Iterator[Check]:
    """Look at one thing after the other.

    Parameters
    ----------
    read : callable
        Gives the pipeline, or raises what is wrong with it.
    standby : bool
        Whether another run may use the checkpoint, as with ``--standby``.
    """
    try:
        pipeline = read()
        runner.check_opaque(pipeline)
        engine, source = runner.parts(pipeline)
    except PenstockError as error:
        yield Check(what="configuration", problem=error)
        return
    yield Check(what="configuration", found=f"{pipeline.name}, {pipeline.task}")
    yield from _written(pipeline, source)
    saved: list[Checkpoint | None] = []
    if pipeline.checkpoint is not None:
        yield _checked("lock", _lock, pipeline, standby)
        yield _checked("checkpoint", _checkpoint, pipeline, engine, saved)
    position = saved[0].position if saved and saved[0] is not None else None
    known = bool(saved) or pipeline.checkpoint is None  # where it would begin
    yield from _source(pipeline, source, position, known=known)
    yield from _topics(pipeline)
    if pipeline.monitor is not None:
        yield _checked("monitor", _port, pipeline.monitor, standby)


def _checked(what: str, look: Callable[..., str], *arguments: Any) -> Check:
    try:
        return Check(what=what, found=look(*arguments))
    except PenstockError as error:
        return Check(what=what, problem=error)


def _written(pipeline: AnyPipeline, source: Any) -> Iterator[Check]:
    """Look at every directory and file that a run writes to."""
    if pipeline.checkpoint is not None:
        yield _checked("directory", _writable, pipeline.checkpoint.path.parent)
    if pipeline.snapshots is not None:
        yield _checked("snapshots", _store, pipeline.snapshots.path)
    if isinstance(path := getattr(source, "journal_path", None), Path):
        yield _checked("journal", _writable, path)
    if pipeline.dead_letters.path is not None:
        yield _checked("dead letters", _file, pipeline.dead_letters.path)


def _writable(path: Path) -> str:
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".penstock-") as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error
    return str(path) if there == path else f"{path}, to be made"


def _store(path: Path) -> str:
    found = _writable(path)
    if path.exists():
        store = SnapshotStore(path)
        store.versions()
        store.aliases()
    return found


def _file(path: Path) -> str:
    _writable(path.parent)
    try:
        path.open("r+b").close()
    except FileNotFoundError:
        return f"{path}, to be made"
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error
    return str(path)


def _lock(pipeline: AnyPipeline, standby: bool) -> str:
    assert pipeline.checkpoint is not None
    if not pipeline.checkpoint.path.parent.exists():
        return "nobody has it"
    path = pipeline.checkpoint.path.with_name(f"{pipeline.checkpoint.path.name}.lock")
    was_there = path.exists()
    try:
        with runner.only_writer(pipeline):
            return "nobody has it"
    except InUse as error:
        if not standby:
            raise
        return f"{error}".split(":", 1)[0]
    finally:
        if not was_there:
            with contextlib.suppress(OSError):  # where it could not be made, it is not
                path.unlink()


def _checkpoint(pipeline: AnyPipeline, engine: Any, saved: list[Checkpoint | None]) -> str:
    spec = pipeline.checkpoint
    assert spec is not None
    found = checkpoints.load(spec.path, config_hash=pipeline.hash(), trust_pickle=spec.trust_pickle)
    saved.append(found)
    if (older := checkpoints.previous(spec.path)).is_dir():
        raise StoreError(f"{older}: cannot write: is a directory")
    if found is None:
        return f"{spec.path}: none yet, begins at the beginning"
    try:
        engine.restore(found.state)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{spec.path}: cannot be gone on from: {error!r}") from error
    signed = ", key set" if signing_key() is not None else ""
    n_ids = len(section(found.state, runner.DEDUP).get("ids", ()))  # type: ignore[arg-type]
    return f"{spec.path}: event {engine.n_events:,}" + (f", {n_ids:,} ids" if n_ids else "") + signed


def _source(
    pipeline: AnyPipeline, source: Any, position: Mapping[str, Any] | None, *, known: bool
) -> Iterator[Check]:
    given = _given(pipeline)
    if given.get("bootstrap") is not None:
        yield from _kafka_source(given, source, position, known=known)
    elif isinstance(pipeline, BanditPipeline) and isinstance(pipeline.source, Followed):
        yield _checked("source", _feedback, pipeline.source, source, position)
    else:
        yield _checked("source", _first_record, source, position)


def _given(pipeline: AnyPipeline) -> Mapping[str, Any]:
    source = pipeline.source
    return source.parameters if isinstance(source, Component) else source.model_dump()


def _feedback(spec: Followed, source: Any, position: Mapping[str, Any] | None) -> str:
    return f"{spec.path}: {_first_record(source, position)}"


def _first_record(source: Any, position: Mapping[str, Any] | None) -> str:
    """Read one record of a source that can be read without anybody noticing."""
    chunks = source.chunks(position, 1)
    try:
        chunk = next(chunks, None)
        if chunk is None:
            return "nothing comes after the checkpoint"
        return "the next record can be read" if len(chunk.batch) or chunk.rejected else "waits for records"
    finally:
        chunks.close()


def _kafka_source(
    given: Mapping[str, Any], source: Any, position: Mapping[str, Any] | None, *, known: bool
) -> Iterator[Check]:
    from penstock.kafka.client import Connection

    wait_s = float(given.get("connect_timeout_s", _ANSWER_S))
    topics = given.get("topics") or list(filter(None, (given["decisions"], given["rewards"])))
    topics = [topics] if isinstance(topics, str) else list(dict.fromkeys(topics))
    try:
        connection = Connection(bootstrap=given["bootstrap"], settings=given.get("settings") or {})
        connection.resolved()
    except PenstockError as error:
        yield Check(what="source", problem=error)
        return
    ahead: Ahead | None = None
    if known:
        try:
            ahead = source.ahead(position)
        except PenstockError as error:
            yield Check(what="positions", problem=error)
        else:
            if ahead.n_entries or position:
                found = f"{source.journal_path}: {ahead.n_entries:,} entries to repeat"
                yield Check(what="journal", found=found)
    for topic in topics:
        check = _checked("topic", _topic, connection, topic, wait_s)
        yield check
        if isinstance(check.problem, ServiceError):
            return  # the broker does not answer: it would not for the others either
        if check.problem is None and ahead and any(topic == begun for begun, _ in ahead.first):
            yield _checked("positions", _positions, connection, topic, ahead, wait_s)


def _topic(connection: Connection, topic: str, wait_s: float) -> str:
    from penstock.kafka.client import describe

    n = describe(connection, [topic], wait_s)[topic]
    return f"{topic}: {n} partition{'s' if n > 1 else ''}"


def _positions(connection: Connection, topic: str, ahead: Ahead, wait_s: float) -> str:
    from penstock.kafka import topics
    from penstock.kafka.client import identities
    from penstock.kafka.order import check_ids
    from penstock.kafka.reader import named

    check_ids(ahead.ids, identities(connection, [topic], wait_s))
    ends = topics.ends(connection, topic, timeout_s=wait_s)
    waiting = 0
    for place, first in ahead.first.items():
        if place[0] != topic:
            continue
        low, high = ends.get(place[1], (0, -1))
        for offset in (first, ahead.behind[place]):
            if not low <= offset <= high:
                raise DataError(
                    f"{named(*place)}: offset {offset} is wanted, and the broker has {low} to {high}"
                )
        waiting += high - first
    return f"{topic}: all in the log, {waiting:,} records wait"


def _topics(pipeline: AnyPipeline) -> Iterator[Check]:
    """Look for the topics that are written to."""
    letters, answers, spec = pipeline.dead_letters, pipeline.answers, pipeline.snapshots
    wanted: list[tuple[str, str, ToTopics]] = []
    if letters.topic is not None:
        wanted.append(("dead_letters", letters.topic, letters))
    if pipeline.events is not None:
        wanted.append(("events", pipeline.events.topic, pipeline.events))
    if answers is not None:
        wanted += [("answers", topic, answers) for topic in (answers.requests, answers.results)]
    for where, topic, to in wanted:
        yield _checked(where.replace("_", " "), _output, pipeline, to, where, topic)
    if spec is not None and spec.topic is not None:
        yield _checked("snapshot topic", _snapshot_topic, pipeline, spec, spec.topic)


def _output(pipeline: AnyPipeline, to: ToTopics, where: str, topic: str) -> str:
    from penstock.kafka.letters import connected

    connection = connected(to, pipeline.source, where=where)
    connection.resolved()
    return _there_or_made(connection, topic, create=to.create)


def _snapshot_topic(pipeline: AnyPipeline, spec: SnapshotsSpec, topic: str) -> str:
    from penstock.kafka.letters import connected
    from penstock.kafka.publisher import TOPIC_CONFIG

    connection = connected(spec, pipeline.source, where="snapshots")
    connection.resolved()
    return _there_or_made(connection, topic, create=True, config=TOPIC_CONFIG)


def _there_or_made(
    connection: Connection, topic: str, *, create: bool, config: Mapping[str, str] = MappingProxyType({})
) -> str:
    from penstock.kafka import topics

    try:
        found = _topic(connection, topic, _ANSWER_S)
    except ConfigError:
        if not create:
            raise
        return f"{topic}: to be made"
    topics.check(connection, topic, config, timeout_s=_ANSWER_S)
    return found


def _port(spec: MonitorSpec, standby: bool) -> str:
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET  # as the monitor
    try:
        with socket.socket(family, socket.SOCK_STREAM) as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((spec.host, spec.port))
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        if is_taken and standby:
            return f"{spec.host}:{spec.port} is taken, by the run that is waited for"
        kind = ServiceError if is_taken else ConfigError
        raise kind(
            f"`monitor`: cannot listen on {spec.host}:{spec.port}: {error.strerror or error}"
        ) from error
    return f"{spec.host}:{spec.port} is free"
