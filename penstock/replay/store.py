"""Where events lie that a buffer keeps: what is numbers in native memory, rows as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock._native.kept import Kept, costs_of
from penstock.errors import BadRecord
from penstock.events import Batch, Features, NoRows, Row

__all__ = ["Store", "as_json", "check_columns", "costs_of_events"]

_V = TypeVar("_V")


class Store:
    """Events in order of arrival; shares memory with no batch.

    An event is held as a checkpoint would give it back, so that a restart changes nothing: its row is JSON
    (a NaN has become null). What one event has not got, be it row, line or id, is kept of none.
    """

    def __init__(self) -> None:
        self._kept = Kept()
        self._rows: list[bytes] | None = []
        self._lines: list[str] | None = []
        self._ids: list[str] | None = []

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labels, in order of arrival."""
        return self._kept.labels()

    def costs(self) -> NDArray[np.int64]:
        """Bytes that each event takes."""
        return _with_rows(self._kept.costs(), self._rows)

    def positions(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the events with these numbers lie.

        Raises
        ------
        ValueError
            If one of them is not here.
        """
        return self._kept.find(arrivals)

    def append(
        self, batch: Batch, rows: list[bytes] | None, places: NDArray[np.int64], arrivals: NDArray[np.int64]
    ) -> None:
        """Add the events of `batch` at `places`, whose numbers among all that were offered are `arrivals`.

        `rows` are those of the whole batch, as JSON.
        """
        features = batch.features
        self._kept.append(
            np.ascontiguousarray(features.indptr, np.int64),
            np.ascontiguousarray(features.indices, np.uint32),
            np.ascontiguousarray(features.values, np.float64),
            np.ascontiguousarray(features.namespaces, np.uint32),
            np.ascontiguousarray(batch.labels, np.float64),
            np.ascontiguousarray(batch.weights, np.float64),
            np.ascontiguousarray(batch.times, np.float64),
            places,
            arrivals,
        )
        if len(places):
            self._rows = _extended(self._rows, rows, places)
            self._lines = _extended(self._lines, batch.lines, places)
            self._ids = _extended(self._ids, batch.ids, places)

    def take(self, positions: NDArray[np.int64]) -> Batch:
        """Events at `positions`, copied, in that order."""
        indptr, indices, values, namespaces, labels, weights, times = self._kept.take(positions)
        rows = _taken(self._rows, positions)
        return Batch(
            features=Features(indptr, indices, values, namespaces),
            labels=labels,
            weights=weights,
            times=times,
            rows=NoRows(len(positions)) if rows is None else orjson.loads(b"[" + b",".join(rows) + b"]"),
            lines=_taken(self._lines, positions),
            ids=_taken(self._ids, positions),
        )

    def keep(self, positions: NDArray[np.int64]) -> None:
        """Drop all events but those at `positions`, which ascend: they move together, in place."""
        self._kept.keep(positions)
        self._rows = _taken(self._rows, positions)
        self._lines = _taken(self._lines, positions)
        self._ids = _taken(self._ids, positions)


def _taken(column: Sequence[_V] | None, places: NDArray[np.int64]) -> list[_V] | None:
    return None if column is None else [column[i] for i in places.tolist()]


def _extended(
    column: list[Any] | None, values: Sequence[Any] | None, places: NDArray[np.int64]
) -> list[Any] | None:
    if column is None or values is None:
        return None
    column += _taken(values, places) or ()
    return column


def costs_of_events(batch: Batch, rows: list[bytes] | None) -> NDArray[np.int64]:
    """Bytes that each event of `batch` takes, with these rows."""
    return _with_rows(costs_of(np.ascontiguousarray(batch.features.indptr, np.int64)), rows)


def _with_rows(costs: NDArray[np.int64], rows: list[bytes] | None) -> NDArray[np.int64]:
    return costs if rows is None else costs + np.fromiter(map(len, rows), np.int64, len(rows))


def as_json(rows: Sequence[Row]) -> list[bytes] | None:
    """Rows as JSON; None if there are none to be kept.

    Raises
    ------
    BadRecord
        Names the first row that cannot be expressed as JSON.
    """
    if isinstance(rows, NoRows):
        return None
    dumped = []
    for position, row in enumerate(rows):
        try:
            dumped.append(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))
        except TypeError as reason:
            raise BadRecord(f"what JSON can hold ({reason})", row, path=f"rows[{position}]") from reason
    return dumped


def check_columns(batch: Batch) -> None:
    """Raise ValueError if columns do not fit one another."""
    n, nnz, ends = len(batch.rows), len(batch.features.indices), batch.features.indptr
    lengths = {
        len(column) for column in (batch.labels, batch.weights, batch.times, batch.lines or batch.rows)
    }
    if lengths | {len(batch.ids or batch.rows), len(ends) - 1} != {n}:
        raise ValueError("its columns have different lengths")
    if {len(batch.features.values), len(batch.features.namespaces), int(ends[-1])} != {nnz}:
        raise ValueError("its features have different lengths")
    if ends[0] != 0 or (np.diff(ends) < 0).any():
        raise ValueError("its features are not in order")
