"""What ``penstock replay`` does: any past state again, from the log, in the order in which it was learned."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

from penstock import checkpoints
from penstock.bandit_config import BanditPipeline
from penstock.checkpoints import Checkpoint
from penstock.config import Pipeline
from penstock.decisions import key_of
from penstock.dedup import Dedup
from penstock.engine import Engine
from penstock.errors import ConfigError, DataError
from penstock.events import Batch
from penstock.explain import ExplainingEngine, explained
from penstock.feedback import DecisionEvent
from penstock.joined_engine import JoinedEngine
from penstock.runner import AnyPipeline, parts
from penstock.sources import Position

__all__ = ["Replayed", "replay"]

_BATCH: Final = 4096
_RECORD: Final = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)\[(?P<partition>\d+)\]@(?P<offset>\d+)")
_LINE: Final = re.compile(r"(?P<file>.+):(?P<line>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Where a replay came to.

    Attributes
    ----------
    events : int
        Learned.
    digest : str
        Of the engine's state, as `penstock.runner.Outcome` has it.
    position : Position
        Behind the last record.
    seconds : float
    explained : dict or None
        See `penstock.explain`.
    """

    events: int
    digest: str
    position: Position
    seconds: float
    explained: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        told: dict[str, Any] = {
            "events": self.events,
            "digest": self.digest,
            "position": self.position,
            "seconds": self.seconds,
        }
        return told if self.explained is None else {**told, "explained": self.explained}

    def lines(self) -> list[str]:
        """Return it for people: what was known of the event, then where it came to."""
        lines = [] if self.explained is None else [json.dumps(self.explained, indent=2, default=str), ""]
        lines.append(f"events    {self.events:,} in {self.seconds:.2f} s")
        lines.append(f"position  {json.dumps(self.position)}")
        lines.append(f"digest    {self.digest}")
        return lines


class _Goal(Protocol):
    """Where to stop."""

    text: str

    def may_pass(self, engine: Any, chunk: Any) -> bool:
        """Whether learning all of a chunk might reach it, or go beyond."""
        ...

    def is_reached(self, engine: Any, position: Position) -> bool: ...


class _Events:
    """So many events."""

    def __init__(self, n: int) -> None:
        self.text = f"event {n:,}"
        self._n = n

    def may_pass(self, engine: Any, chunk: Any) -> bool:
        waiting = engine.counts["waiting"] if isinstance(engine, JoinedEngine) else 0
        n_events: int = engine.n_events
        return n_events + waiting + len(chunk.batch) >= self._n

    def is_reached(self, engine: Any, position: Position) -> bool:
        n_events: int = engine.n_events
        return n_events >= self._n


class _Record:
    """A record of a topic, or a whole position."""

    def __init__(self, offsets: Mapping[str, Mapping[str, int]], text: str) -> None:
        self.text = text
        self._offsets = offsets

    def may_pass(self, engine: Any, chunk: Any) -> bool:
        return self.is_reached(engine, chunk.position)

    def is_reached(self, engine: Any, position: Position) -> bool:
        topics = position.get("topics", {})
        return all(
            topics.get(topic, {}).get(partition, 0) >= offset
            for topic, partitions in self._offsets.items()
            for partition, offset in partitions.items()
        )


class _Line:
    """A line of a file."""

    def __init__(self, file: str, line: int) -> None:
        self.text = f"{file}:{line}"
        self._file = file
        self._line = line
        self._seen = False

    def may_pass(self, engine: Any, chunk: Any) -> bool:
        return self.is_reached(engine, chunk.position)

    def is_reached(self, engine: Any, position: Position) -> bool:
        for name, line in _lines(position):
            if name in (self._file, Path(self._file).name) or Path(name).name == self._file:
                self._seen = True
                return line >= self._line
        return self._seen  # it is the next file already


def _lines(position: Position) -> Iterator[tuple[str, int]]:
    """Give each file that a position is in, and how many lines of it lie before."""
    if "file" in position:
        yield str(position["file"]), int(position["record"])
        return
    for name, place in position.items():
        if isinstance(place, Mapping) and "line" in place:
            yield f"{name}.jsonl", int(place["line"])


class _Exactly:
    """A position that a source gave."""

    def __init__(self, position: Position) -> None:
        self.text = "the position of the checkpoint"
        self.position: Final = position

    def may_pass(self, engine: Any, chunk: Any) -> bool:
        return self.is_reached(engine, chunk.position)

    def is_reached(self, engine: Any, position: Position) -> bool:
        return bool(position) and _order(position) >= _order(self.position)


def _order(position: Position) -> list[Any]:
    """Return what grows from position to position of a source that reads files or a data set."""
    if "file" in position:
        return [position["lap"], position["file"], position["record"]]
    numbers = [
        int(place["line"]) if isinstance(place, Mapping) else int(place) for place in position.values()
    ]
    return [sum(numbers)]


class _End:
    """All there is."""

    text = "its end"

    def may_pass(self, engine: Any, chunk: Any) -> bool:
        return False

    def is_reached(self, engine: Any, position: Position) -> bool:
        return False


def replay(
    pipeline: AnyPipeline, *, until: str | None = None, explain: str | None = None, batch: int = _BATCH
) -> Replayed:
    """Learn from the beginning of the log up to a place in it, as the daemon did.

    Nothing is written, and a daemon that is running is not disturbed. What a topic's partitions held is
    learned in the order of the journal.

    Parameters
    ----------
    pipeline : Pipeline or BanditPipeline
    until : str, optional
        A number of events; ``topic[partition]@offset`` or ``file:line``: the state after this record was
        learned; ``checkpoint``: the position of the checkpoint; ``end``. If it is not given: the event to
        explain, or else the checkpoint if there is one, or else the end. A bandit learns some decisions
        together: it stops at the first state that holds as many.
    explain : str, optional
        An event: its number, its position, or its id (``id:17`` if that is a number).
    batch : int
        Events read at a time; changes no result.

    Raises
    ------
    ConfigError
        If it makes no sense for this pipeline.
    DataError
        If the log ends before, or there is no such event, or the log does not have its beginning any more,
        or it does not give what the checkpoint holds.
    StoreError
        If there is no journal, or it is damaged.
    """
    began = time.monotonic()
    until = until or _default(pipeline, explain)
    saved = _saved(pipeline) if until == "checkpoint" else None
    run = _Replay(_ending(pipeline), batch, explain)
    run.to(_goal(until, saved))
    if saved is not None:
        _check_same(pipeline, run.engine, saved)
    return Replayed(
        events=run.engine.n_events,
        digest=run.engine.digest(),
        position=run.position or {},
        seconds=time.monotonic() - began,
        explained=run.found,
    )


def _ending(pipeline: AnyPipeline) -> AnyPipeline:
    """Return the pipeline with a source that does not wait at its end."""
    follows = (
        pipeline.source.parameters.get("follow")
        if isinstance(pipeline, Pipeline)
        else getattr(pipeline.source, "follow", False)
    )
    return pipeline.with_source(follow=False) if follows else pipeline


def _default(pipeline: AnyPipeline, explain: str | None) -> str | None:
    """Return where to stop if nobody says it; None: as soon as the event was explained."""
    if explain is not None:
        return None
    has_one = pipeline.checkpoint is not None and pipeline.checkpoint.path.exists()
    return "checkpoint" if has_one else "end"


def _goal(until: str | None, saved: Checkpoint | None) -> _Goal | None:
    """Read a position; None: as soon as the event was explained."""
    if until is None:
        return None
    if until == "end":
        return _End()
    if saved is not None:
        return _at(saved)
    if until.isdecimal():
        return _Events(int(until))
    goal = _place(until)
    if goal is None:
        raise ConfigError(
            f"--until {until}: expected a number of events, topic[partition]@offset, file:line, "
            f"`checkpoint` or `end`"
        )
    return goal


def _place(text: str) -> _Goal | None:
    """Read the position of a record; the state that is meant is the one behind it."""
    if match := _RECORD.fullmatch(text):
        return _Record({match["topic"]: {match["partition"]: int(match["offset"]) + 1}}, text)
    if match := _LINE.fullmatch(text):
        return _Line(match["file"], int(match["line"]))
    return None


def _saved(pipeline: AnyPipeline) -> Checkpoint:
    saved = _load(pipeline)
    if saved is None:
        raise ConfigError("--until checkpoint: there is no checkpoint")
    return saved


def _load(pipeline: AnyPipeline) -> Checkpoint | None:
    spec = pipeline.checkpoint
    if spec is None:
        return None
    return checkpoints.load(spec.path, config_hash=pipeline.hash(), trust_pickle=spec.trust_pickle)


def _at(saved: Checkpoint) -> _Goal:
    if not saved.position:
        return _Events(0)
    if "topics" in saved.position:
        return _Record(saved.position["topics"], "the position of the checkpoint")
    return _Exactly(saved.position)


def _check_same(pipeline: AnyPipeline, engine: Any, saved: Checkpoint) -> None:
    """Check that what was learned from the log is what the checkpoint holds, at its position."""
    held, _ = parts(pipeline)
    held.restore(saved.state)
    if engine.digest() != held.digest():
        raise DataError(
            f"the log gives {engine.n_events:,} events and digest {engine.digest()} at the position of the "
            f"checkpoint, which holds {held.n_events:,} and {held.digest()}: this is not, or not all of, the "
            f"log that was learned (rotated feedback has to be put together again)"
        )


def _first_version(pipeline: AnyPipeline) -> int:
    """Return what the store's numbers of versions are ahead of the engine's, as the checkpoint says."""
    saved = _load(pipeline)
    return 0 if saved is None else int(saved.extra["first_version"])


class _Replay:
    """Learns record by record where it matters, and in large pieces where it does not."""

    def __init__(self, pipeline: AnyPipeline, batch: int, explain: str | None) -> None:
        self.engine, source = parts(pipeline)
        self.position: Position | None = None
        self.found: dict[str, Any] | None = None
        self._read: Any = getattr(source, "replay", source.chunks)
        self._batch = batch
        dedup = pipeline.dedup if isinstance(pipeline, Pipeline) else None
        self._dedup = None if dedup is None else Dedup(dedup.window)
        self._explain = explain
        self._number: int | None = None
        self._id: str | None = None
        self._place: _Goal | None = None
        self._pipeline = pipeline
        self._explaining: ExplainingEngine | None = None
        if explain is not None:
            self._look_for(explain)

    def _look_for(self, explain: str) -> None:
        if explain.isdecimal():
            self._number = int(explain)
        else:
            self._place = None if explain.startswith("id:") else _place(explain)
            if self._place is None:
                self._id = explain.removeprefix("id:")
        if isinstance(self.engine, JoinedEngine) and isinstance(self._pipeline, BanditPipeline):
            key = None if self._id is None else key_of(self._id, self._pipeline.name)
            self._explaining = ExplainingEngine(self._pipeline.rules, key=key, number=self._number)
            self.engine.bandit = self._explaining
        else:
            self._version = _first_version(self._pipeline)

    def to(self, goal: _Goal | None) -> None:
        """Learn until `goal`; None: until the event was explained."""
        if goal is not None and goal.is_reached(self.engine, self.position or {}):
            self._check_explained()
            return
        size = self._batch
        while size:
            size = self._learn_to(goal, size)
        if isinstance(goal, _Exactly) and self.position != goal.position:
            raise DataError(
                f"{goal.text} is {dict(goal.position)}, and the log gives {dict(self.position or {})}: files "
                f"that grew together were read in another order then, which nothing has written down, or "
                f"they have been rotated since"
            )
        self._check_explained()

    def _learn_to(self, goal: _Goal | None, size: int) -> int:
        """Read from where we are; return the size of chunks to go on with, 0 if this is it."""
        with closing(cast("Any", self._read(self.position, size))) as chunks:
            for chunk in chunks:
                if size > 1 and (
                    (goal is not None and goal.may_pass(self.engine, chunk)) or self._may_hold(chunk)
                ):
                    return 1  # once more, record by record
                searched = self.found is None
                self._learn(chunk)
                self.position = chunk.position
                has_found = searched and self.found is not None
                if has_found if goal is None else goal.is_reached(self.engine, chunk.position):
                    return 0
                if has_found and size < self._batch:
                    return self._batch
        if goal is not None and not isinstance(goal, _End):
            raise DataError(
                f"the log ends after {self.engine.n_events:,} events, and {goal.text} is asked for"
            )
        return 0

    def _learn(self, chunk: Any) -> None:
        batch: Any = chunk.batch if self._dedup is None else self._dedup.filter(chunk.batch)
        if self._explain is not None and self.found is None:
            if self._explaining is None:
                self._explain_one(chunk, batch)
            elif self._is_at(chunk) and len(batch) and isinstance(batch[0], DecisionEvent):
                self._place, self._explaining.key = None, key_of(batch[0].id, self._pipeline.name)
        self.engine.progress(batch)
        if self._explaining is not None:
            self.found = self._explaining.found

    def _may_hold(self, chunk: Any) -> bool:
        """Whether the event to explain may be in a chunk, so that it has to be cut out."""
        if self._explain is None or self.found is not None:
            return False
        if self._place is not None:
            return self._place.may_pass(self.engine, chunk)
        if self._explaining is not None:
            return False  # the engine looks for it
        if self._number is not None:
            return bool(self.engine.n_events + len(chunk.batch) >= self._number)
        return chunk.batch.ids is not None and self._id in chunk.batch.ids

    def _is_at(self, chunk: Any) -> bool:
        return self._place is not None and self._place.is_reached(self.engine, chunk.position)

    def _explain_one(self, chunk: Any, batch: Batch) -> None:
        """Say what is known of the event that a chunk consists of, if it is the one."""
        is_at = self._is_at(chunk)
        if is_at and not len(batch):
            raise DataError(f"--explain {self._explain}: this record was no event, or one learned before")
        if len(batch) != 1:
            return
        is_number = self._number is not None and self.engine.n_events + 1 == self._number
        is_id = self._id is not None and batch.ids is not None and batch.ids[0] == self._id
        if is_at or is_number or is_id:
            self.found = explained(cast("Engine", self.engine), batch, first_version=self._version)

    def _check_explained(self) -> None:
        if self._explain is not None and self.found is None:
            raise DataError(f"--explain {self._explain}: no such event was learned by then")
