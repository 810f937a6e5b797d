"""A concept drift put into a stream at a stated place, to see what notices it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock._native.features import encode_rows
from penstock.errors import ConfigError, DataError
from penstock.events import Batch, Row, Task
from penstock.sources.base import Chunk, Position, Source

__all__ = ["Injected", "Injection", "injected"]

Read: TypeAlias = "Callable[[Position | None, int], Iterator[Chunk]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """What changes, from which event on. Exactly one change is given.

    Attributes
    ----------
    at : int
        Number of the first event that is changed; the stream's first is number 0, and bad records do not
        count.
    flip : bool
        Whether to swap the labels of a binary task.
    rotate_classes : sequence of str
        Classes of a multiclass task, each of which becomes the one that comes `by` places later among them,
        sorted; the last is followed by the first.
    by : int
    swap_features : pair of str
        Features whose values change places.

    Raises
    ------
    ConfigError
        If not exactly one change is given, or it cannot be made.
    """

    at: int
    flip: bool = False
    rotate_classes: Sequence[str] = ()
    by: int = 1
    swap_features: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.at < 0:
            raise ConfigError(f"inject.at: expected the number of an event, got {self.at}")
        if bool(self.flip) + bool(self.rotate_classes) + bool(self.swap_features) != 1:
            raise ConfigError("inject: expected one of flip, rotate_classes and swap_features")
        if self.rotate_classes and len(set(self.rotate_classes)) < 2:
            raise ConfigError(f"inject.rotate_classes: expected two or more, got {self.rotate_classes!r}")
        if self.swap_features and (isinstance(self.swap_features, str) or len(set(self.swap_features)) != 2):
            raise ConfigError(f"inject.swap_features: expected two names, got {self.swap_features!r}")

    def check(self, task: Task) -> None:
        """Raise ConfigError if `task` has no labels of the kind that is changed."""
        if self.flip and task.kind != "binary":
            raise ConfigError(f"inject.flip: needs a binary task, this one is {task.kind}")
        if self.rotate_classes and task.kind != "multiclass":
            raise ConfigError(f"inject.rotate_classes: needs a multiclass task, this one is {task.kind}")

    def change(self, batch: Batch) -> Batch:
        """Return `batch` changed."""
        if self.flip:
            return batch.with_labels(1.0 - batch.labels)
        if self.rotate_classes:
            return batch.with_labels(self._rotated(batch.labels))
        return self._swapped(batch)

    def _rotated(self, labels: NDArray[Any]) -> NDArray[Any]:
        classes = sorted(set(self.rotate_classes))
        after = {name: classes[(i + self.by) % len(classes)] for i, name in enumerate(classes)}
        after[""] = ""  # no label
        try:
            return np.array([after[label] for label in labels], dtype=object)
        except KeyError as error:
            raise DataError(f"inject.rotate_classes: the class {error} of an event is not listed") from None

    def _swapped(self, batch: Batch) -> Batch:
        if batch.lines is not None:
            raise ConfigError("inject.swap_features: the features of VW text cannot be swapped")
        one, other = self.swap_features
        renamed = {one: other, other: one}
        rows: list[Row] = [
            {renamed.get(name, name): value for name, value in row.items()} for row in batch.rows
        ]
        features, _ = encode_rows(rows)
        return Batch(
            features=features,
            labels=batch.labels,
            weights=batch.weights,
            times=batch.times,
            rows=rows,
            ids=batch.ids,
        )


class Injected:
    """Another source, with a change from one event on.

    Parameters
    ----------
    source : Source
    **change
        As `Injection`.
    """

    def __init__(self, source: Source, **change: Any) -> None:
        self._source = source
        self._injection = Injection(**change)

    def chunks(self, position: Position | None, size: int) -> Iterator[Chunk]:
        """Read from `position`; see `penstock.sources.base.Source`."""
        return _changed(self._injection, self._source.chunks, position, size)


def injected(read: Read, inject: Mapping[str, Any] | None, task: Task) -> Read:
    """Return `read` with the change that a source's option `inject` asks for.

    Raises
    ------
    ConfigError
        If the option cannot be used.
    """
    if inject is None:
        return read
    unknown = sorted(inject.keys() - Injection.__dataclass_fields__.keys())
    if unknown or "at" not in inject:
        known = ", ".join(Injection.__dataclass_fields__)
        problem = f"there is no option {unknown[0]!r}" if unknown else "'at' is missing"
        raise ConfigError(f"inject: {problem}; options are {known}")
    injection = Injection(**inject)
    injection.check(task)
    return lambda position, size: _changed(injection, read, position, size)


def _changed(injection: Injection, read: Read, position: Position | None, size: int) -> Iterator[Chunk]:
    n_events = 0
    inner: Position | None = None
    if position is not None:
        try:
            n_events, inner = position["events"], position["source"]
        except KeyError:
            raise DataError(f"{dict(position)!r} is no position of a source with `inject`") from None
    for chunk in read(inner, size):
        batch = chunk.batch
        untouched = min(max(injection.at - n_events, 0), len(batch))
        n_events += len(batch)
        if untouched == 0:
            batch = injection.change(batch) if len(batch) else batch
        elif untouched < len(batch):
            parts = [batch.slice(0, untouched), injection.change(batch.slice(untouched, len(batch)))]
            batch = Batch.concat(parts)
        yield Chunk(
            batch=batch,
            rejected=chunk.rejected,
            position={"source": dict(chunk.position), "events": n_events},
        )
