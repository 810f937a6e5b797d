"""The daemon: source → engine → snapshots and checkpoints.

A checkpoint holds the engine's whole state and the source's position, in one file replaced atomically.
After a crash the runner goes back to it and repeats what came after: the engine is deterministic, so it
promotes the same versions again, and the store, which knows them already, keeps what it has.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from penstock import checkpoints, sources
from penstock.bandit_config import BanditPipeline, Followed
from penstock.checkpoints import Checkpoint
from penstock.config import Pipeline
from penstock.dead_letters import DeadLetters
from penstock.engine import Engine
from penstock.errors import ConfigError, StoreError
from penstock.joined_engine import JoinedEngine
from penstock.notices import Notice
from penstock.snapshots import SnapshotStore
from penstock.sources import Position, Rejected
from penstock.sources.feedback import FeedbackSource
from penstock.state import State
from penstock.tensors import signing_key

__all__ = ["Outcome", "run"]

_log = logging.getLogger("penstock")
_BATCH: Final = 4096


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
    digest : str
    serving : int or None
        Version that serves.
    stopped : bool
        Whether it was asked to stop, rather than the source having ended.
    """

    events: int
    resumed_at: int
    rejected: int
    digest: str
    serving: int | None
    stopped: bool


AnyPipeline: TypeAlias = "Pipeline | BanditPipeline"


class _Engine(Protocol):
    """What the runner needs of an engine."""

    @property
    def n_events(self) -> int: ...
    @property
    def classes(self) -> list[str]: ...
    def ticks(self, events: Any) -> Iterator[Any]: ...
    def progress(self, events: Any) -> list[Notice]: ...
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


def run(
    pipeline: AnyPipeline,
    *,
    batch: int = _BATCH,
    should_stop: Callable[[], bool] = lambda: False,
    on_notice: Callable[[Notice], None] | None = None,
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

    Raises
    ------
    ConfigError
        If the pipeline could not be resumed after a crash as it is configured.
    DataError
        If the source cannot be used, or too many of its records. What was learned before is kept.
    StoreError
        If a snapshot or checkpoint cannot be written, or belongs to another configuration.
    """
    _check_opaque(pipeline)
    with _only_writer(pipeline):
        return _Run(pipeline, on_notice).until_end(batch, should_stop)


class _Run:
    def __init__(self, pipeline: AnyPipeline, on_notice: Callable[[Notice], None] | None) -> None:
        self._pipeline = pipeline
        self._on_notice = on_notice or _say
        self._engine, self._source = _parts(pipeline)
        self._store: SnapshotStore | None = None
        self._keep = 0
        self._first_version = self._first_sequence = 0
        if pipeline.snapshots is not None:
            spec = pipeline.snapshots
            self._store, self._keep = SnapshotStore(spec.path, trust_pickle=spec.trust_pickle), spec.keep
            # In a store that holds an earlier run's snapshots, versions and promotions are counted on.
            serving = self._store.peek("serving")
            self._first_version = max(self._store.versions(), default=0) if spec.path.exists() else 0
            self._first_sequence = serving.sequence or 0 if serving else 0
        self._position: Position | None = None
        self._saved_position: Position | None = None
        self._agrees = True  # engine and position are at the same event
        rules = pipeline.dead_letters
        counts: Mapping[str, int] = {}
        saved = self._load()
        if saved is not None:
            self._engine.restore(saved.state)
            self._position = self._saved_position = saved.position or None
            self._first_version = int(saved.extra["first_version"])
            self._first_sequence = int(saved.extra["first_sequence"])
            counts = saved.extra["dead_letters"]
        self._letters = DeadLetters(rules.path, max_rate=rules.max_bad_rate, min_bad=rules.min_bad, **counts)
        self._resumed_at = self._engine.n_events
        self._saved_at = (self._engine.n_events, time.monotonic())

    def until_end(self, batch: int, should_stop: Callable[[], bool]) -> Outcome:
        stopped = False
        with self._letters:
            try:
                for chunk in self._source.chunks(self._position, batch):
                    self._learn(chunk)
                    self._letters.judge()
                    stopped = should_stop()
                    if stopped:
                        break
                    if self._is_due():
                        self._save()
            finally:
                # Also when the source broke: what was learned before stays learned. But not when a batch
                # was left half-way, where the engine no longer agrees with any position.
                if self._agrees and self._position is not None:
                    self._save()
        serving = self._store.peek("serving") if self._store else None
        return Outcome(
            events=self._engine.n_events,
            resumed_at=self._resumed_at,
            rejected=self._letters.n_bad,
            digest=self._engine.digest(),
            serving=serving.version if serving else None,
            stopped=stopped,
        )

    def _learn(self, chunk: _Read) -> None:
        if self._position is None:
            # The very beginning is a place to come back to as well: a run that dies before its next
            # checkpoint gives its snapshots the same numbers again. And a disk that is full says so now.
            self._save()
        self._agrees = False
        # Tick by tick, so that a snapshot is described as of its own tick, wherever the chunk was cut.
        for part in self._engine.ticks(chunk.batch):
            for notice in self._engine.progress(part):
                self._publish(notice)
        self._letters.take(chunk.rejected, len(chunk.batch))
        self._position = chunk.position
        self._agrees = True

    def _publish(self, notice: Notice) -> None:
        store = self._store
        if store is not None and notice.version is not None:
            version = self._first_version + notice.version
            if notice.model is not None:
                store.put(notice.model.state(), self._manifest(notice, version))
            if notice.what == "opened":
                store.set_alias("candidate", version)
            elif notice.what == "rejected" or notice.how == "replace":
                store.drop_alias("candidate")
            if notice.what == "promoted" and notice.sequence is not None:
                store.promote(version, self._first_sequence + notice.sequence)
                store.prune(self._keep)
        self._on_notice(notice)

    def _manifest(self, notice: Notice, version: int) -> dict[str, Any]:
        return {
            "name": self._pipeline.name,
            "version": version,
            "parent": notice.parent and self._first_version + notice.parent,
            "learner": notice.learner,
            "kind": notice.kind,
            "task": self._pipeline.task,
            "classes": self._engine.classes or None,
            "config_hash": self._pipeline.hash(),
            "last_event": notice.event,
            "promoted_as": notice.how,
            "evidence": dict(notice.evidence),
            "metrics": self._engine.metrics()[notice.learner],
        }

    def _is_due(self) -> bool:
        spec = self._pipeline.checkpoint
        if spec is None or self._position == self._saved_position:
            return False  # nothing has come since: a followed file that does not grow costs no writing
        events, at = self._saved_at
        return self._engine.n_events - events >= spec.every_events or time.monotonic() - at >= spec.every_s

    def _save(self) -> None:
        spec = self._pipeline.checkpoint
        if spec is None:
            return
        checkpoints.save(
            spec.path,
            Checkpoint(
                state=self._engine.state(),
                position=self._position or {},
                extra={
                    "first_version": self._first_version,
                    "first_sequence": self._first_sequence,
                    "dead_letters": {
                        "size": self._letters.flush(),
                        "n_bad": self._letters.n_bad,
                        "n_good": self._letters.n_good,
                    },
                },
            ),
            config_hash=self._pipeline.hash(),
        )
        self._saved_at = (self._engine.n_events, time.monotonic())
        self._saved_position = self._position

    def _load(self) -> Checkpoint | None:
        spec = self._pipeline.checkpoint
        if spec is None:
            return None
        return checkpoints.load(spec.path, config_hash=self._pipeline.hash(), trust_pickle=spec.trust_pickle)


def _parts(pipeline: AnyPipeline) -> tuple[_Engine, _Source]:
    """Build what a pipeline is made of: the engine that learns, and the source that feeds it."""
    if isinstance(pipeline, BanditPipeline):
        if not isinstance(pipeline.source, Followed):
            raise ConfigError("`source.kind`: the daemon of a bandit pipeline reads `feedback`")
        feedback = FeedbackSource(
            pipeline.source.path, follow=pipeline.source.follow, poll_s=pipeline.source.poll_s
        )
        return JoinedEngine(pipeline.rules, pipeline.joiner(), pipeline=pipeline.name), feedback
    source = pipeline.source
    return Engine(pipeline), sources.build(source.kind, pipeline.learning_task, **source.parameters)


def _say(notice: Notice) -> None:
    _log.info("event %s: %s: %s", f"{notice.event:,}", notice.what, notice.text)


def _check_opaque(pipeline: AnyPipeline) -> None:
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
def _only_writer(pipeline: AnyPipeline) -> Iterator[None]:
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
            raise StoreError(
                f"another run is using the checkpoint {pipeline.checkpoint.path}: stop it first, "
                f"or give this one a checkpoint of its own"
            ) from None
        yield
    finally:
        os.close(descriptor)
