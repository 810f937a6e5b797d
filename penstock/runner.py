"""The daemon: source → engine → snapshots and checkpoints.

A checkpoint holds the engine's whole state and the source's position, in one file replaced atomically.
After a crash the runner goes back to it and repeats what came after: the engine is deterministic, so it
promotes the same versions again, and the store, which knows them already, keeps what it has.

Learning stands still for a checkpoint only while the state is copied; hashing and writing it is done beside.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, cast, runtime_checkable

from penstock import checkpoints, sources
from penstock.bandit_config import BanditPipeline, Followed, Topics
from penstock.checkpoints import Checkpoint
from penstock.config import Pipeline
from penstock.dedup import Dedup
from penstock.engine import Engine
from penstock.errors import ConfigError, InUse, ServiceError, StoreError
from penstock.joined_engine import JoinedEngine
from penstock.notices import Notice
from penstock.observers import Learned, Observer, Saved, Started
from penstock.outputs import Outputs
from penstock.saver import Saver, Written
from penstock.snapshots import SnapshotStore
from penstock.sources import Position, Rejected
from penstock.sources.feedback import FeedbackSource
from penstock.state import State, prefixed, section
from penstock.tensors import signing_key
from penstock.verdicts import VerdictLog

__all__ = ["DEDUP", "AnyPipeline", "Outcome", "check_opaque", "only_writer", "parts", "run"]

_log = logging.getLogger("penstock")
_BATCH: Final = 4096
DEDUP: Final = "dedup"
"""Section of a checkpoint's state, beside the engine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    events : int
        Learned since the very beginning, resumed runs included.
    resumed_at : int
        Events that had been learned when this run started.
    rejected : int
    duplicates : int
        Left out because their id had been learned.
    digest : str
    serving : int or None
        Version that serves.
    stopped : bool
        Whether it was asked to stop, rather than the source having ended.
    counts : mapping of str to int
        What became of decisions and rewards, see `penstock.joined_engine.JoinedEngine.counts`; empty for
        learners.
    """

    events: int
    resumed_at: int
    rejected: int
    duplicates: int
    digest: str
    serving: int | None
    stopped: bool
    counts: Mapping[str, int] = field(default_factory=dict)


AnyPipeline: TypeAlias = "Pipeline | BanditPipeline"


class _Engine(Protocol):
    """What the runner needs of an engine."""

    @property
    def n_events(self) -> int: ...
    @property
    def classes(self) -> list[str]: ...
    def progress(self, events: Any) -> list[Notice]: ...
    def follow(self, events: Any) -> Iterator[Notice]: ...
    def standing(self) -> list[Notice]: ...
    def metrics(self) -> dict[str, dict[str, float]]: ...
    def state(self) -> State: ...
    def restore(self, state: State) -> None: ...
    def digest(self) -> str: ...


class _Read(Protocol):
    """What the runner needs of what a source gives."""

    @property
    def batch(self) -> Any: ...
    @property
    def rejected(self) -> tuple[Rejected, ...]: ...
    @property
    def position(self) -> Position: ...


class _Source(Protocol):
    def chunks(self, position: Position | None, size: int) -> Iterator[_Read]: ...


@runtime_checkable
class _Durable(Protocol):
    """A source whose positions speak of something that it keeps itself."""

    journal_path: Path | None

    def sync(self) -> None: ...
    def saved(self, position: Position) -> None: ...


def run(
    pipeline: AnyPipeline,
    *,
    batch: int = _BATCH,
    should_stop: Callable[[], bool] = lambda: False,
    on_notice: Callable[[Notice], None] | None = None,
    observers: Sequence[Observer] = (),
) -> Outcome:
    """Learn from a source until it ends or `should_stop` says so.

    Parameters
    ----------
    pipeline : Pipeline or BanditPipeline
    batch : int
        Events read at a time; also how many are learned at most between two looks at `should_stop`.
    should_stop : callable
        Asked between batches. A checkpoint is written before the function returns.
    on_notice : callable, optional
        Told of everything the engine reports, after snapshots were stored.
    observers : sequence of Observer
        Told of everything that happens.

    Raises
    ------
    ConfigError
        If the pipeline could not be resumed after a crash as it is configured.
    DataError
        If the source cannot be used, or too many of its records. What was learned before is kept.
    StoreError
        If a snapshot or checkpoint cannot be written, or belongs to another configuration; `InUse` if another
        run is using it.
    """
    check_opaque(pipeline)
    with only_writer(pipeline):
        return _Run(pipeline, on_notice, observers).until_end(batch, should_stop)


class _Run:
    def __init__(
        self,
        pipeline: AnyPipeline,
        on_notice: Callable[[Notice], None] | None,
        observers: Sequence[Observer],
    ) -> None:
        self._pipeline = pipeline
        self._on_notice = on_notice or _say
        self._observers = observers
        self._engine, self._source = parts(pipeline)
        self._durable = self._source if isinstance(self._source, _Durable) else None
        dedup = pipeline.dedup if isinstance(pipeline, Pipeline) else None
        self._dedup = None if dedup is None else Dedup(dedup.window)
        self._saver: Saver | None = None
        if pipeline.checkpoint is not None:
            sync = _nothing if self._durable is None else self._durable.sync
            self._saver = Saver(pipeline.checkpoint.path, config_hash=pipeline.hash(), before=sync)
        self._store: SnapshotStore | None = None
        self._verdicts: VerdictLog | None = None
        self._keep = 0
        self._first_version = self._first_sequence = 0
        if pipeline.snapshots is not None:
            spec = pipeline.snapshots
            self._store, self._keep = SnapshotStore(spec.path, trust_pickle=spec.trust_pickle), spec.keep
            # In a store that holds an earlier run's snapshots, versions and promotions are counted on.
            self._first_version = max(self._store.versions(), default=0) if spec.path.exists() else 0
            self._first_sequence = self._store.last_sequence()
            self._verdicts = VerdictLog(spec.path)
        self._position: Position | None = None
        self._saved_position: Position | None = None
        self._agrees = True  # engine and position are at the same event
        saved = self._load()
        if saved is not None:
            self._engine.restore(saved.state)
            if self._dedup is not None:
                self._dedup.restore(section(saved.state, DEDUP))
            self._position = self._saved_position = saved.position or None
            self._first_version = int(saved.extra["first_version"])
            self._first_sequence = int(saved.extra["first_sequence"])
        self._outputs = Outputs(pipeline, saved.extra if saved is not None else {})
        self._letters = self._outputs.letters
        self._resumed_at = self._engine.n_events
        self._saved_at = (self._engine.n_events, time.monotonic())

    def until_end(self, batch: int, should_stop: Callable[[], bool]) -> Outcome:
        error: BaseException | None = None
        try:
            return self._until_end(batch, should_stop)
        except BaseException as failure:
            error = failure
            raise
        finally:
            if self._saver is not None:
                self._saver.close()
            for observer in self._observers:
                observer.stopped(error)

    def _until_end(self, batch: int, should_stop: Callable[[], bool]) -> Outcome:
        stopped = False
        with self._outputs:
            resumed = self._position is not None
            self._outputs.happened("resumed" if resumed else "started", self._resumed_at)
            for observer in self._observers:
                observer.started(
                    Started(
                        name=self._pipeline.name,
                        source=self._source,
                        engine=self._engine,
                        resumed_at=self._resumed_at,
                    )
                )
            if resumed:
                self._put_back()
            # A source is closed behind its last checkpoint, of which it is told.
            with closing(cast("Any", self._source.chunks(self._position, batch))) as chunks:
                try:
                    for chunk in chunks:
                        self._learn(chunk)
                        self._letters.judge()
                        self._collect()
                        stopped = should_stop()
                        if stopped:
                            break
                        if self._is_due():
                            self._save()
                finally:
                    self._collect(wait=True)
                    # Also when the source broke: what was learned before stays learned. But not when a batch
                    # was left half-way, where the engine no longer agrees with any position.
                    if self._agrees and self._position is not None:
                        self._save()
                        self._collect(wait=True)
            self._tell_the_end(asked=stopped)
        serving = self._store.peek("serving") if self._store else None
        return Outcome(
            events=self._engine.n_events,
            resumed_at=self._resumed_at,
            rejected=self._letters.n_bad,
            duplicates=self._n_duplicates,
            digest=self._engine.digest(),
            serving=serving.version if serving else None,
            stopped=stopped,
            counts=self._engine.counts if isinstance(self._engine, JoinedEngine) else {},
        )

    def _put_back(self) -> None:
        """Store again what serves and what may serve again, if the store is another one than before.

        Without, applications would have no model before the next promotion, and a rollback nowhere to go.
        """
        store = self._store
        if store is None:
            return
        standing = [
            (self._first_version + notice.version, notice, notice.model.state())
            for notice in self._engine.standing()
            if notice.version is not None and notice.model is not None
        ]
        lost = [one for one in standing if not store.file(one[0]).exists()]
        for version, notice, state in lost:
            store.put(state, self._manifest(notice, version))
            _log.warning("%s: version %d was not there; it has been stored again", store.path, version)
        if lost:
            *others, (version, notice, _) = standing
            sequence = self._first_sequence + (notice.sequence or 0)
            store.promote(version, sequence, fallback=others[0][0] if others else None)

    def _tell_the_end(self, *, asked: bool) -> None:
        try:
            self._outputs.happened("stopped", self._engine.n_events, asked=asked)
            self._outputs.flush()
        except ServiceError as error:
            if self._saver is None:
                raise  # what was rejected is not safe
            _log.warning("%s: the end of the run is not told there; all is in the checkpoint", error)

    @property
    def _n_duplicates(self) -> int:
        return 0 if self._dedup is None else self._dedup.n_duplicates

    def _learn(self, chunk: _Read) -> None:
        began = time.monotonic()
        rejected = chunk.rejected
        is_news = bool(len(chunk.batch) or chunk.rejected) or chunk.position != (self._position or {})
        if is_news:
            if self._position is None:
                # The very beginning is a place to come back to as well: a run that dies before its next
                # checkpoint gives its snapshots the same numbers again. And a disk that is full says so now.
                self._save()
                self._collect(wait=True)
            self._agrees = False
            batch = chunk.batch if self._dedup is None else self._dedup.filter(chunk.batch)
            # One by one, so that a snapshot is described as of its own tick, wherever the chunk was cut.
            for notice in self._engine.follow(batch):
                self._publish(notice)
            if isinstance(self._engine, JoinedEngine):
                after = len(chunk.batch)  # they were read before, as good records
                rejected += tuple(replace(each, after=after) for each in self._engine.take_rejected())
            self._letters.take(rejected, len(chunk.batch))
            self._position = chunk.position
            self._agrees = True
        self._outputs.poll()
        if self._observers:
            self._tell(chunk, rejected, time.monotonic() - began)

    def _tell(self, chunk: _Read, rejected: tuple[Rejected, ...], seconds: float) -> None:
        learned = Learned(
            events=self._engine.n_events,
            bad=self._letters.n_bad,
            duplicates=self._n_duplicates,
            n_new=len(chunk.batch),
            rejected=rejected,
            position=chunk.position,
            seconds=seconds,
        )
        for observer in self._observers:
            observer.learned(learned)

    def _publish(self, notice: Notice) -> None:
        if self._durable is not None:
            # What others get to see must come out the same again, even after a power cut: a version that is
            # there with other content could never be stored.
            self._durable.sync()
        if self._store is not None:
            self._keep_verdict(notice)
            if notice.version is not None:
                self._move(notice, self._first_version + notice.version, self._store)
        self._outputs.notice(notice, self._first_version)
        for observer in self._observers:
            observer.noticed(notice, notice.version and self._first_version + notice.version)
        self._on_notice(notice)

    def _keep_verdict(self, notice: Notice) -> None:
        """Write down why, before anything moves."""
        if self._verdicts is None or notice.what in ("drift", "reacted"):
            return
        first = self._first_version
        self._verdicts.append(
            {
                "run": first,
                "event": notice.event,
                "what": notice.what,
                "how": notice.how,
                "learner": notice.learner,
                "version": notice.version and first + notice.version,
                "parent": notice.parent and first + notice.parent,
                "fallback": notice.fallback and first + notice.fallback,
                "sequence": notice.sequence and self._first_sequence + notice.sequence,
                "text": notice.text,
                "evidence": dict(notice.evidence),
                "config_hash": self._pipeline.hash(),
            }
        )

    def _move(self, notice: Notice, version: int, store: SnapshotStore) -> None:
        """Store what is new, and let aliases say what it is now."""
        first = self._first_version
        if notice.model is not None:
            store.put(notice.model.state(), self._manifest(notice, version))
        # After a crash it is told once more of what was long pruned.
        shadowed = [first + n for n in notice.shadowed if store.file(first + n).exists()]
        if notice.what == "opened":
            store.set_alias("candidate", version)
        elif notice.what == "rejected" or notice.how == "replace":
            if shadowed:
                store.set_alias("candidate", max(shadowed))
            else:
                store.drop_alias("candidate")
        if notice.what in ("promoted", "rolled_back") and notice.sequence is not None:
            store.promote(
                version,
                self._first_sequence + notice.sequence,
                how="promote" if notice.what == "promoted" else "rollback",
                fallback=notice.fallback and first + notice.fallback,
            )
            store.prune(self._keep, spare=shadowed)

    def _manifest(self, notice: Notice, version: int) -> dict[str, Any]:
        return {
            "name": self._pipeline.name,
            "version": version,
            "parent": notice.parent and self._first_version + notice.parent,
            "learner": notice.learner,
            "kind": notice.kind,
            "task": self._pipeline.task,
            "classes": list(notice.actions or self._engine.classes) or None,
            "config_hash": self._pipeline.hash(),
            "last_event": notice.event,
            "promoted_as": notice.how,
            "evidence": dict(notice.evidence),
            "metrics": self._engine.metrics()[notice.learner],
        }

    def _is_due(self) -> bool:
        spec = self._pipeline.checkpoint
        if self._saver is None or self._saver.is_busy:
            return False
        if spec is None or self._position == self._saved_position:
            return False  # nothing has come since: a followed file that does not grow costs no writing
        events, at = self._saved_at
        return self._engine.n_events - events >= spec.every_events or time.monotonic() - at >= spec.every_s

    def _save(self) -> None:
        """Copy the state, and have it written beside the learning; `_collect` says when it is there."""
        if self._saver is None:
            return
        began = time.monotonic()
        state = self._engine.state()
        if self._dedup is not None:
            state |= prefixed(self._dedup.state(), DEDUP)
        checkpoint = Checkpoint(
            state=state,
            position=self._position or {},
            extra={
                "first_version": self._first_version,
                "first_sequence": self._first_sequence,
                **self._outputs.flush(),
            },
        )
        n_events, now = self._engine.n_events, time.monotonic()
        self._saver.submit(Written(checkpoint, n_events, now - began))
        self._saved_at = (n_events, now)
        self._saved_position = self._position

    def _collect(self, *, wait: bool = False) -> None:
        """See whether a checkpoint is in place, or could not be written, and tell those who wait for it."""
        written = None if self._saver is None else self._saver.collect(wait=wait)
        if written is None:
            return
        position = written.checkpoint.position
        if self._durable is not None:
            self._durable.saved(position)
        self._outputs.happened("checkpoint", written.events)
        for observer in self._observers:
            observer.saved(
                Saved(
                    events=written.events,
                    position=position,
                    pause_s=written.pause_s,
                    seconds=written.seconds,
                    sha256=written.sha256,
                )
            )

    def _load(self) -> Checkpoint | None:
        spec = self._pipeline.checkpoint
        if spec is None:
            return None
        return checkpoints.load(spec.path, config_hash=self._pipeline.hash(), trust_pickle=spec.trust_pickle)


def parts(pipeline: AnyPipeline) -> tuple[_Engine, _Source]:
    """Build what a pipeline is made of: the engine that learns, and the source that feeds it.

    A source that needs a journal and is not told where has it beside the checkpoint.
    """
    engine, source = _built(pipeline)
    if isinstance(source, _Durable) and source.journal_path is None and pipeline.checkpoint is not None:
        path = pipeline.checkpoint.path
        source.journal_path = path.with_name(f"{path.name}.journal")
    return engine, source


def _built(pipeline: AnyPipeline) -> tuple[_Engine, _Source]:
    if isinstance(pipeline, BanditPipeline):
        feedback: _Source
        if isinstance(pipeline.source, Followed):
            feedback = FeedbackSource(**pipeline.source.model_dump(exclude={"kind"}))
        elif isinstance(pipeline.source, Topics):
            from penstock.kafka.feedback import KafkaFeedback

            feedback = KafkaFeedback(**pipeline.source.model_dump(exclude={"kind"}))
        else:
            raise ConfigError("`source.kind`: the daemon of a bandit pipeline reads `feedback` or `kafka`")
        engine = JoinedEngine(
            pipeline.rules,
            pipeline.joiner(),
            pipeline=pipeline.name,
            retired=pipeline.retirements,
            actions=pipeline.actions,
        )
        return engine, feedback
    source = pipeline.source
    return Engine(pipeline), sources.build(source.kind, pipeline.learning_task, **source.parameters)


def _nothing() -> None:
    """Have nothing to do before a checkpoint."""


def _say(notice: Notice) -> None:
    _log.info("event %s: %s: %s", f"{notice.event:,}", notice.what, notice.text)


def check_opaque(pipeline: AnyPipeline) -> None:
    """Refuse now what could not be resumed, or loaded by anybody, later."""
    learners = pipeline.policies if isinstance(pipeline, BanditPipeline) else pipeline.learners
    opaque = [name for name, spec in learners.items() if spec.kind == "river"]
    if not opaque or signing_key() is not None:
        return
    for what, spec in (("checkpoint", pipeline.checkpoint), ("snapshots", pipeline.snapshots)):
        if spec is not None and not spec.trust_pickle:
            raise ConfigError(
                f"the state of {', '.join(opaque)} can only be kept as a pickle, which nothing would vouch "
                f"for: set the environment variable PENSTOCK_KEY to sign it, or `{what}.trust_pickle: true`"
            )


@contextmanager
def only_writer(pipeline: AnyPipeline) -> Iterator[None]:
    """Hold the lock beside the checkpoint: two runs of one pipeline would overwrite each other."""
    if pipeline.checkpoint is None:
        yield
        return
    path = pipeline.checkpoint.path.with_name(pipeline.checkpoint.path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"cannot write beside the checkpoint: {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(
                f"another run is using the checkpoint {pipeline.checkpoint.path}: stop it first, "
                f"or give this one a checkpoint of its own"
            ) from None
        yield
    finally:
        os.close(descriptor)
