"""Events in columns: the one shape in which feedback travels through the engine.

A `Batch` is ordered and never changed once built. Native learners read `Batch.features`, a hashed CSR
matrix; learners that need Python objects (River, VW) read `Batch.rows` or `Batch.lines`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.errors import BadRecord, PenstockError
from penstock.state import State

__all__ = ["Batch", "Features", "NoRows", "Row", "Task", "TaskKind"]

Row: TypeAlias = Mapping[str, Any]
_V = TypeVar("_V")
TaskKind: TypeAlias = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be predicted, and hence what a label and a prediction look like.

    ========== ======================================== =====================================
    kind       label (`Batch.labels`, float64)          prediction (float64)
    ========== ======================================== =====================================
    binary     0.0 or 1.0                               shape (n,): probability of 1
    multiclass class number 0, 1, …, by first sighting  shape (n, K): a probability per class
    regression any finite number                        shape (n,): the label's estimate
    ========== ======================================== =====================================

    In a multiclass prediction K is the number of classes seen up to the end of the batch, and a class
    has probability 0 before its first sighting; before the first label ever, a row is all zeros.
    """

    kind: TaskKind


@dataclass(frozen=True, slots=True)
class Features:
    """A hashed sparse matrix, one row an event.

    Attributes
    ----------
    indptr : int64, shape (n + 1,)
        Event i owns the entries ``indptr[i]:indptr[i + 1]``, in the order its features came in.
    indices : uint32, shape (nnz,)
        Full 32-bit hashes; a learner keeps as many low bits as its table has.
    values : float64, shape (nnz,)
        Finite and never zero.
    namespaces : uint32, shape (nnz,)
        Hash of the namespace of each entry; 0 is the default namespace.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float64]
    namespaces: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def slice(self, start: int, stop: int) -> Features:
        """Events ``start:stop``, as Python slices; shares memory with this one."""
        start, stop, _ = slice(start, stop).indices(len(self.indptr) - 1)
        stop = max(start, stop)
        low, high = self.indptr.item(start), self.indptr.item(stop)
        return Features(
            self.indptr[start : stop + 1] - low,
            self.indices[low:high],
            self.values[low:high],
            self.namespaces[low:high],
        )

    def take(self, positions: NDArray[np.int64]) -> Features:
        """Events at `positions` (in ``[0, n)``), copied, in that order.

        Raises
        ------
        IndexError
            If there is no such event.
        """
        from penstock._native.replay import gather, lay_out

        positions = np.ascontiguousarray(positions, np.int64)
        starts = np.ascontiguousarray(self.indptr)
        indptr = np.empty(len(positions) + 1, np.int64)
        nnz = lay_out(starts, positions, indptr)
        taken = Features(
            indptr, np.empty(nnz, np.uint32), np.empty(nnz, np.float64), np.empty(nnz, np.uint32)
        )
        gather(
            starts,
            np.ascontiguousarray(self.indices),
            np.ascontiguousarray(self.values),
            np.ascontiguousarray(self.namespaces),
            positions,
            indptr,
            taken.indices,
            taken.values,
            taken.namespaces,
        )
        return taken

    @staticmethod
    def concat(parts: Sequence[Features]) -> Features:
        """One matrix of all `parts`, one below the other."""
        offsets = np.cumsum([0, *(part.indptr[-1] for part in parts)])
        return Features(
            np.concatenate(
                [np.zeros(1, np.int64), *(p.indptr[1:] + o for p, o in zip(parts, offsets, strict=False))]
            ),
            np.concatenate([np.empty(0, np.uint32), *(part.indices for part in parts)]),
            np.concatenate([np.empty(0, np.float64), *(part.values for part in parts)]),
            np.concatenate([np.empty(0, np.uint32), *(part.namespaces for part in parts)]),
        )


class NoRows(Sequence[Row]):
    """The rows of events of which only the hashed features were kept: whoever asks for one is told so."""

    __slots__ = ("_length",)

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> NoRows: ...

    def __getitem__(self, at: int | slice) -> Row | NoRows:
        places = range(self._length)[at]
        if isinstance(places, range):
            return NoRows(len(places))
        raise PenstockError("of these events only the hashed features were kept, not their rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events in stream order, in columns.

    Attributes
    ----------
    features : Features
        Hashed, for native learners.
    labels : float64, shape (n,), or object (str), shape (n,)
        As `Task` says. A codec gives multiclass labels as strings; the engine, which owns the list of
        classes, numbers them before any learner sees the batch.
    weights : float64, shape (n,)
        Importance of each event, finite and >= 0.
    times : float64, shape (n,)
        Event time in seconds since the Unix epoch; NaN where the record has none.
    rows : sequence of dicts, length n
        The features as they came: scalars, strings, lists; one nested level is a namespace. `NoRows` where
        they were not kept, because nobody reads them.
    lines : sequence of str, length n, or None
        The feature part of each line ("|ns a:1 b") where the source was VW text.
    ids : sequence of str, length n, or None
        Where the record has them.
    """

    features: Features
    labels: NDArray[Any]
    weights: NDArray[np.float64]
    times: NDArray[np.float64]
    rows: Sequence[Row]
    lines: Sequence[str] | None = None
    ids: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Row],
        labels: Sequence[float] | Sequence[str] | NDArray[Any] | None = None,
        weights: Sequence[float] | NDArray[np.float64] | None = None,
    ) -> Batch:
        """Build a batch from dicts in memory.

        Parameters
        ----------
        rows : sequence of dicts, length n
        labels : length n, optional
            Numbers as `Task` says, or class names as strings. NaN where not given.
        weights : length n, optional
            1.0 where not given.

        Raises
        ------
        BadRecord
            Names the field and the row of the first value that cannot be a feature, or of the first weight
            that is negative or not finite.
        ValueError
            If `labels` or `weights` are not as many as `rows`.

        Examples
        --------
        >>> batch = Batch.from_rows([{"age": 31, "user": {"country": "SE"}}], [1.0])
        >>> len(batch), batch.features.indices.shape
        (1, (2,))
        """
        from penstock._native.features import encode_rows
        from penstock._native.plain import numbers

        n = len(rows)
        if labels is None:
            label_column: NDArray[Any] = np.full(n, np.nan)
        elif len(labels) and isinstance(labels[0], str):
            label_column = np.array(labels, dtype=object)
        else:
            column = numbers(labels)
            label_column = np.array(labels, dtype=np.float64) if column is None else column
        weight_column = np.ones(n) if weights is None else np.array(weights, dtype=np.float64)
        for name, column in (("labels", label_column), ("weights", weight_column)):
            if column.shape != (n,):
                raise ValueError(f"{n} rows need {name} of shape ({n},), got shape {column.shape}")
        features, bad = encode_rows(rows)
        if bad:
            i, error = bad[0]
            raise BadRecord(error.expected, error.got, path=error.path, position=f"row {i}") from error
        for i in np.flatnonzero(~((weight_column >= 0.0) & np.isfinite(weight_column)))[:1].tolist():
            raise BadRecord(
                "a finite weight >= 0", weight_column[i].item(), path="$.weight", position=f"row {i}"
            )
        return cls(
            features=features,
            labels=label_column,
            weights=weight_column,
            times=np.full(n, np.nan),
            rows=rows,
        )

    def slice(self, start: int, stop: int) -> Batch:
        """Events ``start:stop``, as Python slices; shares memory with this one."""
        return Batch(
            features=self.features.slice(start, stop),
            labels=self.labels[start:stop],
            weights=self.weights[start:stop],
            times=self.times[start:stop],
            rows=self.rows[start:stop],
            lines=None if self.lines is None else self.lines[start:stop],
            ids=None if self.ids is None else self.ids[start:stop],
        )

    def with_labels(self, labels: NDArray[np.float64]) -> Batch:
        """Return the same events with other labels."""
        return self._with(labels, self.weights)

    def with_weights(self, weights: NDArray[np.float64]) -> Batch:
        """Return the same events with other weights."""
        return self._with(self.labels, weights)

    def _with(self, labels: NDArray[np.float64], weights: NDArray[np.float64]) -> Batch:
        return Batch(
            features=self.features,
            labels=labels,
            weights=weights,
            times=self.times,
            rows=self.rows,
            lines=self.lines,
            ids=self.ids,
        )

    def take(self, positions: NDArray[np.int64]) -> Batch:
        """Events at `positions` (in ``[0, n)``), copied, in that order.

        Raises
        ------
        IndexError
            If there is no such event.
        """
        return Batch(
            features=self.features.take(positions),
            labels=self.labels[positions],
            weights=self.weights[positions],
            times=self.times[positions],
            rows=NoRows(len(positions)) if isinstance(self.rows, NoRows) else _taken(self.rows, positions),
            lines=None if self.lines is None else _taken(self.lines, positions),
            ids=None if self.ids is None else _taken(self.ids, positions),
        )

    def hashed(self) -> Batch:
        """Return the same events without rows, lines and ids: for who has native learners only."""
        if isinstance(self.rows, NoRows) and self.lines is None and self.ids is None:
            return self
        return Batch(
            features=self.features,
            labels=self.labels,
            weights=self.weights,
            times=self.times,
            rows=NoRows(len(self)),
        )

    def events(self) -> Iterator[Batch]:
        """Each event as a batch of its own."""
        for i in range(len(self)):
            yield self.slice(i, i + 1)

    @staticmethod
    def concat(parts: Sequence[Batch]) -> Batch:
        """One batch of all `parts` (at least one), in their order.

        Lines and ids are kept if every part that holds events has them.
        """
        parts = [part for part in parts if len(part)] or parts[:1]  # an empty one says nothing of types
        with_lines = all(part.lines is not None for part in parts)
        with_ids = all(part.ids is not None for part in parts)
        return Batch(
            features=Features.concat([part.features for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            weights=np.concatenate([part.weights for part in parts]),
            times=np.concatenate([part.times for part in parts]),
            rows=(
                NoRows(sum(map(len, parts)))
                if any(isinstance(part.rows, NoRows) for part in parts)
                else [row for part in parts for row in part.rows]
            ),
            lines=[line for part in parts for line in part.lines or ()] if with_lines else None,
            ids=[id_ for part in parts for id_ in part.ids or ()] if with_ids else None,
        )

    def state(self) -> State:
        """Everything in arrays, for a checkpoint. Labels must have been numbered."""
        state: State = {
            "indptr": self.features.indptr,
            "indices": self.features.indices,
            "values": self.features.values,
            "namespaces": self.features.namespaces,
            "labels": self.labels,
            "weights": self.weights,
            "times": self.times,
        }
        if not isinstance(self.rows, NoRows):
            rows = orjson.dumps(list(self.rows), default=_plain, option=orjson.OPT_NON_STR_KEYS)
            state["rows"] = _bytes(rows)
        if self.lines is not None:
            state["lines"] = _bytes(orjson.dumps(list(self.lines)))
        if self.ids is not None:
            state["ids"] = _bytes(orjson.dumps(list(self.ids)))
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Batch:
        """Rebuild what `state` wrote."""
        return cls(
            features=Features(state["indptr"], state["indices"], state["values"], state["namespaces"]),
            labels=state["labels"],
            weights=state["weights"],
            times=state["times"],
            rows=orjson.loads(state["rows"].tobytes()) if "rows" in state else NoRows(len(state["labels"])),
            lines=orjson.loads(state["lines"].tobytes()) if "lines" in state else None,
            ids=orjson.loads(state["ids"].tobytes()) if "ids" in state else None,
        )


def _taken(column: Sequence[_V], positions: NDArray[np.int64]) -> list[_V]:
    return [column[i] for i in positions.tolist()]


def _plain(value: Any) -> Any:
    """Turn what orjson does not know into the Python value that `encode_rows` takes it for."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    return dict(value) if isinstance(value, Mapping) else float(value)


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)
