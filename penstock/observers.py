"""What is told of a run while it goes on: monitoring, events, whatever else looks on or sends out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.notices import Notice
from penstock.sources import Position, Rejected

__all__ = ["Learned", "Observer", "Saved", "Started"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A run begins.

    Attributes
    ----------
    name : str
        Of the pipeline.
    source : Source
        May have `health` and `lag()`, as `penstock.kafka.source.KafkaSource`.
    engine : Engine
        For `metrics()`, and `counts` of bandits; asked on the learning thread only.
    resumed_at : int
        Events that had been learned before.
    """

    name: str
    source: Any
    engine: Any
    resumed_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """One chunk was learned; often an empty one, which is a sign of life.

    Attributes
    ----------
    events : int
        Learned since the very beginning.
    bad, duplicates : int
        Records since the very beginning that could not be used, and that had been learned already.
    n_new : int
        Events of this chunk.
    rejected : tuple of Rejected
        Of this chunk.
    position : Position
        Behind the chunk.
    seconds : float
        That learning it took.
    """

    events: int
    bad: int
    duplicates: int
    n_new: int
    rejected: tuple[Rejected, ...]
    position: Position
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint is on the disk.

    Attributes
    ----------
    events : int
        That it holds.
    position : Position
    pause_s : float
        How long learning stood still for it.
    seconds : float
        Until it was on the disk.
    sha256 : str
        Of the file.
    """

    events: int
    position: Position
    pause_s: float
    seconds: float
    sha256: str


class Observer:
    """Told of a run, on the learning thread: whoever is slow here holds learning up. Does nothing itself.

    What is raised ends the run.
    """

    def started(self, run: Started) -> None:
        """Take note that the run is ready to learn."""

    def noticed(self, notice: Notice, version: int | None) -> None:
        """Take what the engine reports, its snapshot stored under `version`; repeated after a crash."""

    def learned(self, chunk: Learned) -> None:
        """Take note of a chunk; repeated after a crash."""

    def saved(self, checkpoint: Saved) -> None:
        """Take note of a checkpoint, soon after it is in place."""

    def stopped(self, error: BaseException | None) -> None:
        """Take note of the end; of what ended it if it was not asked to."""
