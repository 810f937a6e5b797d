"""Where an application's decisions and rewards go: the protocol, and two files in a directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import orjson

from penstock.errors import BadRecord, StoreError
from penstock.feedback import MAX_RECORD_BYTES, DecisionEvent, RewardEvent, plain

__all__ = ["FileSink", "Sink"]

_FILES: Final = {DecisionEvent: "decisions.jsonl", RewardEvent: "rewards.jsonl"}


@runtime_checkable
class Sink(Protocol):
    """Takes what the engine is to learn from. Called from any thread."""

    def send(self, event: DecisionEvent | RewardEvent) -> None:
        """Keep `event`; when this returns, another process can read it.

        Raises
        ------
        BadRecord
            If it cannot be written as JSON, or is longer than what keeps it takes.
        StoreError
            If it could not be kept.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class FileSink:
    """Appends to ``decisions.jsonl`` and ``rewards.jsonl`` in a directory, which is made if need be.

    Any number of threads and processes may share the files: a record is one write to the end of a file,
    which a local file system does not interleave with another. (A network file system may.) A process
    that is killed, or a disk that is full, can leave a torn last line: readers wait for its end, and
    whoever writes next ends it, so that it is one bad record and does not take the one after it along.

    To rotate a file, move it: the next record makes another one in its place.

    Parameters
    ----------
    path : path
        The directory.
    fsync : bool
        Have every record on the disk before `send` returns: it then survives a power cut, and takes
        milliseconds. Without, it survives the end of the process.
    max_record_bytes : int
        A longer record is refused. Logs are read up to this default.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path:
    ...     sink = FileSink(path)
    ...     sink.send(RewardEvent(id="d-1", time=12.5, value=1.0))
    ...     sink.close()
    ...     print(Path(path, "rewards.jsonl").read_text(), end="")
    {"id":"d-1","time":12.5,"reward":1.0}
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fsync: bool = False,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self.path: Final = Path(path)
        self._max_record_bytes = max_record_bytes
        self._fsync = fsync
        self._files: dict[type, _File] = {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for kind, name in _FILES.items():
                self._files[kind] = _File(self.path / name)
        except OSError as error:
            self.close()
            raise StoreError(f"cannot write to {error.filename or self.path}: {error.strerror}") from error

    def __repr__(self) -> str:
        return f"FileSink({str(self.path)!r})"

    def send(self, event: DecisionEvent | RewardEvent) -> None:
        """Append `event` to its file."""
        try:
            line = orjson.dumps(event.record(), default=plain, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError as error:
            raise BadRecord(f"what JSON can hold ({error})", event.record()) from error
        if len(line) > self._max_record_bytes:
            most = f"a record of at most {self._max_record_bytes:,} bytes, the sink's `max_record_bytes`"
            raise BadRecord(most, f"one of {len(line):,}")
        file = self._files.get(type(event))
        if file is None:
            raise StoreError(f"{self.path}: the sink is closed")
        try:
            if not file.is_at(self.path / _FILES[type(event)]):  # it was rotated away
                file = self._files[type(event)] = _File(self.path / _FILES[type(event)])
            written = file.append(line)
            if self._fsync:
                os.fsync(file.descriptor)
        except OSError as error:
            raise StoreError(f"cannot write {self.path / _FILES[type(event)]}: {error.strerror}") from error
        if written < len(line):  # the disk is full
            raise StoreError(
                f"cannot write {self.path / _FILES[type(event)]}: {written} of {len(line)} bytes fit"
            )

    def close(self) -> None:
        """Let go of the files."""
        self._files.clear()


class _File:
    """A file to append to. It is closed when nobody writes to it any more: a number can be reused at once."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._end_line()

    def append(self, line: bytes) -> int:
        """Write a line behind the last one, wherever that was torn; return how many of its bytes fit."""
        self._end_line()
        return os.write(self.descriptor, line)

    def _end_line(self) -> None:
        """End a torn line; one that another process is just writing gets a blank line behind it."""
        size = os.fstat(self.descriptor).st_size
        if size and os.pread(self.descriptor, 1, size - 1) != b"\n":
            os.write(self.descriptor, b"\n")

    def is_at(self, path: Path) -> bool:
        """Whether a path leads to this file."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(path))
        except FileNotFoundError:
            return False

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)
