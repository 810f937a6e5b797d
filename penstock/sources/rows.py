"""Chunks of what is in Python objects already: no bytes, no format, and a position that only counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import orjson

from penstock._native.features import encode_rows
from penstock.codecs.fields import Fields, sifted
from penstock.codecs.values import labels_at_once, path_of, read_id, read_time, read_weight
from penstock.errors import BadRecord, DataError
from penstock.events import Batch, Row
from penstock.sources.base import Chunk, Position

__all__ = ["chunk_of", "record_of"]


def chunk_of(
    fields: Fields,
    rows: Sequence[Row],
    labels: Sequence[Any] | None,
    *,
    weights: Sequence[Any] | None = None,
    times: Sequence[Any] | None = None,
    ids: Sequence[Any] | None = None,
    first: int,
    name: str,
) -> Chunk:
    """Return the chunk of some rows, its position behind them.

    Parameters
    ----------
    fields : Fields
        How to read labels and weights, and what they are called in messages.
    rows : sequence of dicts, length n
    labels, weights, times, ids : length n, optional
        Python or numpy scalars, as a record would have them.
    first : int
        Number of the first row in the source, from 0.
    name : str
        Of the source, in messages.
    """
    n = len(rows)
    bad: dict[int, BadRecord] = {}
    given = [None] * n if labels is None else labels
    at_once = labels_at_once(fields.task, given) if fields.classes is None else None
    columns: list[Any] = [
        rows,
        _read(given, fields.label_reader(), bad) if at_once is None else at_once,
        _read(weights, partial(read_weight, text=False, path=path_of(fields.weight or "weight")), bad),
        _read(times, partial(read_time, text=False, path=path_of(fields.time or "time")), bad),
        _read(ids, partial(read_id, path=path_of(fields.id or "id")), bad),
    ]
    kept: Sequence[int] = range(n)
    if bad:
        kept = [i for i in kept if i not in bad]
        columns = [None if column is None else [column[i] for i in kept] for column in columns]

    def raw(i: int) -> bytes:
        record = {"features": rows[i], fields.label: None if labels is None else labels[i]}
        return orjson.dumps(record, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)

    good, found, importances, moments, names = columns
    features, unusable = encode_rows(good)
    batch = Batch(
        features=features,
        labels=np.array(found, dtype=object if fields.task.kind == "multiclass" else np.float64),
        weights=np.ones(len(kept)) if importances is None else np.array(importances, dtype=np.float64),
        times=np.full(len(kept), math.nan) if moments is None else np.array(moments, dtype=np.float64),
        rows=good,
        ids=names,
    )
    batch, rejected = sifted(
        batch, kept, bad.items(), unusable, where=lambda i: f"{name}:{first + i + 1}", raw=raw
    )
    return Chunk(batch=batch, rejected=rejected, position={"record": first + n})


def record_of(position: Position | None) -> int:
    """Return how many records lie before a position of `chunk_of`.

    Raises
    ------
    DataError
        If it is not one.
    """
    record = 0 if position is None else position.get("record")
    if type(record) is not int or record < 0:
        raise DataError(f"{position!r} is no position of this source: expected {{'record': a number}}")
    return record


def _read(
    column: Sequence[Any] | None, read: Callable[[Any], Any], bad: dict[int, BadRecord]
) -> list[Any] | None:
    """Read every value; where one cannot be read, say why in `bad`, unless the row is bad already."""
    if column is None:
        return None
    values = []
    for i, value in enumerate(_plain(column)):
        try:
            values.append(read(value))
        except BadRecord as error:
            bad.setdefault(i, error)
            values.append(None)
    return values


def _plain(column: Sequence[Any]) -> Sequence[Any]:
    """Return numpy's scalars as the Python values they stand for."""
    if not any(hasattr(kind, "item") for kind in set(map(type, column))):
        return column
    return [value.item() if hasattr(value, "item") else value for value in column]
