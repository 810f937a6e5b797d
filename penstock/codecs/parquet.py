"""Parquet files: typed columns, read a few thousand rows at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.codecs.base import Decoded, Where
from penstock.codecs.fields import SKIP, Fields
from penstock.errors import BadRecord, DataError

__all__ = ["Parquet"]

_BATCH_ROWS: Final = 4096  # read at once, however many are asked for: damage then shows at the same row
_MAX_THRIFT: Final = 1 << 24  # bytes or items of one thing in a file's metadata; no real file comes near
_MAX_SHOWN: Final = 12  # columns in a message
_ERRORS: Final = (pa.ArrowException, OSError)


class Parquet:
    """Decodes the rows of Parquet files. A null is a missing value, a struct is a namespace.

    Unlike the other codecs, it reads the file itself: its records are no stretches of bytes.

    Parameters
    ----------
    fields : Fields
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def open(self, path: str) -> Any:
        """Open a file and check that its columns can play their roles.

        Returns
        -------
        pyarrow.parquet.ParquetFile

        Raises
        ------
        DataError
            If it is not Parquet, lacks a column that the options name, or has one that cannot be a feature.
        """
        try:
            Path(path).open("rb").close()
        except OSError as error:
            raise DataError(f"{path}: cannot be opened: {error.strerror}") from None
        try:
            file = pq.ParquetFile(
                path,
                pre_buffer=False,
                page_checksum_verification=True,
                thrift_string_size_limit=_MAX_THRIFT,
                thrift_container_size_limit=_MAX_THRIFT,
            )
            schema = file.schema_arrow
        except _ERRORS as error:
            raise DataError(f"{path}: not a Parquet file: {_first_line(error)}") from None
        self._check(schema, path)
        return file

    def read(self, file: Any, start: int) -> Iterator[Any]:
        """Yield the rows from number `start` on as record batches.

        Raises
        ------
        DataError
            If the file is damaged; every row before the damage has been yielded.
        """
        first = 0
        try:
            for group in range(file.num_row_groups):
                behind = first + file.metadata.row_group(group).num_rows
                if behind > start:
                    columns = self._columns(file.schema_arrow.names)
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
                        if first + batch.num_rows > start:
                            yield batch.slice(max(start - first, 0))
                        first += batch.num_rows
                first = behind
        except _ERRORS as error:
            raise DataError(f"damaged: {_first_line(error)}") from None

    def decode(self, batch: Any, where: Where) -> Decoded:
        """Decode the rows of a record batch."""
        bad: list[tuple[int, BadRecord]] = []
        try:
            records = self._records(batch)
        except UnicodeDecodeError:
            records = []
            for i in range(batch.num_rows):
                try:
                    records += self._records(batch.slice(i, 1))
                except UnicodeDecodeError as error:
                    bad.append((i, BadRecord(f"UTF-8 (byte {error.start} of a string is not)", error.object)))
                    records.append(SKIP)

        def raw(i: int) -> bytes:
            row = batch.slice(i, 1)
            cells = {name: _shown(column) for name, column in zip(row.schema.names, row.columns, strict=True)}
            return orjson.dumps(cells, default=repr)

        return self._fields.decode(records, bad, where=where, raw=raw, feedback=False)

    def _records(self, batch: Any) -> list[Any]:
        names = batch.schema.names
        if not names:
            return [{} for _ in range(batch.num_rows)]
        columns = [
            _seconds(column) if name == self._fields.time else _values(column)
            for name, column in zip(names, batch.columns, strict=True)
        ]
        return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]

    def _columns(self, names: list[str]) -> list[str]:
        """Return the columns that have to be read."""
        fields = self._fields
        roles = set(fields.roles().values())
        if fields.features is not None:
            return [name for name in names if name == fields.features or name in roles]
        return [name for name in names if name not in fields.ignore or name in roles]

    def _check(self, schema: Any, path: str) -> None:
        fields = self._fields
        twice = [name for name, count in Counter(schema.names).items() if count > 1]
        if twice:
            raise DataError(f"{path}: two columns are called {twice[0]!r}")
        roles = fields.roles()
        needed = [*roles.items(), *((("features", fields.features),) if fields.features else ())]
        if fields.features is None:
            needed += [("ignore", name) for name in fields.ignore]
            needed += [(f"types.{name}", name) for name in fields.types]
        for role, name in needed:
            if name not in schema.names and (role != "label" or fields.require_label):
                shown = ", ".join(map(repr, schema.names[:_MAX_SHOWN]))
                more = len(schema.names) - _MAX_SHOWN
                behind = f" and {more} more" if more > 0 else ""
                raise DataError(f"{path}: no column {name!r} (option {role}); there are {shown}{behind}")
        for name in self._columns(schema.names):
            if name in roles.values():
                continue
            unusable = _unusable(schema.field(name).type, name)
            if unusable is not None:
                field, kind = unusable
                raise DataError(
                    f"{path}: column {field!r} has the type {kind}, which cannot be a feature: "
                    f"leave it out with `ignore: [{name}]`"
                )


def _unusable(kind: Any, name: str, depth: int = 0) -> tuple[str, str] | None:
    """Return name and type of what cannot be a feature in a column; None if all of it can."""
    types = pa.types
    if types.is_dictionary(kind):
        return _unusable(kind.value_type, name, depth)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _unusable(kind.value_type, name, depth + 1)
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        found = (_unusable(field.type, f"{name}.{field.name}", depth + 1) for field in fields)
        return next((unusable for unusable in found if unusable is not None), None)
    if types.is_decimal(kind) or types.is_float16(kind):
        return (
            None if depth == 0 else (name, str(kind))
        )  # turned into float64, which only a whole column can be
    simple = (types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_string)
    if any(is_kind(kind) for is_kind in (*simple, types.is_large_string)):
        return None
    return name, str(kind)


def _values(column: Any) -> list[Any]:
    """Return a column as Python values."""
    kind = column.type
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    kind = column.type
    if column.null_count == 0 and (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        column = column.to_numpy(zero_copy_only=False)
        return list(column.tolist())
    return list(column.to_pylist())


def _seconds(column: Any) -> list[Any]:
    """Return a column of times; a timestamp as seconds since the Unix epoch."""
    if not pa.types.is_timestamp(column.type):
        return _values(column)
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    return [None if ticks is None else ticks / per_second for ticks in column.cast(pa.int64()).to_pylist()]


def _shown(column: Any) -> Any:
    """Return a single value for a dead letter."""
    try:
        return _values(column)[0]
    except (UnicodeDecodeError, ValueError):  # ValueError: a timestamp finer than Python's
        return "\N{REPLACEMENT CHARACTER}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
