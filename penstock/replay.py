"""Replay buffers: a bounded sample of the past, mixed into the present against forgetting.

To add a buffer: write the class, add its line to `BUFFERS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import orjson
from annotated_types import Ge
from numpy.typing import NDArray

from penstock.errors import BadRecord, ConfigError, PenstockError, StoreError
from penstock.events import Batch, Features, Row
from penstock.registry import resolve
from penstock.state import State, prefixed, section

__all__ = ["BUFFERS", "Buffer", "Reservoir", "build"]

BUFFERS: Final[Mapping[str, str]] = {
    "reservoir": "penstock.replay:Reservoir",
}


@runtime_checkable
class Buffer(Protocol):
    """Keeps some of the events offered to it. Everything it knows is in `state()`.

    Built with ``Class(seed=…, **parameters)``; the annotations of the constructor are its schema. What it
    keeps and draws depends on its seed, the events and the calls of `sample`, never on how the events were
    cut into batches.
    """

    def __len__(self) -> int:
        """Events held."""
        ...

    @property
    def n_offered(self) -> int:
        """Events offered so far."""
        ...

    def offer(self, batch: Batch) -> None:
        """Take what is to be kept of `batch`, whose labels are numbers; copies it."""
        ...

    def sample(self, n: int) -> Batch | None:
        """Draw `n` different events (all there are, if fewer) in random order; None if there are none."""
        ...

    def contents(self, since: int = 0) -> Batch | None:
        """Every event held, the oldest first, but none of the first `since` offered; None if none is left."""
        ...

    def forget(self, before: int) -> None:
        """Drop every event that was offered as one of the first `before`."""
        ...

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        ...

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        ...


def build(kind: str, *, seed: int = 0, **parameters: Any) -> Buffer:
    """Build the buffer registered as `kind`, or the class that ``module:Class`` names."""
    buffer: Buffer = resolve(kind, BUFFERS, what="replay buffer")(seed=seed, **parameters)
    return buffer


class Reservoir:
    """A uniform sample of everything offered: each event is held with probability size / n_offered.

    Instead of tossing a coin for every event, it draws how many to skip until the next one it keeps, so
    beyond the first `size` events it costs O(size · log(n / size)) in all.

    An event is held as a checkpoint would give it back, so that a restart changes nothing: its row has been
    through JSON (a NaN has become None).

    Parameters
    ----------
    size : int
        Events held at most.
    seed : int

    References
    ----------
    Li (1994), Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n))), ACM TOMS 20(4), 481-493:
    Algorithm L.

    Examples
    --------
    >>> reservoir = Reservoir(size=2, seed=0)
    >>> reservoir.offer(Batch.from_rows([{"x": i} for i in range(100)], np.arange(100.0)))
    >>> len(reservoir), reservoir.n_offered
    (2, 100)
    >>> reservoir.arrivals().tolist() == reservoir.contents().labels.tolist()
    True
    """

    def __init__(self, *, size: Annotated[int, Ge(1)] = 5000, seed: Annotated[int, Ge(0)] = 0) -> None:
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"size: expected an integer of at least 1, got {size!r}")
        if not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise ConfigError(f"seed: expected an integer in [0, 2**64), got {seed!r}")
        self.size = size
        # Two streams, so that how often somebody samples does not change what is kept.
        self._keeping = np.random.Generator(np.random.Philox(key=np.array([seed, 0], np.uint64)))
        self._sampling = np.random.Generator(np.random.Philox(key=np.array([seed, 1], np.uint64)))
        self._n_offered = 0
        self._forgotten = 0  # events that the sample does not count: offered, and then forgotten
        self._log_threshold = 0.0
        self._next_kept = size - 1
        self._skip()
        self._store = _Store()
        self._slots = np.empty(0, np.int64)  # position in the store of the event in each slot

    def __len__(self) -> int:
        """Events held."""
        return len(self._slots)

    @property
    def n_offered(self) -> int:
        """Events offered so far."""
        return self._n_offered

    def offer(self, batch: Batch) -> None:
        """Take what is to be kept of `batch`; copies it.

        Raises
        ------
        PenstockError
            If labels are not numbers yet; or, as a `BadRecord`, if a row that is to be kept cannot be
            expressed as JSON. Nothing of the batch has been taken then.
        """
        if batch.labels.dtype != np.float64:
            raise PenstockError(f"replay needs numbered labels (float64), got {batch.labels.dtype}")
        start = self._n_offered - self._forgotten
        stop = start + len(batch)
        if start >= self.size and self._next_kept >= stop:
            self._n_offered += len(batch)
            return
        before = self._keeping.bit_generator.state, self._next_kept, self._log_threshold
        filling = np.arange(start, min(stop, self.size))
        replacing, slots = [], []
        while self._next_kept < stop:
            replacing.append(self._next_kept)
            slots.append(int(self._keeping.random() * self.size))
            self._skip()
        arrivals = np.concatenate((filling, np.array(replacing, np.int64)))
        kept = batch.take(arrivals - start)
        try:
            rows = _through_json(kept.rows, arrivals - start)
        except BadRecord:
            self._keeping.bit_generator.state, self._next_kept, self._log_threshold = before
            raise

        first = len(self._store)
        self._store.append(replace(kept, rows=rows), arrivals + self._forgotten)
        self._slots = np.concatenate((self._slots, first + np.arange(len(filling))))
        for position, slot in enumerate(slots, start=first + len(filling)):
            self._slots[slot] = position
        self._n_offered += len(batch)
        if len(self._store) >= 2 * self.size:  # half of it has been replaced since it was last tidied
            self._tidy()

    def sample(self, n: int) -> Batch | None:
        """Draw `n` different events (all there are, if fewer) in random order; None if there are none.

        Raises
        ------
        PenstockError
            If `n` is negative.
        """
        if n < 0:
            raise PenstockError(f"n: expected a number of events, got {n}")
        n = min(n, len(self))
        if not n:
            return None
        # The first n steps of a Fisher-Yates shuffle of the slots, noting only what has moved.
        moved: dict[int, int] = {}
        chosen = []
        for i, u in enumerate(self._sampling.random(n).tolist()):
            j = i + int(u * (len(self) - i))
            chosen.append(moved.get(j, j))
            moved[j] = moved.get(i, i)
        return self._store.events().take(self._slots[chosen])

    def contents(self, since: int = 0) -> Batch | None:
        """Every event held, the oldest first, but none of the first `since` offered; None if none is left."""
        held = np.sort(self._slots)
        held = held[self._store.arrivals[held] >= since]
        return self._store.events().take(held) if len(held) else None

    def arrivals(self) -> NDArray[np.int64]:
        """Return which of the events offered, counted from 0, each of the `contents` was."""
        return self._store.arrivals[np.sort(self._slots)]

    def forget(self, before: int) -> None:
        """Drop every event that was offered as one of the first `before`, and sample from here on.

        What is left are the first events of a new sample: uniform over them and all that follow, which
        counts the few events that were dropped by chance, and not by age, as never offered.
        """
        held = np.sort(self._slots)
        held = held[self._store.arrivals[held] >= before]
        store = _Store()
        if len(held):
            store.append(self._store.events().take(held), self._store.arrivals[held])
        self._store = store
        self._slots = np.arange(len(held))
        self._forgotten = self._n_offered - len(held)
        self._log_threshold = 0.0
        self._next_kept = self.size - 1
        self._skip()

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        contents = self.contents()
        return {
            "n_offered": self._n_offered,
            "forgotten": self._forgotten,
            "next_kept": self._next_kept,
            "log_threshold": self._log_threshold,
            "keeping": _generator_state(self._keeping),
            "sampling": _generator_state(self._sampling),
            "slots": np.argsort(np.argsort(self._slots)),
            "arrivals": self.arrivals(),
            **({} if contents is None else prefixed(contents.state(), "events")),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of a reservoir of this size; nothing has changed then.
        """
        held: Any = dict(state)
        try:
            n_offered, next_kept = int(held["n_offered"]), int(held["next_kept"])
            forgotten = int(held["forgotten"])
            log_threshold = float(held["log_threshold"])
            keeping, sampling = _generator(held["keeping"]), _generator(held["sampling"])
            slots = np.array(held["slots"], np.int64)
            arrivals = np.array(held["arrivals"], np.int64)
            store = _Store()
            if len(slots):
                events = Batch.from_state(section(held, "events"))
                _check(events)
                store.append(events, arrivals)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"not the state of a reservoir: {type(error).__name__}: {error}") from error
        n = min(n_offered - forgotten, self.size)
        if not (
            0 <= forgotten <= n_offered
            and np.array_equal(np.sort(slots), np.arange(n))
            and len(store) == len(arrivals) == n
            and (np.diff(arrivals, prepend=-1, append=n_offered) > 0).all()
            and next_kept >= max(n_offered - forgotten, self.size)
            and -700.0 < log_threshold <= 0.0
        ):
            raise StoreError(
                f"not the state of a reservoir of {self.size} events: it holds {len(slots)} of {n_offered}"
            )
        self._n_offered, self._forgotten = n_offered, forgotten
        self._next_kept, self._log_threshold = next_kept, log_threshold
        self._keeping, self._sampling = keeping, sampling
        self._store, self._slots = store, slots

    def _skip(self) -> None:
        """Draw the number of the next event to keep.

        The threshold W is the largest of `size` uniform numbers, one an event held: an event is kept if its
        own falls below W, so the gaps are geometric.
        """
        u, v = 1.0 - self._keeping.random(2)  # in (0, 1]: their logarithms are finite
        self._log_threshold += math.log(u) / self.size
        threshold = min(math.exp(self._log_threshold), 1.0 - 2.0**-53)
        self._next_kept += math.floor(math.log(v) / math.log1p(-threshold)) + 1

    def _tidy(self) -> None:
        """Forget the events that have been replaced."""
        held = np.sort(self._slots)
        store = _Store()
        store.append(self._store.events().take(held), self._store.arrivals[held])
        self._slots = np.searchsorted(held, self._slots)
        self._store = store


_T = TypeVar("_T", bound=np.generic)


class _Column(Generic[_T]):
    """An array that grows at its end in amortised constant time."""

    def __init__(self, dtype: type[_T]) -> None:
        self._data: NDArray[_T] = np.empty(16, dtype)
        self._length = 0

    @property
    def values(self) -> NDArray[_T]:
        return self._data[: self._length]

    def extend(self, values: NDArray[_T]) -> None:
        length = self._length + len(values)
        if length > len(self._data):
            grown = np.empty(max(length, self._length + self._length // 2), self._data.dtype)
            grown[: self._length] = self.values
            self._data = grown
        self._data[self._length : length] = values
        self._length = length


class _Store:
    """Events in order of arrival, in columns that grow at their end; shares memory with no batch."""

    def __init__(self) -> None:
        self._ends = _Column(np.int64)
        self._ends.extend(np.zeros(1, np.int64))
        self._indices = _Column(np.uint32)
        self._values = _Column(np.float64)
        self._namespaces = _Column(np.uint32)
        self._labels = _Column(np.float64)
        self._weights = _Column(np.float64)
        self._times = _Column(np.float64)
        self._arrivals = _Column(np.int64)
        self._rows: list[Row] = []
        # None once there was an event without one: a batch has lines for all of its events or for none.
        self._lines: list[str] | None = []
        self._ids: list[str] | None = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def arrivals(self) -> NDArray[np.int64]:
        return self._arrivals.values

    def append(self, batch: Batch, arrivals: NDArray[np.int64]) -> None:
        self._ends.extend(batch.features.indptr[1:] + self._ends.values[-1])
        self._indices.extend(batch.features.indices)
        self._values.extend(batch.features.values)
        self._namespaces.extend(batch.features.namespaces)
        self._labels.extend(batch.labels)
        self._weights.extend(batch.weights)
        self._times.extend(batch.times)
        self._arrivals.extend(arrivals)
        self._rows.extend(batch.rows)
        self._lines = _extended(self._lines, batch.lines)
        self._ids = _extended(self._ids, batch.ids)

    def events(self) -> Batch:
        """All of them; shares memory with the store, so take what is wanted."""
        return Batch(
            features=Features(
                self._ends.values, self._indices.values, self._values.values, self._namespaces.values
            ),
            labels=self._labels.values,
            weights=self._weights.values,
            times=self._times.values,
            rows=self._rows,
            lines=self._lines,
            ids=self._ids,
        )


def _extended(column: list[str] | None, values: Sequence[str] | None) -> list[str] | None:
    if column is None or values is None:
        return None
    column.extend(values)
    return column


def _through_json(rows: Sequence[Row], positions: NDArray[np.int64]) -> list[Row]:
    """Copy rows; `positions` are theirs in the batch they came in."""
    try:
        copies: list[Row] = orjson.loads(orjson.dumps(list(rows), option=orjson.OPT_SERIALIZE_NUMPY))
    except TypeError as error:
        for row, position in zip(rows, positions.tolist(), strict=True):
            try:
                orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
            except TypeError as reason:
                raise BadRecord(f"what JSON can hold ({reason})", row, path=f"rows[{position}]") from error
        raise
    return copies


def _check(batch: Batch) -> None:
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


def _generator_state(generator: np.random.Generator) -> NDArray[np.uint64]:
    """Counter, key, numbers ready and how many of them are used.

    Only doubles are ever drawn, so there is no half of a number left over to keep.
    """
    state: Any = generator.bit_generator.state
    return np.concatenate(
        (
            state["state"]["counter"],
            state["state"]["key"],
            state["buffer"],
            np.array([state["buffer_pos"]], np.uint64),
        )
    )


def _generator(state: NDArray[np.uint64]) -> np.random.Generator:
    if state.dtype != np.uint64 or state.shape != (11,) or state[10] > 4:
        raise ValueError(f"expected a Philox generator in uint64 (11,), got {state.dtype} {state.shape}")
    philox = np.random.Philox(0)
    philox.state = {
        "bit_generator": "Philox",
        "state": {"counter": state[:4].copy(), "key": state[4:6].copy()},
        "buffer": state[6:10].copy(),
        "buffer_pos": int(state[10]),
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(philox)
