"""JSON lines: one object a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from penstock.codecs.base import Decoded, Where, utf8_error
from penstock.codecs.declined import with_dates, with_declined
from penstock.codecs.fields import SKIP, Fields
from penstock.codecs.lazy import Lazy
from penstock.codecs.spans import LineSpans, Spans
from penstock.errors import BadRecord
from penstock.events import Batch, Row

__all__ = ["JSON"]


class JSON:
    """Decodes JSON objects, as orjson does: of a name that occurs twice, the last value counts.

    A kernel hashes the records straight from their bytes; what it declines, because it is unusual or wrong,
    goes the longer way by dicts, which says what is wrong with it. Rows are made if somebody reads them.

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
        self._reader = fields.reader()

    @property
    def is_native(self) -> bool:
        """Whether a kernel does most of the work, without the interpreter's lock."""
        return self._reader is not None

    def with_header(self, record: bytes, where: str) -> JSON:
        """JSON has no header."""
        del record, where
        return self

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> LineSpans:
        """Cut at line ends."""
        return LineSpans(limit, offset, number)

    def decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode one JSON object a record."""
        read = None
        if self._reader is not None:
            read = self._reader.read(records.parts if isinstance(records, Spans) else list(records))
        if read is None:
            return self._decode(records, where)
        features, labels, weights, times, ids, dates, kept, declined = read
        if dates:
            declined = with_dates(times, dates, kept, declined, text=False)

        def make_rows(numbers: Sequence[int]) -> list[Row]:
            return self._fields.rows([orjson.loads(records[i]) for i in numbers], feedback=True)

        rows = Lazy(len(kept), make_rows)
        batch = Batch(features=features, labels=labels, weights=weights, times=times, rows=rows, ids=ids)
        if len(declined) == 0:
            return batch, ()
        numbers = declined.tolist()
        slow = self._decode([records[i] for i in numbers], lambda i: where(numbers[i]))
        return with_declined(batch, kept, slow, declined, make_rows)

    def _decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode by way of dicts."""
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
