"""JSON lines: one object a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from penstock.codecs.base import Decoded, Where, utf8_error
from penstock.codecs.fields import SKIP, Fields
from penstock.codecs.framing import Lines
from penstock.errors import BadRecord

__all__ = ["JSON"]


class JSON:
    """Decodes JSON objects, as orjson does: of a name that occurs twice, the last value counts.

    Parameters
    ----------
    fields : Fields

    Examples
    --------
    >>> from penstock.codecs.fields import Fields
    >>> from penstock.events import Task
    >>> codec = JSON(Fields(Task("binary"), label="bought"))
    >>> batch, rejected = codec.decode([b'{"age": 31, "bought": true}', b'{"age": 5}'], "clicks:{}".format)
    >>> batch.rows, batch.labels
    ([{'age': 31}], array([1.]))
    >>> rejected[0].reason
    'expected a label, got None - at `$.bought`, clicks:1'
    """

    needs_header = False

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def with_header(self, record: bytes, where: str) -> JSON:
        """JSON has no header."""
        del record, where
        return self

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> Lines:
        """Cut at line ends."""
        return Lines(limit, offset, number)

    def decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode one JSON object a record."""
        decoded: list[Any] = []
        bad: list[tuple[int, BadRecord]] = []
        for data in records:
            try:
                decoded.append(orjson.loads(data))
            except orjson.JSONDecodeError as error:
                expected = utf8_error(data) or f"JSON ({error.msg}, column {error.colno})"
                bad.append((len(decoded), BadRecord(expected, data)))
                decoded.append(SKIP)
        return self._fields.decode(decoded, bad, where=where, raw=records.__getitem__, feedback=True)
