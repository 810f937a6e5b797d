"""What a codec is: raw records become a batch, and what cannot be used is rejected with a reason.

Reading has two halves. A `Framer` cuts a stream of bytes into records; a `Codec` decodes records. A source
whose transport already delivers records (a Kafka topic) needs the second half only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from penstock.events import Batch
from penstock.sources.base import Rejected

__all__ = ["KEPT_BYTES", "Codec", "Decoded", "Framer", "Frames", "Oversize", "Where", "utf8_error"]

KEPT_BYTES: Final = 1024  # of a record that is too long: enough to recognise it in the dead letters

Where: TypeAlias = "Callable[[int], str]"
"""From a record's number within one call to its position, ``clicks.jsonl:17``; asked for bad ones only."""

Decoded: TypeAlias = "tuple[Batch, tuple[Rejected, ...]]"


class Oversize(NamedTuple):
    """A record that was too long to be held."""

    number: int  # as in `Frames.numbers`
    head: bytes  # its first `KEPT_BYTES`
    length: int

    def rejected(self, limit: int, where: str, after: int) -> Rejected:
        """Say so in a dead letter that comes after so many events."""
        reason = f"expected a record of at most {limit} bytes, got {self.length} bytes - at `$`, {where}"
        return Rejected(reason=reason, where=where, data=self.head, after=after)


class Frames(NamedTuple):
    """Records cut from a stream of bytes, in order."""

    records: Sequence[bytes]
    numbers: Sequence[int]  # of each record: the line it begins on, or its count; both from 1
    oversize: Oversize | None = None  # it follows `records`


class Framer(Protocol):
    """Cuts bytes, fed in pieces of any size, into records. Does no I/O, and holds little more than is fed.

    Attributes
    ----------
    offset : int
        In the stream, behind the last record taken: where a new framer can go on.
    number : int
        Lines (or records) that lie before `offset`.
    """

    offset: int
    number: int

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream.

        Raises
        ------
        DataError
            If the stream is damaged so that no later record can be found. What was found before it can
            still be taken.
        """
        ...

    def end(self) -> None:
        """Note that there is no more: what is left is the last record.

        Raises
        ------
        DataError
            If what is left cannot be a whole record.
        """
        ...

    def take(self, n: int) -> Frames:
        """Return at most `n` records; none if more has to be fed first. An oversize one ends the frames."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Decodes one format. Built with ``Class(fields, **options)``; never changes."""

    @property
    def needs_header(self) -> bool:
        """Whether nothing can be decoded before the first record of the file was given to `with_header`."""
        ...

    @property
    def is_native(self) -> bool:
        """Whether `decode` does most of its work without the interpreter's lock, so that a thread pays."""
        ...

    def with_header(self, record: bytes, where: str) -> Codec:
        """Return the codec for the records that follow `record`.

        Raises
        ------
        DataError
            If it is no header, or lacks a column that the options name.
        """
        ...

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> Framer:
        """Return what cuts a stream, from `offset` on, into records of at most `limit` bytes."""
        ...

    def decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode every record on its own: a bad one is rejected and leaves no trace in the batch.

        Parameters
        ----------
        records : sequence of bytes, length n
        where : callable
            Position of record i, for the dead letters.

        Returns
        -------
        batch : Batch
            The good records, in order.
        rejected : tuple of Rejected
            The bad ones, in order; together they are n.
        """
        ...


def utf8_error(data: bytes) -> str | None:
    r"""Say what would have been expected where `data` stops being UTF-8; None if it is UTF-8.

    Examples
    --------
    >>> utf8_error(b"caf\xe9")
    'UTF-8 (byte 3 is not)'
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"UTF-8 (byte {error.start} is not)"
    return None
