"""Where one record ends and the next begins, in a stream that arrives in pieces of any size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgpack

from penstock.codecs.base import KEPT_BYTES, Frames, Oversize
from penstock.errors import DataError

__all__ = ["Lines", "Packed"]


_BLANK: Final = b" \r"  # no tab: it may separate missing values


class _TooLong(NamedTuple):
    head: bytes
    length: int
    n_lines: int


class Lines:
    r"""A record is a line; blank lines are none. The last one needs no line end.

    Parameters
    ----------
    limit : int
        The longest record in bytes, without its line end. Of a longer one only the head is kept.
    offset, number : int
        Bytes and lines before the first that will be fed.
    is_open : callable, optional
        ``is_open(line, inside)`` says whether a line ends inside a quoted field, given whether it begins
        inside one; then the record goes on behind the line end, as CSV allows.

    Examples
    --------
    >>> framer = Lines(limit=100)
    >>> framer.feed(b"one\n\ntwo\nth")
    >>> framer.take(10)
    Frames(records=[b'one', b'two'], numbers=[1, 3], oversize=None)
    >>> framer.offset, framer.number
    (9, 3)
    """

    def __init__(
        self,
        limit: int,
        offset: int = 0,
        number: int = 0,
        is_open: Callable[[bytes, bool], bool] | None = None,
    ) -> None:
        self.offset = offset
        self.number = number
        self._limit = limit
        self._is_open = is_open
        self._ready: deque[list[bytes] | _TooLong] = deque()  # runs of whole records, blank ones too
        self._next = 0  # in the first run
        self._lacks_end = False  # whether the last record ready has no line end
        self._tail: list[bytes] = []  # pieces of the line that has not ended; its head if that is too long
        self._tail_bytes = 0
        self._quoted: list[bytes] = []  # lines of the record that has not ended
        self._quoted_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            if self._tail:
                self._grow_tail(lines[0])
                lines[:1] = self._cut_tail()
            self._add(lines)
        if rest:
            self._grow_tail(rest)

    def end(self) -> None:
        """Note that there is no more: what is left is the last record."""
        self._lacks_end = bool(self._tail)
        if self._tail:
            self._add(self._cut_tail())
        if self._quoted:  # and never closed, which is for the codec to say
            self._ready.append([self._cut_quoted()])

    def take(self, n: int) -> Frames:
        """Return at most `n` records."""
        records: list[bytes] = []
        numbers: list[int] = []
        oversize = None
        while self._ready and len(records) < n:
            run = self._ready[0]
            if isinstance(run, _TooLong):
                oversize = Oversize(self.number + 1, run.head, run.length)
                self._ready.popleft()
                self.offset += run.length + 1
                self.number += run.n_lines
                break
            lines = run[self._next : self._next + n - len(records)]
            self._next += len(lines)
            if self._next >= len(run):
                self._ready.popleft()
                self._next = 0
            self._count(lines, records, numbers)
        if self._lacks_end and not self._ready:
            self.offset -= 1
            self._lacks_end = False
        return Frames(records, numbers, oversize)

    def _count(self, lines: list[bytes], records: list[bytes], numbers: list[int]) -> None:
        """Move what is not blank of `lines` to `records`."""
        first = self.number + 1
        if self._is_open is None:
            starts: Iterable[int] = range(first, first + len(lines))
            self.number += len(lines)
        else:
            starts = []
            for line in lines:
                starts.append(self.number + 1)
                self.number += 1 + line.count(b"\n")
        self.offset += sum(map(len, lines)) + len(lines)
        if any(not line or line.isspace() for line in lines):
            for line, start in zip(lines, starts, strict=True):
                if line.strip(_BLANK):
                    records.append(line)
                    numbers.append(start)
        else:
            records += lines
            numbers += starts

    def _grow_tail(self, piece: bytes) -> None:
        self._tail_bytes += len(piece)
        self._tail.append(piece)
        if self._tail_bytes > self._limit:
            self._tail = [b"".join(self._tail)[:KEPT_BYTES]]

    def _cut_tail(self) -> list[bytes]:
        """Return the tail as a list of one line; of none, having noted it, if it is too long."""
        line, length = b"".join(self._tail), self._tail_bytes
        self._tail, self._tail_bytes = [], 0
        if length <= self._limit:
            return [line]
        self._add_too_long(line, length)
        return []

    def _add_too_long(self, head: bytes, length: int) -> None:
        n_lines = 1
        if self._quoted:
            n_lines += len(self._quoted)
            length += self._quoted_bytes
            head = self._cut_quoted() + b"\n" + head
        self._ready.append(_TooLong(head[:KEPT_BYTES], length, n_lines))

    def _add(self, lines: list[bytes]) -> None:
        if not lines:
            return  # an empty run would hide that what came before it was the last
        if self._is_open is None and max(map(len, lines)) <= self._limit:
            self._ready.append(lines)
            return
        run: list[bytes] = []
        for line in lines:
            length = len(line) + self._quoted_bytes
            if length > self._limit:
                self._ready.append(run)
                run = []
                self._add_too_long(line, len(line))
            elif self._is_open is not None and self._is_open(line, bool(self._quoted)):
                self._quoted.append(line)
                self._quoted_bytes += len(line) + 1
            elif self._quoted:
                self._quoted.append(line)
                run.append(self._cut_quoted())
            else:
                run.append(line)
        self._ready.append(run)

    def _cut_quoted(self) -> bytes:
        record = b"\n".join(self._quoted)
        self._quoted, self._quoted_bytes = [], 0
        return record


class Packed:
    """A record is one MessagePack object; they lie one behind the other.

    Parameters
    ----------
    limit : int
        The longest record in bytes. A longer one, or one nested deeper than the decoder would follow, is
        passed over without being held, and only its head is kept.
    offset, number : int
        Bytes and records before the first that will be fed.
    """

    def __init__(self, limit: int, offset: int = 0, number: int = 0) -> None:
        self.offset = offset
        self.number = number
        self._limit = limit
        self._ready: deque[bytes | _TooLong] = deque()
        self._fed = offset
        self._buffer = b""  # what comes behind the records ready
        self._passing: _Passage | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        self._fed += len(data)
        self._buffer += data
        while self._buffer:
            if self._passing is None:
                if not self._cut():
                    return
                self._passing = _Passage()
            passed = self._passing.walk(self._buffer)
            self._buffer = self._buffer[passed:]
            if self._passing.damaged:
                raise self._damage()
            if not self._passing.finished:
                return
            self._ready.append(_TooLong(self._passing.head, self._passing.length, 1))
            self._passing = None

    def end(self) -> None:
        """Note that there is no more."""
        if self._buffer or self._passing is not None:
            began = self._fed - len(self._buffer) - (self._passing.length if self._passing else 0)
            raise DataError(f"the record at byte {began} is cut off: the file ends inside it")

    def take(self, n: int) -> Frames:
        """Return at most `n` records."""
        first = self.number + 1
        records: list[bytes] = []
        oversize = None
        while self._ready and len(records) < n:
            record = self._ready.popleft()
            self.number += 1
            if isinstance(record, _TooLong):
                oversize = Oversize(self.number, record.head, record.length)
                self.offset += record.length
                break
            self.offset += len(record)
            records.append(record)
        return Frames(records, range(first, first + len(records)), oversize)

    def _cut(self) -> bool:
        """Move every whole record of the buffer; return whether the next has to be passed over."""
        unpacker = msgpack.Unpacker()
        unpacker.feed(self._buffer)
        start = 0
        is_passed_over = False
        try:
            while not is_passed_over:
                unpacker.skip()
                end = unpacker.tell()
                is_passed_over = end - start > self._limit
                if not is_passed_over:
                    self._ready.append(self._buffer[start:end])
                    start = end
        except msgpack.OutOfData:
            is_passed_over = len(self._buffer) - start > self._limit
        except msgpack.StackError:
            is_passed_over = True
        except msgpack.FormatError:
            self._buffer = self._buffer[start:]
            raise self._damage() from None
        self._buffer = self._buffer[start:]
        return is_passed_over

    def _damage(self) -> DataError:
        began = self._fed - len(self._buffer) - (self._passing.length if self._passing else 0)
        return DataError(f"the record at byte {began} is not MessagePack, so nobody can tell where it ends")


# Types by their first byte, as MessagePack's specification lists them.
# Bytes of the length that follows, objects for each item of it, bytes besides it:
_LENGTHS: Final = {
    **dict(zip((0xC4, 0xC5, 0xC6), ((1, 0, 0), (2, 0, 0), (4, 0, 0)), strict=True)),  # bin
    **dict(zip((0xC7, 0xC8, 0xC9), ((1, 0, 1), (2, 0, 1), (4, 0, 1)), strict=True)),  # ext, with its type
    **dict(zip((0xD9, 0xDA, 0xDB), ((1, 0, 0), (2, 0, 0), (4, 0, 0)), strict=True)),  # str
    **dict(zip((0xDC, 0xDD), ((2, 1, 0), (4, 1, 0)), strict=True)),  # array
    **dict(zip((0xDE, 0xDF), ((2, 2, 0), (4, 2, 0)), strict=True)),  # map
}
# Bytes that follow:
_PAYLOADS: Final = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),  # nil, false, true
    **dict(zip((0xCA, 0xCB), (4, 8), strict=True)),  # float
    **dict(zip(range(0xCC, 0xD4), (1, 2, 4, 8, 1, 2, 4, 8), strict=True)),  # uint and int
    **dict(zip(range(0xD4, 0xD9), (2, 3, 5, 9, 17), strict=True)),  # fixext, with its type
}


class _Passage:
    """Walks over one MessagePack object of any length and depth, holding its head and two numbers."""

    def __init__(self) -> None:
        self.head = b""
        self.length = 0  # bytes walked so far
        self.damaged = False
        self._objects = 1  # that have yet to begin
        self._payload = 0  # bytes of the current one that have yet to come

    @property
    def finished(self) -> bool:
        return not (self._objects or self._payload)

    def walk(self, data: bytes) -> int:
        """Walk as far as `data` goes; return how many of its bytes need not be seen again."""
        at = 0
        while not self.finished:
            step = min(self._payload, len(data) - at)
            at += step
            self._payload -= step
            if self._payload or not self._objects:
                break
            header = self._header(data, at)
            if not header:
                break
            at += header
        self.length += at
        self.head += data[: min(at, KEPT_BYTES - len(self.head))]
        return at

    def _header(self, data: bytes, at: int) -> int:
        """Take the bytes that say what comes next; return how many, 0 if they are not all there."""
        if at >= len(data):
            return 0
        first = data[at]
        width = children = 0
        if first < 0x80 or first >= 0xE0:
            payload = 0
        elif first < 0xA0:
            children, payload = (first & 0x0F) * (2 if first < 0x90 else 1), 0
        elif first < 0xC0:
            payload = first & 0x1F
        elif first in _PAYLOADS:
            payload = _PAYLOADS[first]
        elif first in _LENGTHS:
            width, per_item, besides = _LENGTHS[first]
            if at + 1 + width > len(data):
                return 0
            length = int.from_bytes(data[at + 1 : at + 1 + width])
            children, payload = length * per_item, besides + (0 if per_item else length)
        else:
            self.damaged = True
            return 0
        self._objects += children - 1
        self._payload = payload
        return 1 + width
