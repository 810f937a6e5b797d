"""Decisions and rewards as applications log them: two growing files, read as one stream."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from annotated_types import Gt

from penstock.errors import BadRecord, DataError
from penstock.feedback import DecisionEvent, RewardEvent, parse
from penstock.sources.base import Position, Rejected
from penstock.sources.heads import has_head, is_head
from penstock.sources.streams import ByteStream

__all__ = ["Feedback", "FeedbackSource"]

_FILES: Final = ("decisions", "rewards")

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
    file has nothing more, the other one is read on: what comes late is for the joiner to hold. Blank lines
    are passed over.

    The files only grow, and may be rotated: moved to another name, with a new file in their place. What was
    moved is read to its end first. If that happens while nobody reads, the name has to be that of the file
    with something behind it (``decisions.jsonl.1``), in the same directory. A file that was truncated, or
    replaced by one that holds something else, is an error.

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
            If there is no such directory, or a file is not what it was: shorter, another one, or gone.
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


@dataclass(slots=True)
class _Place:
    """Where reading stands; a position is its JSON."""

    offset: int = 0  # behind the last line taken
    line: int = 0  # lines of the file that lie before
    head: str = ""  # how the file begins; empty in positions of older versions

    @classmethod
    def of(cls, position: Mapping[str, Any], path: Path) -> _Place:
        try:
            place = cls(**position)
        except TypeError:
            place = cls(offset=-1)
        if any(type(n) is not int or n < 0 for n in (place.offset, place.line)) or not is_head(place.head):
            raise DataError(f"{path}: {position!r} is no position of a file of feedback")
        return place


class _Tail:
    """One growing file of JSON lines, and the lines of it that were read but not taken.

    When the path leads to another file, the one that it led to before is read to its end first.
    """

    def __init__(self, path: Path, position: Mapping[str, Any]) -> None:
        self._path = path
        self._place = _Place.of(position, path)
        self._lines: deque[bytes] = deque()
        self._rest: list[bytes] = []  # of a line that has not ended, in pieces
        self._seen = self._place.offset  # bytes of the file, whole lines or not
        self._stream: ByteStream | None = None
        self._before: ByteStream | None = None  # the file in whose place this one came
        self._next: Event | Rejected | None = None

    @property
    def position(self) -> dict[str, Any]:
        if self._stream is not None:
            self._place.head = self._stream.head
        return asdict(self._place)

    @property
    def next_time(self) -> float:
        return self._next.time if isinstance(self._next, DecisionEvent | RewardEvent) else float("-inf")

    def fill(self) -> bool:
        """Look at the next line that is not blank; say whether there is one."""
        while self._next is None:
            if not self._lines:
                self._read()
            if not self._lines:
                return False
            if self._lines[0].strip():
                self._next = self._parsed(self._lines[0])
            else:
                self._pass_line()
        return True

    def take(self, after: int) -> Event | Rejected:
        found = self._next
        assert found is not None
        self._next = None
        self._pass_line()
        return replace(found, after=after) if isinstance(found, Rejected) else found

    def _pass_line(self) -> None:
        # The last line of a file that was rotated away may lack its end.
        self._place.offset = min(self._place.offset + len(self._lines.popleft()) + 1, self._seen)
        self._place.line += 1

    def _parsed(self, line: bytes) -> Event | Rejected:
        where = f"{self._path.name}:{self._place.line + 1}"
        try:
            return parse(line, position=where)
        except BadRecord as error:
            return Rejected(reason=str(error), where=where, data=line)

    def _read(self) -> None:
        """Read on until there is a whole line, or no more by now."""
        try:
            if self._stream is None:
                self._stream = self._opened()
            while self._stream is not None and not self._lines:
                is_over = self._is_replaced(self._stream)
                data = self._stream.read()  # behind that look: all that was written before it is in here
                self._stream.check_content()
                self._seen += len(data)
                if data:
                    self._cut(data)
                elif not is_over:
                    self._check_before()
                    return
                elif self._rest:
                    self._cut(b"\n")  # nobody will end it any more
                else:
                    self._turn_over(self._stream)
        except OSError as error:
            raise DataError(f"cannot read {self._path}: {error.strerror}") from error
        except DataError as error:
            raise DataError(f"{self._path}: {error} (behind line {self._place.line:,})") from None

    def _cut(self, data: bytes) -> None:
        self._rest.append(data)
        if b"\n" in data:
            *lines, rest = b"".join(self._rest).split(b"\n")
            self._lines.extend(lines)
            self._rest = [rest] if rest else []

    def _opened(self) -> ByteStream | None:
        """Open the file that the position is in, wherever it lies by now; None if there is none yet."""
        if not self._place.offset:
            return ByteStream(str(self._path)) if self._path.exists() else None
        try:
            return ByteStream(str(self._path), self._place.offset, self._place.head)
        except DataError as error:
            moved = [other for other in self._others() if _begins(other, self._place.head)]
            if len(moved) != 1:
                raise DataError(f"{error}; and no {self._path.name}.* is what was read") from None
            return ByteStream(str(moved[0]), self._place.offset, self._place.head)

    def _others(self) -> list[Path]:
        """Return what was rotated away, if it was called after what it was: ``decisions.jsonl.1``."""
        return [other for other in self._path.parent.glob(f"{self._path.name}?*") if other.is_file()]

    def _is_replaced(self, stream: ByteStream) -> bool:
        """Whether there is another file at the path. While there is none, what was moved may still grow."""
        try:
            return not stream.is_at(self._path)
        except FileNotFoundError:
            return False

    def _turn_over(self, old: ByteStream) -> None:
        """Go on with the file that is at the path now; all lines of the old one were taken."""
        if _begins(self._path, old.head):  # a copy, in which the place is the same
            self._stream = ByteStream(str(self._path), self._place.offset, old.head)
            old.close()
            return
        for other in self._others():
            if other.stat().st_mtime_ns > old.modified_ns and not old.is_at(other):
                raise DataError(
                    f"was rotated more than once since it was read: {other.name} is newer than what has been "
                    "read to its end, and would be left out"
                )
        if self._before is not None:
            self._before.close()
        self._before, self._stream = old, ByteStream(str(self._path))
        self._place, self._seen = _Place(), 0

    def _check_before(self) -> None:
        if self._before is not None and self._before.read():
            raise DataError(
                "the file that was here before has been written to after it was rotated and read: "
                "what writes there has to open the new one"
            )

    def close(self) -> None:
        for stream in (self._stream, self._before):
            if stream is not None:
                stream.close()


def _begins(path: Path, head: str) -> bool:
    """Whether a file is known to begin as `head` says."""
    with path.open("rb") as file:
        return head != "" and has_head(file.fileno(), head)
