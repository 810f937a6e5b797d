"""The records of one file, from a position on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final

from penstock.codecs.base import Codec, Decoded, Framer, Oversize
from penstock.codecs.framing import Lines
from penstock.codecs.spans import LineSpans, Spans
from penstock.errors import DataError
from penstock.sources.streams import ByteStream

__all__ = ["RecordFile"]

_CHUNK_BYTES: Final = 4 << 20  # of records taken at once: rather fewer than asked for than a full cache


class RecordFile:
    """Reads, cuts and decodes one file.

    Parameters
    ----------
    path : str
    codec : Codec
    offset, number : int
        Where to begin: in bytes of the decompressed content, and in lines (or records) before that.
    max_record_bytes : int
        A longer record is rejected.
    head : str
        How the file begins, if the position says so; see `penstock.sources.heads`.
    is_over : callable
        Asked at what is the end of the file by now: whether it stays the end. Called again before it counts.

    Raises
    ------
    DataError
        If the file cannot be read, or the position is not between two of its records.
    """

    def __init__(
        self,
        path: str,
        codec: Codec,
        *,
        offset: int,
        number: int,
        max_record_bytes: int,
        is_over: Callable[[ByteStream], bool],
        head: str = "",
    ) -> None:
        self._path = path
        self._codec = codec
        self._limit = max_record_bytes
        self._is_over = is_over
        self._damage: DataError | None = None
        self._has_ended = False
        if codec.needs_header and offset:
            self._codec = self._read_header()
        try:
            self._stream = ByteStream(path, offset, head)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        self._framer: Framer = codec.framer(max_record_bytes, offset, number)
        # A position behind another byte than a line end is the end of a file that lacked one.
        self._must_end = isinstance(self._framer, (Lines, LineSpans)) and self._stream.last_byte not in (
            b"",
            b"\n",
        )

    @property
    def offset(self) -> int:
        """Of the content, behind the last record decoded."""
        return self._framer.offset

    @property
    def number(self) -> int:
        """Lines or records before `offset`."""
        return self._framer.number

    @property
    def head(self) -> str:
        """How the file begins."""
        return self._stream.head

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, error, trace)

    def take(self, n: int) -> tuple[int, Decoded] | None:
        """Decode the next records, at most `n`.

        Returns
        -------
        (number of records, Decoded), or None
            None at the end; no records if the file has no more by now.

        Raises
        ------
        DataError
            If the file is damaged, when every record before the damage was taken.
        """
        if self._codec.needs_header and not self._take_header():
            return None if self._has_ended else (0, self._codec.decode((), str))
        records, number_of, oversize = self._gather(n)
        if not records and oversize is None:
            if self._has_ended:
                return None
            return 0, self._codec.decode((), str)
        batch, rejected = self._codec.decode(records, lambda i: f"{self._path}:{number_of(i)}")
        if oversize is not None:
            rejected += (oversize.rejected(self._limit, f"{self._path}:{oversize.number}", len(batch)),)
        return len(records) + (oversize is not None), (batch, rejected)

    def _gather(self, n: int) -> tuple[Sequence[bytes], Callable[[int], int], Oversize | None]:
        """Return the next records; fewer than `n` only if there are no more by now, or for their size.

        With them, what tells the number of record i.
        """
        frames = self._framer.take(n)
        taken = [frames]
        n_records, n_bytes = len(frames.records), _n_bytes(frames.records)
        while n_records < n and frames.oversize is None and n_bytes < _CHUNK_BYTES and self._feed():
            frames = self._framer.take(n - n_records)
            taken.append(frames)
            n_records += len(frames.records)
            n_bytes += _n_bytes(frames.records)
        if not n_records and frames.oversize is None and self._damage is not None:
            raise DataError(f"{self._path}: {self._damage} (behind record {self.number})")

        def number_of(i: int) -> int:
            for part in taken:
                if i < len(part.numbers):
                    return int(part.numbers[i])
                i -= len(part.numbers)
            raise IndexError(i)

        return _joined([part.records for part in taken]), number_of, frames.oversize

    def _feed(self) -> bool:
        """Hand the framer the next piece of the file; return whether there was one."""
        if self._has_ended or self._damage is not None:
            return False
        try:
            data = self._stream.read()
            if not data and self._is_over(self._stream):
                # What was written before the end was declared has to be seen.
                data = self._stream.read()
                if not data:
                    self._has_ended = True
                    data = self._stream.finish()
            if data and self._must_end:
                self._damage = DataError(
                    f"byte {self.offset} is inside a record: not the file that the position was taken from"
                )
                return False
            self._framer.feed(data)
            if self._has_ended:
                self._framer.end()
        except DataError as damage:
            self._damage = damage
            self._has_ended = False
            return True  # the framer may have found records before it
        return bool(data) or self._has_ended

    def _take_header(self) -> bool:
        """Take the first record for the codec's header; return whether it was there."""
        records, number_of, oversize = self._gather(1)
        if oversize is not None:
            raise DataError(f"{self._path}:{oversize.number}: the header has more than {self._limit} bytes")
        if not records:
            return False
        self._codec = self._codec.with_header(records[0], f"{self._path}:{number_of(0)}")
        return True

    def _read_header(self) -> Codec:
        """Return the codec with the header of the file, which lies before the position."""
        first = RecordFile(
            self._path,
            self._codec,
            offset=0,
            number=0,
            max_record_bytes=self._limit,
            is_over=lambda _: True,
        )
        with first:
            if not first._take_header():
                raise DataError(f"{self._path}: has no header, and the position is behind it")
        return first._codec


def _n_bytes(records: Sequence[bytes]) -> int:
    return records.n_bytes if isinstance(records, Spans) else sum(map(len, records))


def _joined(parts: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    if not isinstance(parts[0], Spans):
        return [record for part in parts for record in part]
    joined = Spans()
    for part in parts:
        assert isinstance(part, Spans)  # of the same framer
        joined.extend(part)
    return joined
