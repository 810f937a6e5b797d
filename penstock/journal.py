"""The order journal: which records were learned in which order, written down before they are learned.

Partitions of a log have no order among each other; the one in which they happened to arrive is a fact that
only a journal can repeat. Before events are handed to the engine, one entry says which they are: runs of
(topic, partition, first offset, last offset, how many). After a crash exactly these are read again, in this
order.

Entries are appended to segments, ``<number of the first entry>.journal``, each::

    16 bytes  magic, number of the first entry
    entries   4 bytes size of the payload, 8 bytes number of the entry, 4 bytes CRC-32 of these twelve;
              the payload; 4 bytes CRC-32 of it

**What survives what.** An entry is in the hands of the operating system before `append` returns, so a killed
process loses none. A power cut may take entries that were not synced: `sync` is called before a checkpoint
takes the place of the last one, so a checkpoint never speaks of an entry that is not on the disk, and what
was lost behind it is read once more and learned from the same state, if in another order. It is called
before a model is published as well, so whatever others have seen comes out the same again. Syncing every
entry would cost a disk's latency for each chunk and win nothing but an order that nobody has seen.

An end of the last segment that was torn off, or never reached the disk (zeros), is cut off when the journal
is opened: nothing was learned from it. Any other damage is a `StoreError`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from penstock.errors import StoreError

__all__ = ["WAY_OUT", "Journal", "Run", "exists", "read"]

WAY_OUT: Final = "put the right one back; if it is lost, move this one away and run with --new-journal"
"""What to do about a journal that is not as it was written."""

_MAGIC: Final = b"PENSTJ\x00\x01"
_SEGMENT_HEAD: Final = struct.Struct("<8sQ")
_ENTRY_HEAD: Final = struct.Struct("<IQ")
_CRC: Final = struct.Struct("<I")
_HEAD_BYTES: Final = _ENTRY_HEAD.size + _CRC.size
_SUFFIX: Final = ".journal"
_MAX_PAYLOAD: Final = 64 << 20  # no entry comes near; a length beyond it is damage
_SEGMENT_BYTES: Final = 64 << 20


class Run(NamedTuple):
    """Records of one partition that follow each other.

    Offsets may have gaps, where a log was compacted or holds control records: `size` and `last` check each
    other when the run is read again. A run without records (`size` 0) says that reading the partition begins
    at `first`.
    """

    topic: str
    partition: int
    first: int
    last: int
    size: int


class _Segment(NamedTuple):
    first: int  # number of its first entry
    path: Path


class Journal:
    """A journal to append to. It has one writer, which a lock sees to.

    Parameters
    ----------
    path : path
        Directory of the segments, made if need be.
    segment_bytes : int
        A segment that has grown to this size is closed, and the next one begun.
    keep : int, optional
        Of the closed segments whose every entry lies behind the last checkpoint, keep so many. None: all,
        so that everything can be repeated from the very beginning, as long as Kafka still has it. A chunk
        takes some 100 bytes, so a thousand million events read 4096 at a time take 25 MB.
    first : int
        Number of the first entry, if there is no journal yet.

    Raises
    ------
    StoreError
        If it is damaged, cannot be written, or somebody else is writing it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path:
    ...     with Journal(path) as journal:
    ...         number = journal.append([Run("clicks", 0, first=0, last=99, size=100)])
    ...         journal.sync()
    ...     print(*read(path))
    (0, (Run(topic='clicks', partition=0, first=0, last=99, size=100),))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        segment_bytes: int = _SEGMENT_BYTES,
        keep: int | None = None,
        first: int = 0,
    ) -> None:
        self.path: Final = Path(path)
        self._end = first
        self._segment_bytes = segment_bytes
        self._keep = keep
        self._guard = threading.Lock()  # between appending and syncing, which is done in the background
        self._file = self._lock_file = -1
        self._failure: str | None = None  # of appending: nothing more can be
        self._unsafe: str | None = None  # of syncing: no checkpoint may speak of what was written
        self._is_synced = True
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open()
        except BlockingIOError:
            self.close()
            raise StoreError(f"another run is writing the journal {self.path}: stop it first") from None
        except OSError as error:
            self.close()
            raise self._unwritable(error) from error
        except StoreError:
            self.close()
            raise

    @property
    def end(self) -> int:
        """Number of the next entry: so many have been written since the beginning."""
        return self._end

    def append(self, runs: Sequence[Run]) -> int:
        """Write an entry, and return its number. A killed process does not lose it.

        Raises
        ------
        StoreError
            If it cannot be written. What is there of it is cut off again; nothing more can be appended.
        """
        number = self._end
        entry = _entry(number, runs)
        with self._guard:
            if self._failure is not None:
                raise StoreError(self._failure)
            try:
                if self._size >= max(self._segment_bytes, _SEGMENT_HEAD.size + 1):
                    self._rotate()
                self._write(entry)
            except OSError as error:
                failure = self._unwritable(error)
                self._failure = str(failure)
                raise failure from error
            self._size += len(entry)
            self._end += 1
            self._is_synced = False
        return number

    def sync(self) -> None:
        """Have every entry on the disk. May be called from another thread.

        Raises
        ------
        StoreError
            If the disk does not take them; then no checkpoint may speak of them.
        """
        with self._guard:
            if self._unsafe is not None:
                raise StoreError(self._unsafe)
            if self._is_synced:
                return
            file = os.dup(self._file)
            self._is_synced = True
        try:
            os.fsync(file)
        except OSError as error:
            # After a failed fsync nobody knows what is on the disk, and a second one would not say so.
            self._failure = self._unsafe = str(self._unwritable(error))
            raise StoreError(self._unsafe) from error
        finally:
            os.close(file)

    def prune(self, before: int) -> None:
        """Let go of closed segments, as `keep` says; those with entries from `before` on always stay."""
        if self._keep is None:
            return
        segments = _segments(self.path)
        done = [a for a, b in pairwise(segments) if b.first <= before]
        for segment in done[: max(0, len(done) - self._keep)]:
            segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Sync, and let go of the files.

        Raises
        ------
        StoreError
            As `sync`.
        """
        try:
            if self._file >= 0:
                self.sync()
        finally:
            for file in (self._file, self._lock_file):
                if file >= 0:
                    os.close(file)
            self._file = self._lock_file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        """Go to the end of the last segment, and cut off what is torn."""
        segments = _segments(self.path)
        if segments and _is_unborn(segments[-1].path):
            segments.pop().path.unlink()
        if not segments:
            self._begin_segment()
            return
        last = segments[-1]
        reader = _SegmentReader(last, is_last=True)
        for _ in reader.entries():
            pass
        self._end = reader.number
        self._size = reader.offset
        self._file = os.open(last.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if os.fstat(self._file).st_size > self._size:
            os.ftruncate(self._file, self._size)
        self._is_synced = False

    def _write(self, entry: bytes) -> None:
        written = os.write(self._file, entry)
        if written < len(entry):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rotate(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            self._unsafe = str(self._unwritable(error))
            raise
        self._is_synced = True
        os.close(self._file)
        self._file = -1
        self._begin_segment()

    def _begin_segment(self) -> None:
        path = self.path / f"{self._end:020d}{_SUFFIX}"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        head = _SEGMENT_HEAD.pack(_MAGIC, self._end)
        if os.write(self._file, head) < len(head):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file)
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._size = _SEGMENT_HEAD.size
        self._is_synced = True

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"cannot write the journal {self.path}: {error.strerror or error}")


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a journal in a directory."""
    return bool(_segments(Path(path)))


def read(
    path: str | os.PathLike[str], start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, tuple[Run, ...]]]:
    """Read entries ``start`` to ``stop`` (not included; None: the end), one after the other.

    Whole entries only: one that is being written while this reads may or may not be seen. Takes the memory
    of one entry.

    Raises
    ------
    StoreError
        If the directory holds no journal, one that begins later or ends earlier, or one that is damaged.
    """
    path = Path(path)
    segments = _segments(path)
    if not segments:
        raise StoreError(f"there is no journal at {path}")
    if start < segments[0].first:
        raise StoreError(
            f"the journal {path} begins with entry {segments[0].first}, and {start} is asked for"
        )
    number = segments[0].first
    for at, segment in enumerate(segments):
        is_last = at + 1 == len(segments)
        if is_last and at > 0 and _is_unborn(segment.path):
            break
        following = None if is_last else segments[at + 1].first
        if not is_last and following is not None and following <= start:
            number = following
            continue
        if at > 0 and segment.first != number:
            raise StoreError(
                f"{segment.path}: expected entry {number} first: a segment is missing; {WAY_OUT}"
            )
        reader = _SegmentReader(segment, is_last=is_last)
        for number, payload in reader.entries():
            if stop is not None and number >= stop:
                return
            if number >= start:
                yield number, reader.runs(payload)
        number = reader.number
        if following is not None and number != following and not _is_unborn(segments[at + 1].path):
            raise StoreError(
                f"{segment.path} ends with entry {number - 1}, and the next begins with {following}; "
                f"{WAY_OUT}"
            )
    if number < max(start, stop or 0):
        raise StoreError(
            f"the journal {path} ends before entry {number}, and {max(start, stop or 0)} is asked for: "
            f"it is not the one that was written; {WAY_OUT}"
        )


class _SegmentReader:
    """Reads the entries of a segment, and says afterwards where the last whole one ends."""

    def __init__(self, segment: _Segment, *, is_last: bool) -> None:
        self._path = segment.path
        self._is_last = is_last
        self.number = segment.first
        self.offset = _SEGMENT_HEAD.size

    def entries(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self._path.open("rb") as file:
                head = file.read(_SEGMENT_HEAD.size)
                if head != _SEGMENT_HEAD.pack(_MAGIC, self.number):
                    raise StoreError(
                        f"{self._path} is no segment of a journal, or its beginning is damaged; {WAY_OUT}"
                    )
                while True:
                    payload = self._payload(file)
                    if payload is None:
                        return
                    self.offset += _HEAD_BYTES + len(payload) + _CRC.size
                    self.number += 1
                    yield self.number - 1, payload
        except OSError as error:
            raise StoreError(f"cannot read the journal {self._path}: {error.strerror}") from error

    def _payload(self, file: Any) -> bytes | None:
        """Return the next payload; None at the end, which may be torn in the last segment."""
        head = file.read(_HEAD_BYTES)
        if not head:
            return None
        if len(head) < _HEAD_BYTES:
            self._accept_torn("a head")
            return None
        size, number = _ENTRY_HEAD.unpack_from(head)
        if _CRC.unpack_from(head, _ENTRY_HEAD.size)[0] != zlib.crc32(head[: _ENTRY_HEAD.size]):
            self._accept_zeros(head, file, "the head's CRC does not fit")
            return None
        if number != self.number or size > _MAX_PAYLOAD:
            raise self._damaged(f"expected entry {self.number}, got {number} with {size} bytes")
        body = file.read(size + _CRC.size)
        if len(body) < size + _CRC.size:
            self._accept_torn("an entry")
            return None
        payload: bytes = body[:size]
        if _CRC.unpack_from(body, size)[0] != zlib.crc32(payload):
            self._accept_zeros(body[size:], file, "the CRC does not fit")
            return None
        return payload

    def _accept_torn(self, what: str) -> None:
        if not self._is_last:
            raise self._damaged(f"it ends within {what}")

    def _accept_zeros(self, data: bytes, file: Any, why: str) -> None:
        """Accept zeros up to the end, which is what a power cut leaves of a write; raise for the rest."""
        if not self._is_last or data.strip(b"\0"):
            raise self._damaged(why)
        while data := file.read(1 << 16):
            if data.strip(b"\0"):
                raise self._damaged(why)

    def runs(self, payload: bytes) -> tuple[Run, ...]:
        """Read the payload of the last entry."""
        try:
            return _unpacked(payload)
        except (ValueError, IndexError, struct.error, zlib.error) as error:
            raise self._damaged(f"no runs: {error}") from error

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            f"the journal {self._path} is damaged at byte {self.offset} (entry {self.number}): {why}; "
            f"{WAY_OUT}"
        )


def _segments(path: Path) -> list[_Segment]:
    try:
        names = [name for name in os.listdir(path) if name.endswith(_SUFFIX)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read the journal {path}: {error.strerror}") from error
    numbers = [name.removesuffix(_SUFFIX) for name in names]
    for number in numbers:
        if not number.isdecimal():
            raise StoreError(f"{path / (number + _SUFFIX)}: what is this in a journal?")
    return sorted(_Segment(int(number), path / (number + _SUFFIX)) for number in numbers)


def _is_unborn(path: Path) -> bool:
    """Whether a segment was begun and not even its head is there: its first entry was never written."""
    try:
        with path.open("rb") as file:
            head = file.read(_SEGMENT_HEAD.size + 1)
    except OSError as error:
        raise StoreError(f"cannot read the journal {path}: {error.strerror}") from error
    return len(head) < _SEGMENT_HEAD.size or (len(head) == _SEGMENT_HEAD.size and not head.strip(b"\0"))


def _entry(number: int, runs: Sequence[Run]) -> bytes:
    payload = _packed(runs)
    head = _ENTRY_HEAD.pack(len(payload), number)
    return b"".join((head, _CRC.pack(zlib.crc32(head)), payload, _CRC.pack(zlib.crc32(payload))))


def _packed(runs: Sequence[Run]) -> bytes:
    """Write the topics' names, then four columns: topic with partition, first offset, width, count.

    A merge by time makes a run of every other record; columns that hardly change are what zlib is good at.
    """
    topics = list(dict.fromkeys(run.topic for run in runs))
    index = {topic: i for i, topic in enumerate(topics)}
    names = [topic.encode() for topic in topics]
    columns = np.array(
        [(index[run.topic] << 32 | run.partition, run.first, run.last - run.first, run.size) for run in runs],
        dtype="<i8",
    ).reshape(-1, 4)
    head = struct.pack("<H", len(names)) + b"".join(struct.pack("<H", len(name)) + name for name in names)
    return zlib.compress(head + columns.T.tobytes(), 1)


def _unpacked(payload: bytes) -> tuple[Run, ...]:
    data = zlib.decompress(payload)
    (n_topics,) = struct.unpack_from("<H", data)
    at, topics = 2, []
    for _ in range(n_topics):
        (size,) = struct.unpack_from("<H", data, at)
        topics.append(data[at + 2 : at + 2 + size].decode())
        at += 2 + size
    columns = np.frombuffer(data, dtype="<i8", offset=at).reshape(4, -1)
    return tuple(
        Run(topics[place >> 32], place & 0xFFFFFFFF, first, first + width, count)
        for place, first, width, count in columns.T.tolist()
    )
