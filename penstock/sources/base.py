"""What a source is: events in order, with positions to come back to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from penstock.events import Batch

__all__ = ["Chunk", "Position", "Rejected", "Source"]

Position: TypeAlias = Mapping[str, Any]
"""Where to go on: opaque to everyone but the source, and plain JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A record that could not be used: what a dead letter says."""

    reason: str  # one line, naming field, value and position
    where: str  # "clicks.jsonl:17"
    data: bytes | None  # the record as it came; None: a message without a value
    after: int = field(default=0, compare=False)  # events of its chunk that came before it
    # What came with a message besides its value: with it, the message can be sent once more as it was.
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None  # since the Unix epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one read gave. The position is the one *after* it: resuming there repeats and misses nothing."""

    batch: Batch
    rejected: tuple[Rejected, ...]
    position: Position


@runtime_checkable
class Source(Protocol):
    """Feedback from somewhere. Built with ``Class(task, **parameters)``.

    The annotations of the constructor are its schema, as for learners.
    """

    def chunks(self, position: Position | None, size: int) -> Iterator[Chunk]:
        """Read from `position` (None: the beginning) in chunks of at most `size` events.

        Where the chunks are cut changes nothing but the cuts. A source that waits for more (a followed
        file, a topic) gives an empty chunk from time to time, so that its reader can see to other duties.

        Raises
        ------
        DataError
            If the input as a whole cannot be used: missing, empty, truncated, or not of its format.
        """
        ...
