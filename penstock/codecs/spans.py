"""Lines that stay where they are: a record is a stretch of the block that was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from penstock._native.lines import cut_lines
from penstock.codecs.base import KEPT_BYTES, Frames, Oversize

__all__ = ["LineSpans", "Spans"]


class Spans(Sequence[bytes]):
    """Records as stretches of blocks; one becomes an object when it is asked for.

    Attributes
    ----------
    parts : list of (bytes, int64 of shape (m, 2))
        Blocks, and where in each its records begin and end.
    n_bytes : int
        Of all records.
    """

    __slots__ = ("_length", "n_bytes", "parts")

    def __init__(self) -> None:
        self.parts: list[tuple[bytes, NDArray[np.int64]]] = []
        self.n_bytes = 0
        self._length = 0

    def append(self, block: bytes, spans: NDArray[np.int64]) -> None:
        """Add records of one more block."""
        if len(spans):
            self.parts.append((block, spans))
            self.n_bytes += int((spans[:, 1] - spans[:, 0]).sum())
            self._length += len(spans)

    def extend(self, other: Spans) -> None:
        """Add the records of another sequence."""
        self.parts += other.parts
        self.n_bytes += other.n_bytes
        self._length += len(other)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[i] for i in range(self._length)[at]]
        at = range(self._length)[at]
        for block, spans in self.parts:
            if at < len(spans):
                start, end = spans[at].tolist()
                return block[start:end]
            at -= len(spans)
        raise IndexError(at)

    def __iter__(self) -> Iterator[bytes]:
        return (block[start:end] for block, spans in self.parts for start, end in spans.tolist())


class LineSpans:
    r"""Does what `penstock.codecs.framing.Lines` does, for lines without quoted fields.

    Parameters
    ----------
    limit, offset, number
        As of `penstock.codecs.framing.Lines`.

    Examples
    --------
    >>> framer = LineSpans(limit=100)
    >>> framer.feed(b"one\n\ntwo\nth")
    >>> frames = framer.take(10)
    >>> list(frames.records), list(frames.numbers), framer.offset, framer.number
    ([b'one', b'two'], [1, 3], 9, 3)
    """

    def __init__(self, limit: int, offset: int = 0, number: int = 0) -> None:
        self.offset = offset
        self.number = number
        self._limit = limit
        self._block = b""
        self._at = 0  # in the block: where the next line begins
        self._has_ended = False
        self._head = b""  # of a line that is too long, and so passed over
        self._passed = 0  # bytes of it

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        self._block = self._block[self._at :] + data
        self._at = 0
        self._pass_over()

    def end(self) -> None:
        """Note that there is no more: what is left is the last record."""
        self._has_ended = True

    def take(self, n: int) -> Frames:
        """Return at most `n` records; an oversize one ends the frames."""
        records = Spans()
        if self._passed:
            return Frames(records, (), self._oversize() if n > 0 else None)
        block, first = self._block, self.number + 1
        spans, before, stop, n_lines = cut_lines(block, self._at, n, self._limit, self._has_ended)
        records.append(block, spans)
        self.offset += stop - self._at
        self.number += n_lines
        self._at = stop
        oversize = None
        if len(spans) < n:
            self._pass_over()
            oversize = self._oversize()
        numbers: Sequence[int] = range(first, first + n_lines)
        if len(spans) < n_lines:
            numbers = (before + first).tolist()
        return Frames(records, numbers, oversize)

    def _pass_over(self) -> None:
        """Drop what is known of a line that is too long, but for its head."""
        line_end = self._block.find(b"\n", self._at)
        end = len(self._block) if line_end < 0 else line_end
        length = end - self._at
        if self._passed == 0 and length <= self._limit:
            return
        self._head += self._block[self._at : min(end, self._at + KEPT_BYTES - len(self._head))]
        self._passed += length
        self._at = end

    def _oversize(self) -> Oversize | None:
        """Return the line passed over, if its end is here."""
        has_end = self._at < len(self._block)
        if self._passed == 0 or not (has_end or self._has_ended):
            return None
        oversize = Oversize(self.number + 1, self._head, self._passed)
        self.offset += self._passed + has_end
        self.number += 1
        self._at += has_end
        self._head, self._passed = b"", 0
        return oversize
