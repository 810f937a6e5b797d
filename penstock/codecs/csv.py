"""CSV and its relatives: a header, then one record a line, fields separated by one character.

A kernel hashes the records straight from their bytes; what it declines, because it is unusual or wrong, goes
the longer way by strings, which says what is wrong with it. Rows are made if somebody reads them.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from penstock._native.csv import CellReader
from penstock._native.text import encode_cells
from penstock.codecs.base import Decoded, Framer, Where, utf8_error
from penstock.codecs.declined import with_dates, with_declined
from penstock.codecs.fields import Events, Fields
from penstock.codecs.framing import Lines
from penstock.codecs.lazy import Lazy
from penstock.codecs.spans import LineSpans, Spans
from penstock.codecs.values import path_of, read_time, read_weight
from penstock.errors import BadRecord, ConfigError, DataError
from penstock.events import Batch, Row

__all__ = ["CSV"]

_AUTO, _NUMBER, _CATEGORY, _IGNORED = 0, 1, 2, 3  # how the kernel reads a column
_KINDS: Final = {"number": _NUMBER, "category": _CATEGORY}
_USES: Final = ("auto", "number", "category", "ignore")  # the same to the kernel of whole records
_BOM: Final = b"\xef\xbb\xbf"
_MAX_SHOWN: Final = 12  # columns in a message


class CSV:
    """Decodes delimited text as RFC 4180 describes it; every field is a string until it is read.

    A field that spells a number is one, any other is a category; `Fields.types` decides otherwise.

    Parameters
    ----------
    fields : Fields
        `Fields.features` must not be given: a column is a feature, or named in another role.
    delimiter : str
        One ASCII character.
    missing : sequence of str
        Spellings of a missing value.
    multiline : bool
        Whether a quoted field may contain line ends. If so, a quote that is never closed takes the lines
        behind it with it, as far as `limit` of the framer allows.
    columns : sequence of str, optional
        Names of the columns, if no header gives them.

    Raises
    ------
    ConfigError
        If an option cannot be used.

    Examples
    --------
    >>> from penstock.events import Task
    >>> codec = CSV(Fields(Task("binary"), label="bought"), columns=["age", "bought"])
    >>> batch, rejected = codec.decode([b"31,1", b"5"], "clicks:{}".format)
    >>> batch.labels, rejected[0].reason
    (array([1.]), 'expected 2 fields, got 1 - at `$`, clicks:1')
    """

    def __init__(
        self,
        fields: Fields,
        *,
        delimiter: str = ",",
        missing: Sequence[str] = ("",),
        multiline: bool = False,
        columns: Sequence[str] | None = None,
    ) -> None:
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
            raise ConfigError(
                f"delimiter: expected one ASCII character other than a quote, got {delimiter!r}"
            )
        if isinstance(missing, str):
            raise ConfigError(f"missing: expected a list of strings, got {missing!r}")
        if fields.features is not None:
            raise ConfigError("features: a CSV record has no field with a mapping; leave it out")
        self._fields = fields
        self._delimiter = delimiter
        self._missing = frozenset(missing)
        self._multiline = multiline
        self._columns: tuple[str, ...] | None = None
        self._kinds: list[int] = []
        self._reader: CellReader | None = None
        if columns is not None:
            try:
                self._name_columns(columns)
            except DataError as error:
                raise ConfigError(f"columns: {error}") from None

    @property
    def needs_header(self) -> bool:
        """Whether the columns have no names yet."""
        return self._columns is None

    @property
    def is_native(self) -> bool:
        """Whether a kernel does most of the work, without the interpreter's lock.

        It takes a number and the delimiter behind it at one go, so that cannot be a part of a number.
        """
        return self._delimiter == "\t" or (
            self._delimiter.isprintable() and not self._delimiter.isalnum() and self._delimiter not in "+-."
        )

    def with_header(self, record: bytes, where: str) -> CSV:
        """Take the names of the columns from the first line of a file."""
        record = record.removeprefix(_BOM)
        if (expected := utf8_error(record)) is not None:
            raise DataError(f"{where}: the header is not text: expected {expected}")
        try:
            columns = self._parse(record.decode())
            codec = CSV(
                self._fields,
                delimiter=self._delimiter,
                missing=tuple(self._missing),
                multiline=self._multiline,
            )
            codec._name_columns(columns)
        except BadRecord as error:
            raise DataError(f"{where}: the header is not CSV: {error}") from None
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        return codec

    def framer(self, limit: int, offset: int = 0, number: int = 0) -> Framer:
        """Cut at line ends; where fields may contain them, only outside quotes."""
        if self._multiline:
            return Lines(limit, offset, number, _open_quotes(self._delimiter))
        return LineSpans(limit, offset, number)

    def decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode one line of fields a record."""
        read = None
        if self._reader is not None:
            read = self._reader.read(records.parts if isinstance(records, Spans) else list(records))
        if read is None:
            return self._decode(records, where)
        features, labels, weights, times, ids, dates, kept, declined = read
        if dates:
            declined = with_dates(times, dates, kept, declined, text=True)

        def make_rows(numbers: Sequence[int]) -> list[Row]:
            return self._rows([records[i] for i in numbers])

        rows = Lazy(len(kept), make_rows)
        batch = Batch(features=features, labels=labels, weights=weights, times=times, rows=rows, ids=ids)
        if len(declined) == 0:
            return batch, ()
        numbers = declined.tolist()
        slow = self._decode([records[i] for i in numbers], lambda i: where(numbers[i]))
        return with_declined(batch, kept, slow, declined, make_rows)

    def _rows(self, records: Sequence[bytes]) -> list[Row]:
        """Return the features of good records."""
        cells = [self._parse(data.decode()) for data in records]
        _, rows, _ = encode_cells(self._columns or (), self._kinds, cells, self._missing)
        return list(rows)

    def _decode(self, records: Sequence[bytes], where: Where) -> Decoded:
        """Decode by way of strings."""
        events = Events(self._fields.task)
        columns = self._columns or ()
        self._take_apart(self._split(records, events), events)
        features, rows, unusable = encode_cells(columns, self._kinds, events.rows, self._missing)
        return events.decoded(features, rows, unusable, where=where, raw=records.__getitem__)

    def _name_columns(self, columns: Sequence[str]) -> None:
        """Check that the names can be told apart and that everything the options name is there."""
        seen: set[str] = set()
        for name in columns:
            if name in seen:
                raise DataError(f"two columns are called {name!r}")
            seen.add(name)
        fields = self._fields
        named = fields.roles()
        if not fields.require_label and fields.label not in seen:
            del named["label"]
        wanted = [*named.items(), *(("ignore", name) for name in fields.ignore)]
        wanted += [(f"types.{name}", name) for name in fields.types]
        for role, name in wanted:
            if name not in seen:
                shown = ", ".join(map(repr, columns[:_MAX_SHOWN]))
                more = f" and {len(columns) - _MAX_SHOWN} more" if len(columns) > _MAX_SHOWN else ""
                option = fields.option(role)
                raise DataError(f"no column {name!r} (option {option}); there are {shown}{more}")
        not_features = {*named.values(), *fields.ignore}
        self._columns = tuple(columns)
        self._kinds = [
            _IGNORED if name in not_features else _KINDS.get(fields.types.get(name, ""), _AUTO)
            for name in columns
        ]
        if self.is_native:
            role_of = {name: role for role, name in named.items()}
            uses = [role_of.get(name, _USES[kind]) for name, kind in zip(columns, self._kinds, strict=True)]
            self._reader = fields.cell_reader(columns, uses, delimiter=self._delimiter, missing=self._missing)

    def _split(self, records: Sequence[bytes], events: Events) -> list[list[str] | None]:
        """Cut every record into its fields; None for one that was rejected."""
        try:
            cells: list[Any] = list(self._cells_of([data.decode() for data in records]))
        except (UnicodeDecodeError, csv.Error):
            cells = []
        if len(cells) == len(records):
            return cells
        # One record is bad, or opens a quote that swallowed the next: find out which, one by one.
        cells = []
        for i, data in enumerate(records):
            try:
                if (expected := utf8_error(data)) is not None:
                    raise BadRecord(expected, data)  # noqa: TRY301  (told apart from the others just below)
                cells.append(self._parse(data.decode()))
            except BadRecord as error:
                events.bad.append((i, error))
                cells.append(None)
        return cells

    def _cells_of(self, texts: Sequence[str]) -> Any:
        return csv.reader(texts, delimiter=self._delimiter, strict=True)

    def _parse(self, text: str) -> list[str]:
        try:
            (cells,) = self._cells_of([text])
        except csv.Error as error:
            hint = " (if fields contain line ends: `multiline: true`)" if "end of data" in str(error) else ""
            raise BadRecord(f"CSV ({error}){hint}", text) from None
        return list(cells)

    def _take_apart(self, records: Sequence[list[str] | None], events: Events) -> None:
        fields, missing = self._fields, self._missing
        n_columns = len(self._columns or ())
        label_at = self._index(fields.label)
        read_label = fields.label_reader(text=True)
        weight_at, time_at, id_at = map(self._index, (fields.weight, fields.time, fields.id))
        is_plain = weight_at is None and time_at is None and id_at is None
        ids: list[str] | None = [] if fields.id is not None else None
        for i, cells in enumerate(records):
            if cells is None:
                continue
            weight, moment, name = 1.0, math.nan, ""
            try:
                if len(cells) != n_columns:
                    raise BadRecord(f"{n_columns} fields", len(cells))  # noqa: TRY301  (as from the readers)
                value = None if label_at is None else cells[label_at]
                label = read_label(None if value in missing else value)
                if not is_plain:
                    weight, moment, name = self._read_roles(cells, weight_at, time_at, id_at)
            except BadRecord as error:
                events.bad.append((i, error))
                continue
            events.kept.append(i)
            events.rows.append(cells)
            events.labels.append(label)
            events.weights.append(weight)
            events.times.append(moment)
            if ids is not None:
                ids.append(name)
        events.ids = ids

    def _index(self, name: str | None) -> int | None:
        columns = self._columns or ()
        return columns.index(name) if name in columns else None

    def _read_roles(
        self, cells: list[str], weight_at: int | None, time_at: int | None, id_at: int | None
    ) -> tuple[float, float, str]:
        weight, moment, name = 1.0, math.nan, ""
        if weight_at is not None:
            weight = read_weight(self._cell(cells, weight_at), text=True, path=self._path(weight_at))
        if time_at is not None:
            moment = read_time(self._cell(cells, time_at), text=True, path=self._path(time_at))
        if id_at is not None:
            name = self._cell(cells, id_at)
        return weight, moment, name

    def _cell(self, cells: list[str], at: int) -> str:
        """Return a field that must not be missing."""
        if cells[at] in self._missing:
            raise BadRecord("a value", None, path=self._path(at))
        return cells[at]

    def _path(self, at: int) -> str:
        return path_of((self._columns or ())[at])


def _open_quotes(delimiter: str) -> Callable[[bytes, bool], bool]:
    """Return what tells a framer whether a line ends inside a quoted field.

    A quote opens a field only at its beginning, and a doubled one does not close it. The patterns never
    go back, so that a line costs its length, whatever is in it.
    """
    end = re.escape(delimiter.encode())
    inside_quotes = rb'(?:[^"]++|"")*+'
    closed = rb'(?:"%b"[^%b]*+|(?!")[^%b]*+)%b' % (inside_quotes, end, end, end)
    opens = rb'(?:%b)*+"%b\Z' % (closed, inside_quotes)
    stays = rb'%b(?:\Z|"[^%b]*+%b%b)' % (inside_quotes, end, end, opens)
    from_outside, from_inside = re.compile(opens), re.compile(stays)

    def is_open(line: bytes, inside: bool) -> bool:
        if b'"' not in line:
            return inside
        return (from_inside if inside else from_outside).match(line) is not None

    return is_open
