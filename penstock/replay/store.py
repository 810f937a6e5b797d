"""Where events lie that a buffer keeps: columns that grow at their end, rows as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock._native.replay import gather, lay_out, locate
from penstock.errors import BadRecord
from penstock.events import Batch, Features, NoRows, Row

__all__ = ["Column", "Store", "as_json", "check_columns", "costs_of"]

_COST_OF_EVENT = 48  # bytes: label, weight, time, arrival, end, and room for a number of the buffer's own
_COST_OF_FEATURE = 16  # bytes: hash, value, namespace

_T = TypeVar("_T", bound=np.generic)
_V = TypeVar("_V")


class Column(Generic[_T]):
    """An array that grows at its end in amortised constant time."""

    def __init__(self, dtype: type[_T], values: NDArray[_T] | None = None) -> None:
        self._data: NDArray[_T] = np.empty(16, dtype)
        self._length = 0
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> NDArray[_T]:
        """What is in it; shares memory with it, until it grows."""
        return self._data[: self._length]

    def extend(self, values: NDArray[_T]) -> None:
        """Add at the end; copies."""
        length = self._length + len(values)
        if length > len(self._data):
            grown = np.empty(max(length, self._length + self._length // 2), self._data.dtype)
            grown[: self._length] = self.values
            self._data = grown
        self._data[self._length : length] = values
        self._length = length

    def shorten(self, length: int) -> None:
        """Keep the first `length` values."""
        self._length = length

    def keep(self, positions: NDArray[np.int64]) -> None:
        """Keep the values at `positions`."""
        self._data[: len(positions)] = self.values[positions]
        self._length = len(positions)


class Store:
    """Events in order of arrival; shares memory with no batch.

    An event is held as a checkpoint would give it back, so that a restart changes nothing: its row is JSON
    (a NaN has become null). What one event has not got, be it row, line or id, is kept of none.
    """

    def __init__(self) -> None:
        self._ends = Column(np.int64)
        self._ends.extend(np.zeros(1, np.int64))
        self._indices = Column(np.uint32)
        self._values = Column(np.float64)
        self._namespaces = Column(np.uint32)
        self._labels = Column(np.float64)
        self._weights = Column(np.float64)
        self._times = Column(np.float64)
        self._arrivals = Column(np.int64)
        self._rows: list[bytes] | None = []
        self._lines: list[str] | None = []
        self._ids: list[str] | None = []

    def __len__(self) -> int:
        return len(self._arrivals.values)

    @property
    def arrivals(self) -> NDArray[np.int64]:
        """Numbers of the events among all that were offered, ascending."""
        return self._arrivals.values

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labels, in the order of `arrivals`."""
        return self._labels.values

    def costs(self) -> NDArray[np.int64]:
        """Bytes that each event takes."""
        return costs_of(self._ends.values, self._rows)

    def positions(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the events with these numbers lie.

        Raises
        ------
        ValueError
            If one of them is not here.
        """
        found = np.empty(len(arrivals), np.int64)
        locate(self.arrivals, arrivals, found)
        return found

    def append(
        self,
        batch: Batch,
        rows: list[bytes] | None,
        arrivals: NDArray[np.int64],
        places: NDArray[np.int64] | None = None,
    ) -> None:
        """Add the events of `batch` at `places` (None: all), whose numbers are `arrivals`.

        `rows` are those of the whole batch, as JSON.
        """
        features, lines, ids = batch.features, batch.lines, batch.ids
        labels, weights, times = batch.labels, batch.weights, batch.times
        if places is not None:
            features = features.take(places)
            labels, weights, times = labels[places], weights[places], times[places]
            rows, lines, ids = _taken(rows, places), _taken(lines, places), _taken(ids, places)
        self._ends.extend(features.indptr[1:] + (self._ends.values[-1] - features.indptr[0]))
        self._indices.extend(features.indices)
        self._values.extend(features.values)
        self._namespaces.extend(features.namespaces)
        self._labels.extend(labels)
        self._weights.extend(weights)
        self._times.extend(times)
        self._arrivals.extend(arrivals)
        if len(arrivals):
            self._rows = _extended(self._rows, rows)
            self._lines = _extended(self._lines, lines)
            self._ids = _extended(self._ids, ids)

    def take(self, positions: NDArray[np.int64]) -> Batch:
        """Events at `positions`, copied, in that order."""
        rows = _taken(self._rows, positions)
        return Batch(
            features=self._features().take(positions),
            labels=self.labels[positions],
            weights=self._weights.values[positions],
            times=self._times.values[positions],
            rows=NoRows(len(positions)) if rows is None else orjson.loads(b"[" + b",".join(rows) + b"]"),
            lines=_taken(self._lines, positions),
            ids=_taken(self._ids, positions),
        )

    def keep(self, positions: NDArray[np.int64]) -> None:
        """Drop all events but those at `positions`, which ascend: they move together, in place."""
        features = self._features()
        ends = np.empty(len(positions) + 1, np.int64)
        n_entries = lay_out(features.indptr, positions, ends)
        entries = features.indices, features.values, features.namespaces
        gather(features.indptr, *entries, positions, ends, *entries)
        self._ends = Column(np.int64, ends)
        for entry in (self._indices, self._values, self._namespaces):
            entry.shorten(n_entries)
        for column in (self._labels, self._weights, self._times, self._arrivals):
            column.keep(positions)
        self._rows = _taken(self._rows, positions)
        self._lines = _taken(self._lines, positions)
        self._ids = _taken(self._ids, positions)

    def _features(self) -> Features:
        """Those of all events; shares memory with the store."""
        return Features(self._ends.values, self._indices.values, self._values.values, self._namespaces.values)


def _taken(column: Sequence[_V] | None, places: NDArray[np.int64]) -> list[_V] | None:
    return None if column is None else [column[i] for i in places.tolist()]


def _extended(column: list[Any] | None, values: Sequence[Any] | None) -> list[Any] | None:
    if column is None or values is None:
        return None
    column.extend(values)
    return column


def costs_of(ends: NDArray[np.int64], rows: list[bytes] | None) -> NDArray[np.int64]:
    """Bytes that events take whose features start and end there, with these rows."""
    costs = (ends[1:] - ends[:-1]) * _COST_OF_FEATURE + _COST_OF_EVENT
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
