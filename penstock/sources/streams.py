"""The bytes of a file, decompressed, from any offset on; the file may still be growing."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

import zstandard

from penstock.errors import DataError
from penstock.sources.heads import HEAD_BYTES, has_head, head_of

__all__ = ["ByteStream"]

_READ_BYTES: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = (
    b"\x28\xb5\x2f\xfd",
    *(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16)),
)  # and skippable
_MAGIC_BYTES: Final = 4
_ZSTD_PIECE: Final = 512  # bytes of zstd given at once: they may be 16 MiB of output, and it is not limited
_ZSTD_WINDOW: Final = 1 << 27  # as the zstd command allows; also what a frame can make us allocate


class _Decoder(Protocol):
    """Decompresses a stream that arrives in pieces."""

    @property
    def inside(self) -> bool:
        """Whether the stream must go on: what came so far ends inside a frame."""
        ...

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` adds, in pieces of limited size."""
        ...


class _Plain:
    inside = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        yield data


class _Gzip:
    """Members one behind the other, as `gzip` and `cat` write them; zeros may fill the end."""

    def __init__(self) -> None:
        self._member: Any = None
        self._is_first = True

    @property
    def inside(self) -> bool:
        return self._member is not None

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                if not self._is_first:
                    data = data.lstrip(b"\0")
                    if not data:
                        return
                self._member = zlib.decompressobj(wbits=31)
                self._is_first = False
            is_full = True
            while is_full:  # there may be more to come, even if all of `data` was taken
                try:
                    piece = self._member.decompress(data, _READ_BYTES)
                except zlib.error as error:
                    raise DataError(f"damaged gzip data ({error})") from None
                data = self._member.unconsumed_tail
                is_full = len(piece) == _READ_BYTES
                if piece:
                    yield piece
            if self._member.eof:
                data = self._member.unused_data
                self._member = None


class _Zstd:
    """Frames one behind the other."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame: Any = None

    @property
    def inside(self) -> bool:
        return self._frame is not None

    def decode(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_PIECE):
            piece = data[at : at + _ZSTD_PIECE]
            while piece:
                if self._frame is None:
                    self._frame = self._decompressor.decompressobj()
                try:
                    output = self._frame.decompress(piece)
                except zstandard.ZstdError as error:
                    raise DataError(f"damaged zstd data ({error})") from None
                piece = b""
                if self._frame.eof:
                    piece = self._frame.unused_data
                    self._frame = None
                if output:
                    yield output


class ByteStream:
    """The content of one file, decompressed as its first bytes say, whatever it is called.

    Parameters
    ----------
    path : str
    offset : int
        Where to begin, in the decompressed content.
    head : str
        What `head` was when this offset was reached; empty where that is not known.

    Attributes
    ----------
    last_byte : bytes
        The one before `offset`; empty at the beginning.

    Raises
    ------
    DataError
        If the file cannot be opened, ends before `offset`, or begins otherwise than `head` says. Messages do
        not name the file.
    """

    def __init__(self, path: str, offset: int = 0, head: str = "") -> None:
        try:
            self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115  (closed by __exit__)
        except OSError as error:
            raise DataError(f"cannot be opened: {error.strerror}") from None
        self._path = path
        self._read = 0  # bytes of the file
        self._beginning = b""  # the first of them
        self._magic = b""
        self._decoder: _Decoder | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._rest = b""  # decompressed already, on the way to `offset`
        self.last_byte = b""
        try:
            self._skip(offset)
            self._check_head(head)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> bytes:
        """Return the next piece; nothing if the file has no more by now.

        Raises
        ------
        DataError
            If the compressed data is damaged; everything before the damage has been returned.
        """
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        while True:
            for piece in self._pieces:
                return piece
            data = self._read_file()
            if not data:
                return b""
            if self._decoder is None:
                self._magic += data
                if len(self._magic) < _MAGIC_BYTES and self._may_be_compressed():
                    continue
                data, self._magic = self._magic, b""
                self._decoder = _decoder(data)
            self._pieces = self._decoder.decode(data)

    def finish(self) -> bytes:
        """Return what was held back, for the file will not grow.

        Raises
        ------
        DataError
            If it ends inside compressed data.
        """
        if self._decoder is not None and self._decoder.inside:
            raise DataError("truncated: the file ends inside its compressed data")
        rest, self._magic = self._magic, b""
        if rest.startswith(_GZIP):
            raise DataError("truncated: the file ends inside its compressed data")
        return rest

    @property
    def head(self) -> str:
        """How the file begins, as `penstock.sources.heads.head_of` says it."""
        return head_of(self._beginning)

    def check_unchanged(self) -> None:
        """Check that the path still leads to this file, and that it has only grown.

        Raises
        ------
        DataError
            If not: what was or will be written elsewhere would be missed.
        """
        try:
            is_here = self.is_at(self._path)
        except OSError as error:
            raise DataError(f"has gone while it was followed: {error.strerror}") from None
        if not is_here:
            raise DataError("was replaced by another file while it was followed")
        self.check_content()

    def check_content(self) -> None:
        """Check that what was read of this file, wherever it lies by now, is still there.

        Raises
        ------
        DataError
            If it has shrunk, or begins otherwise than it did.
        """
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        if size < self._read:
            raise DataError(f"was truncated from {self._read} to {size} bytes while it was followed")
        if os.pread(descriptor, len(self._beginning), 0) != self._beginning:
            raise DataError("was truncated and written anew while it was followed")

    def is_at(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path leads to this file.

        Raises
        ------
        OSError
            If it leads nowhere.
        """
        return os.path.samestat(os.fstat(self._file.fileno()), os.stat(path))

    @property
    def modified_ns(self) -> int:
        """When it was last written to."""
        return os.fstat(self._file.fileno()).st_mtime_ns

    def _check_head(self, head: str) -> None:
        try:
            is_same = has_head(self._file.fileno(), head)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from None
        if not is_same:
            raise DataError("is not the file that the position was taken from: it begins otherwise")

    def _read_file(self) -> bytes:
        try:
            data = self._file.read(_READ_BYTES) or b""
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from None
        if self._read == len(self._beginning):
            self._beginning += data[: HEAD_BYTES - self._read]
        self._read += len(data)
        return data

    def _may_be_compressed(self) -> bool:
        return any(magic.startswith(self._magic) for magic in (_GZIP, *_ZSTD))

    def _skip(self, offset: int) -> None:
        if offset == 0:
            return
        first = self.read()
        if isinstance(self._decoder, _Plain) and offset > len(first):
            size = os.fstat(self._file.fileno()).st_size
            if size < offset:
                raise DataError(f"has {size} bytes, and the position is behind byte {offset}")
            self._read = self._file.seek(offset - 1)
            self._pieces = iter(())
            first, offset = self.read(), 1
        passed = 0
        piece = first
        while piece and passed + len(piece) < offset:
            passed += len(piece)
            piece = self.read()
        if not piece:
            piece = self.finish()
            if passed + len(piece) < offset:
                raise DataError(
                    f"has {passed + len(piece)} bytes of content, and the position is behind byte {offset}"
                )
        self.last_byte = piece[offset - passed - 1 : offset - passed]
        self._rest = piece[offset - passed :]


def _decoder(data: bytes) -> _Decoder:
    if data.startswith(_GZIP):
        return _Gzip()
    if data.startswith(_ZSTD):
        return _Zstd()
    return _Plain()
