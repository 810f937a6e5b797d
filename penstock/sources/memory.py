"""Events in memory: for tests and notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from penstock.codecs.fields import Fields
from penstock.errors import ConfigError, DataError
from penstock.events import Row, Task
from penstock.sources.base import Chunk, Position
from penstock.sources.rows import chunk_of, record_of

__all__ = ["MemorySource"]


class MemorySource:
    """Gives rows that are in memory already.

    Parameters
    ----------
    task : Task
    rows : sequence of dicts, length n
    labels : length n, optional
        As a record would have them: booleans, numbers, names of classes. Events have none where not given.
    weights : length n, optional
        1.0 where not given.
    times : length n, optional
        Seconds, ISO 8601 strings or datetimes.
    ids : length n, optional
    classes : pair of class names, optional
        Of a binary task: negative, positive.

    Raises
    ------
    ConfigError
        If the columns are not of one length.

    Examples
    --------
    >>> source = MemorySource(Task("multiclass"), rows=[{"size": 3}, {"size": 9}], labels=["cat", "cow"])
    >>> [chunk.batch.labels.tolist() for chunk in source.chunks(None, size=1)]
    [['cat'], ['cow']]
    """

    def __init__(
        self,
        task: Task,
        rows: Sequence[Row],
        labels: Sequence[Any] | None = None,
        *,
        weights: Sequence[float] | None = None,
        times: Sequence[Any] | None = None,
        ids: Sequence[str] | None = None,
        classes: Sequence[str | int | bool] | None = None,
    ) -> None:
        for name, column in {"labels": labels, "weights": weights, "times": times, "ids": ids}.items():
            if column is not None and len(column) != len(rows):
                raise ConfigError(f"{name}: expected {len(rows)}, one for each row, got {len(column)}")
        self._fields = Fields(task, classes=classes, require_label=labels is not None)
        self._rows = rows
        self._columns = (labels, weights, times, ids)

    def chunks(self, position: Position | None, size: int) -> Iterator[Chunk]:
        """Read from `position`; see `penstock.sources.base.Source`."""
        at = record_of(position)
        if at > len(self._rows):
            raise DataError(f"memory: has {len(self._rows)} rows, the position is behind row {at}")
        for start in range(at, len(self._rows), size):
            here = slice(start, start + size)
            labels, weights, times, ids = (None if one is None else one[here] for one in self._columns)
            yield chunk_of(
                self._fields,
                self._rows[here],
                labels,
                weights=weights,
                times=times,
                ids=ids,
                first=start,
                name="memory",
            )
