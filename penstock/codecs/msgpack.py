"""MessagePack: a stream of maps, or one map a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgpack

from penstock.codecs.base import Decoded, Where
from penstock.codecs.fields import SKIP, Fields
from penstock.codecs.framing import Packed
from penstock.errors import BadRecord

__all__ = ["MessagePack", "unpacked"]

_TIMESTAMPS_AS_DATETIME: Final = 3


class MessagePack:
    """Decodes maps whose keys are strings; a timestamp may be the event's time.

    A length that a record states is believed only as far as the record has bytes for it.

    Parameters
    ----------
    fields : Fields
    """

    needs_header = False
    is_native = False

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def with_header(self, record: bytes, where: str) -> MessagePack:
        """MessagePack has no header."""
        del record, where
        return self

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> Packed:
        """Cut behind every object."""
        return Packed(limit, offset, number)

    def decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode one map a record."""
        decoded: list[Any] = []
        bad: list[tuple[int, BadRecord]] = []
        for data in records:
            try:
                decoded.append(unpacked(data))
            except BadRecord as error:
                bad.append((len(decoded), error))
                decoded.append(SKIP)
        return self._fields.decode(decoded, bad, where=where, raw=records.__getitem__, feedback=True)


def unpacked(data: bytes) -> Any:
    """Return what one object of MessagePack says.

    Raises
    ------
    BadRecord
        If it is none, or there is more.
    """
    try:
        # Given the whole record at once, it caps every stated length by the record's own.
        return msgpack.unpackb(data, raw=False, strict_map_key=True, timestamp=_TIMESTAMPS_AS_DATETIME)
    except (ValueError, OverflowError, msgpack.UnpackException) as error:
        raise BadRecord(f"MessagePack ({_reason(error)})", data) from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"a string is not UTF-8 at its byte {error.start}"
    if isinstance(error, msgpack.StackError):
        return "nested too deep"
    if isinstance(error, msgpack.FormatError):
        return "a byte that begins nothing"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
