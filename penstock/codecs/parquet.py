"""Parquet files: typed columns, read a few thousand rows at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock._native.columns import LAYOUTS, encode_columns
from penstock.codecs.base import Decoded, Where
from penstock.codecs.declined import with_declined
from penstock.codecs.fields import SKIP, Fields
from penstock.codecs.lazy import Lazy
from penstock.codecs.values import Label, read_id, read_time, read_weight
from penstock.errors import BadRecord, DataError
from penstock.events import Batch, Row

__all__ = ["Parquet"]

_BATCH_ROWS: Final = 4096  # read at once, however many are asked for: damage then shows at the same row
_MAX_THRIFT: Final = 1 << 24  # bytes or items of one thing in a file's metadata; no real file comes near
_MAX_SHOWN: Final = 12  # columns in a message
_TEXTS: Final = frozenset({"string", "large_string"})
_KEYS: Final = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"})
_PLAIN: Final = frozenset({"double", "float", *_KEYS})
_ERRORS: Final = (pa.ArrowException, OSError)


class _Roles(NamedTuple):
    """Of every row; what could not be read has a stand-in."""

    labels: NDArray[Any]
    weights: NDArray[np.float64]
    times: NDArray[np.float64]
    ids: list[str] | None


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
            file = _open(path)
            self._check(file.schema_arrow, path)
            words = self._words(file)
            return _open(path, read_dictionary=words, metadata=file.metadata) if words else file
        except _ERRORS as error:
            raise DataError(f"{path}: not a Parquet file: {_first_line(error)}") from None

    def _words(self, file: Any) -> list[str]:
        """Return the columns of text that are dictionary-encoded, and can be read so: far more quickly."""
        if file.num_row_groups == 0 or self._fields.features is not None:
            return []
        group = file.metadata.row_group(0)
        encoded = {
            column.path_in_schema
            for column in (group.column(i) for i in range(group.num_columns))
            if column.has_dictionary_page
        }
        wanted = set(self._columns(file.schema_arrow.names))
        return [f.name for f in file.schema_arrow if str(f.type) in _TEXTS and f.name in encoded & wanted]

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
                    # Arrow's threads take longer to wake up than a few thousand values of a column to decode.
                    for batch in file.iter_batches(
                        _BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                    ):
                        if first + batch.num_rows > start:
                            yield batch.slice(max(start - first, 0))
                        first += batch.num_rows
                first = behind
        except _ERRORS as error:
            raise DataError(f"damaged: {_first_line(error)}") from None

    is_native = True  # most work needs no interpreter's lock

    def decode(self, batch: Any, where: Where) -> Decoded:
        """Decode the rows of a record batch.

        Columns of numbers and text are hashed straight from Arrow's buffers. What a kernel cannot use goes
        the longer way by dicts, which says what is wrong with it. Rows are made if somebody reads them.
        """
        columns = self._native_columns(batch)
        if columns is None:
            return self._decode(batch, where)
        names, buffers = columns
        try:
            roles, bad = self._read_roles(batch)
        except UnicodeDecodeError:
            return self._decode(batch, where)
        features, kept, declined = encode_columns(names, buffers, batch.num_rows)

        def make_rows(numbers: Sequence[int]) -> list[Row]:
            return self._fields.rows(self._records(batch.take(pa.array(numbers, pa.int64()))), feedback=False)

        rows = slice(None) if len(kept) == batch.num_rows else kept  # a slice copies nothing
        whole = Batch(
            features=features,
            labels=roles.labels[rows],
            weights=roles.weights[rows],
            times=roles.times[rows],
            rows=Lazy(len(kept), lambda numbers: make_rows(kept[list(numbers)].tolist())),
            ids=None if roles.ids is None else [roles.ids[i] for i in kept.tolist()],
        )
        if bad:
            declined = np.union1d(declined, np.array(sorted(bad), np.int64))
        if len(declined) == 0:
            return whole, ()
        slow = self._decode(batch.take(pa.array(declined)), lambda i: where(int(declined[i])))
        return with_declined(whole, kept, slow, declined, make_rows)

    def _native_columns(self, batch: Any) -> tuple[list[str], list[tuple[str, list[Any], int, Any]]] | None:
        """Return names and buffers of the columns that are features; None if one is not for the kernel."""
        fields = self._fields
        if fields.features is not None:
            return None
        left_out = {*fields.roles().values(), *fields.ignore}
        names, columns = [], []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in left_out:
                continue
            words = None
            kind = column.type
            if pa.types.is_dictionary(kind):
                if str(kind.value_type) not in _TEXTS or str(kind.index_type) not in _KEYS:
                    return None
                dictionary = column.dictionary
                words = str(kind.value_type), dictionary.buffers(), dictionary.offset, len(dictionary)
                column, kind = column.indices, kind.value_type
            if str(kind) not in LAYOUTS or not _is_read_as(str(kind), fields.types.get(name)):
                return None
            names.append(name)
            columns.append((str(column.type), column.buffers(), column.offset, words))
        return names, columns

    def _read_roles(self, batch: Any) -> tuple[_Roles, set[int]]:
        """Return labels, weights, times and ids of all rows, and which rows lack one of them."""
        fields, n = self._fields, batch.num_rows
        bad: set[int] = set()

        def read(name: str, read_one: Callable[[Any], Any], otherwise: Any) -> list[Any]:
            column = batch.column(name)
            results = []
            for i, value in enumerate(_seconds(column) if name == fields.time else _values(column)):
                try:
                    results.append(read_one(value))
                except BadRecord:
                    bad.add(i)
                    results.append(otherwise)
            return results

        is_multiclass = fields.task.kind == "multiclass"
        labels = _plain_labels(batch, fields)
        if labels is None:
            no_label: Label = "" if is_multiclass else math.nan
            values = (
                read(fields.label, fields.label_reader(), no_label)
                if fields.label in batch.schema.names
                else [no_label] * n
            )
            labels = np.array(values, dtype=object if is_multiclass else np.float64)
        roles = _Roles(labels, np.ones(n), np.full(n, math.nan), None)
        if fields.weight is not None:
            read_one = partial(_needed, partial(read_weight, text=False, path="$"))
            roles = roles._replace(weights=np.array(read(fields.weight, read_one, 1.0), dtype=np.float64))
        if fields.time is not None:
            read_one = partial(_needed, partial(read_time, text=False, path="$"))
            roles = roles._replace(times=np.array(read(fields.time, read_one, math.nan), dtype=np.float64))
        if fields.id is not None:
            roles = roles._replace(ids=read(fields.id, partial(_needed, partial(read_id, path="$")), ""))
        return roles, bad

    def _decode(self, batch: Any, where: Where) -> Decoded:
        """Decode by way of dicts."""
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
        try:
            columns = [
                _seconds(column) if name == self._fields.time else _values(column)
                for name, column in zip(names, batch.columns, strict=True)
            ]
        except pa.ArrowException as error:  # a word's number that its dictionary does not have
            raise DataError(f"damaged: {_first_line(error)}") from None
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
                option = fields.option(role)
                raise DataError(f"{path}: no column {name!r} (option {option}); there are {shown}{behind}")
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


def _open(path: str, **options: Any) -> Any:
    return pq.ParquetFile(
        path,
        pre_buffer=False,
        page_checksum_verification=True,
        thrift_string_size_limit=_MAX_THRIFT,
        thrift_container_size_limit=_MAX_THRIFT,
        **options,
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


def _is_read_as(kind: str, told: str | None) -> bool:
    """Whether a column of this type is read as the options say without being converted."""
    is_text = kind in _TEXTS
    return told is None or is_text == (told == "category")


def _needed(read: Callable[[Any], Any], value: Any) -> Any:
    if value is None:
        raise BadRecord("a value", None)
    return read(value)


def _plain_labels(batch: Any, fields: Fields) -> NDArray[np.float64] | None:
    """Return the labels of a binary task if they are nothing but the numbers 0 and 1."""
    if fields.task.kind != "binary" or fields.classes is not None or fields.label not in batch.schema.names:
        return None
    column = batch.column(fields.label)
    if column.null_count or str(column.type) not in _PLAIN:
        return None
    values = column.to_numpy(zero_copy_only=False)
    if not ((values == 0.0) | (values == 1.0)).all():
        return None
    labels: NDArray[np.float64] = values.astype(np.float64)
    return labels


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
