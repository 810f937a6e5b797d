"""A file of logged decisions, read from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.codecs.decisions import LogCodec, Records
from penstock.feedback import MAX_RECORD_BYTES
from penstock.sources.base import Rejected
from penstock.sources.records import RecordFile

__all__ = ["read_log"]


def read_log(
    path: str, codec: LogCodec, *, size: int = 1024, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[tuple[Records, tuple[Rejected, ...]]]:
    """Read a log, plain or compressed, in pieces.

    Parameters
    ----------
    path : str
        Plain, gzip or zstd, as the first bytes say.
    codec : LogCodec
        Such as `penstock.codecs.dsjson.DSJSON`.
    size : int
        Records in a piece, at most.
    max_record_bytes : int
        A longer record is rejected.

    Yields
    ------
    records : Records
    rejected : tuple of Rejected
        The bad records among them.

    Raises
    ------
    DataError
        If the file cannot be read, or is damaged; what comes before the damage was read then.
    """
    decodes: Any = codec  # into decisions instead of a batch, which makes no difference to cutting
    with RecordFile(
        path, decodes, offset=0, number=0, max_record_bytes=max_record_bytes, is_over=lambda _: True
    ) as file:
        while (taken := file.take(size)) is not None:
            decoded: Any = taken[1]
            yield decoded
