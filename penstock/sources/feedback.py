"""Decisions and rewards as applications log them: two growing files, read as one stream."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from annotated_types import Gt

from penstock.errors import BadRecord, DataError
from penstock.feedback import DecisionEvent, RewardEvent, parse
from penstock.sources.base import Position, Rejected

__all__ = ["Feedback", "FeedbackSource"]

_FILES: Final = ("decisions", "rewards")
_READ_BYTES: Final = 1 << 20

Event: TypeAlias = "DecisionEvent | RewardEvent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What one read gave; as `penstock.sources.Chunk`, with feedback in the place of labelled events."""

    batch: list[Event]
    rejected: tuple[Rejected, ...]
    position: Position


class FeedbackSource:
    """Reads ``decisions.jsonl`` and ``rewards.jsonl`` of a directory, merged by event time.

    Only whole lines are taken; a last line without its end is left for when the rest is there. Where one
    file has nothing more, the other one is read on: what comes late is for the joiner to hold.

    Parameters
    ----------
    path : str
        The directory, as `penstock.sinks.FileSink` fills it.
    follow : bool
        Wait for more at the end.
    poll_s : float
        How often to look, in seconds.
    """

    def __init__(self, path: str, *, follow: bool = False, poll_s: Annotated[float, Gt(0)] = 0.1) -> None:
        self._path = Path(path)
        self._follow = follow
        self._poll_s = poll_s

    def chunks(self, position: Position | None, size: int) -> Iterator[Feedback]:
        """Read from `position` (None: the beginning) in chunks of at most `size` events.

        Raises
        ------
        DataError
            If there is no such directory, or a file is shorter than what was read of it before.
        """
        if not self._path.is_dir() and not self._follow:
            raise DataError(f"no feedback at {self._path}: there is no such directory")
        tails = [_Tail(self._path / f"{name}.jsonl", (position or {}).get(name, {})) for name in _FILES]
        try:
            while True:
                events: list[Event] = []
                rejected: list[Rejected] = []
                while len(events) < size and (tail := _earliest(tails)) is not None:
                    found = tail.take(len(events))
                    if isinstance(found, Rejected):
                        rejected.append(found)
                    else:
                        events.append(found)
                if not events and not rejected:
                    if not self._follow:
                        return
                    time.sleep(self._poll_s)
                yield Feedback(
                    batch=events,
                    rejected=tuple(rejected),
                    position={name: tail.position for name, tail in zip(_FILES, tails, strict=True)},
                )
        finally:
            for tail in tails:
                tail.close()


def _earliest(tails: list[_Tail]) -> _Tail | None:
    """Which file has the next event; None if none has one."""
    ready = [tail for tail in tails if tail.fill()]
    return min(ready, key=lambda tail: tail.next_time, default=None)


class _Tail:
    """One growing file of JSON lines, and the lines of it that were read but not taken."""

    def __init__(self, path: Path, position: Mapping[str, Any]) -> None:
        self._path = path
        self._offset = int(position.get("offset", 0))  # behind the last line taken
        self._line = int(position.get("line", 0))
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._file: Any = None
        self._next: Event | Rejected | None = None

    @property
    def position(self) -> dict[str, int]:
        return {"offset": self._offset, "line": self._line}

    @property
    def next_time(self) -> float:
        return self._next.time if isinstance(self._next, DecisionEvent | RewardEvent) else float("-inf")

    def fill(self) -> bool:
        """Look at the next line; say whether there is one."""
        if self._next is None:
            if not self._lines:
                self._read()
            if self._lines:
                self._next = self._parsed(self._lines[0])
        return self._next is not None

    def take(self, after: int) -> Event | Rejected:
        found = self._next
        assert found is not None
        self._next = None
        self._offset += len(self._lines.popleft()) + 1
        self._line += 1
        if isinstance(found, Rejected):
            return Rejected(reason=found.reason, where=found.where, data=found.data, after=after)
        return found

    def _parsed(self, line: bytes) -> Event | Rejected:
        where = f"{self._path.name}:{self._line + 1}"
        try:
            return parse(line, position=where)
        except BadRecord as error:
            return Rejected(reason=str(error), where=where, data=line)

    def _read(self) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("rb")
                if self._file.seek(0, 2) < self._offset:
                    raise DataError(f"{self._path} is shorter than what was read of it: was it replaced?")
                self._file.seek(self._offset)
            while not self._lines and (data := self._file.read(_READ_BYTES)):
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._lines.extend(lines)
        except FileNotFoundError:
            return  # not yet
        except OSError as error:
            raise DataError(f"cannot read {self._path}: {error.strerror}") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
