"""Chunks of what is in Python objects already: no bytes, no format, and a position that only counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson

from penstock._native.features import encode_rows
from penstock.codecs.fields import Events, Fields
from penstock.codecs.values import path_of, read_id, read_time, read_weight
from penstock.errors import BadRecord, DataError
from penstock.events import Row
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
    events = Events(fields.task)
    events.ids = None if ids is None else []
    read_label = fields.label_reader()
    for i, row in enumerate(rows):
        weight, moment = 1.0, math.nan
        try:
            label = read_label(None if labels is None else _plain(labels[i]))
            if weights is not None:
                weight = read_weight(_plain(weights[i]), text=False, path=path_of(fields.weight or "weight"))
            if times is not None:
                moment = read_time(_plain(times[i]), text=False, path=path_of(fields.time or "time"))
            if ids is not None and events.ids is not None:
                events.ids.append(read_id(_plain(ids[i]), path=path_of(fields.id or "id")))
        except BadRecord as error:
            events.bad.append((i, error))
            continue
        events.kept.append(i)
        events.rows.append(row)
        events.labels.append(label)
        events.weights.append(weight)
        events.times.append(moment)

    def raw(i: int) -> bytes:
        record = {"features": rows[i], fields.label: None if labels is None else labels[i]}
        return orjson.dumps(record, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)

    features, unusable = encode_rows(events.rows)
    batch, rejected = events.decoded(
        features, events.rows, unusable, where=lambda i: f"{name}:{first + i + 1}", raw=raw
    )
    return Chunk(batch=batch, rejected=rejected, position={"record": first + len(rows)})


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


def _plain(value: Any) -> Any:
    """Return a numpy scalar as the Python value it stands for."""
    return value.item() if hasattr(value, "item") else value
