"""What all buffers of ours have in common: events in a store, of which they say which ones they hold."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Final, TypeAlias

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from penstock._native.replay import choose
from penstock.errors import ConfigError, PenstockError, StoreError
from penstock.events import Batch
from penstock.replay.chance import generator, generator_from, state_of
from penstock.replay.store import Store, as_json, check_columns, costs_of_events
from penstock.state import State, prefixed, section

__all__ = ["Held", "MaxBytes", "Seed", "Size"]

_LARGEST: Final = 100_000_000
_UNBOUNDED: Final = 1 << 62
_ROOM: Final = 64  # events that are not held any more and may lie around, however few are held

Size: TypeAlias = Annotated[int, Ge(1), Le(_LARGEST)]
MaxBytes: TypeAlias = Annotated[int, Ge(1)] | None
Seed: TypeAlias = Annotated[int, Ge(0)]


class Held(ABC):
    """Events in a store, and the rules that every buffer of ours follows.

    A subclass decides, in `_keep`, what it holds. It names events by their *numbers*: 0 for the first that
    was ever offered.

    Parameters
    ----------
    size : int
        Events held at most.
    max_bytes : int or None
        What they may take together: 16 bytes a feature, 48 an event, and the JSON of its row if there is
        one. An event that takes more all by itself is never held. In memory there is up to twice as much.
    seed : int
    """

    kind: ClassVar[str] = "replay buffer"

    def __init__(self, size: int, max_bytes: int | None, seed: int) -> None:
        if not isinstance(size, int) or not 1 <= size <= _LARGEST:
            raise ConfigError(f"size: expected an integer of at least 1, got {size!r}")
        if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 1):
            raise ConfigError(f"max_bytes: expected an integer of at least 1, got {max_bytes!r}")
        if not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise ConfigError(f"seed: expected an integer in [0, 2**64), got {seed!r}")
        self.size = size
        self.max_bytes = max_bytes
        self._limit = _UNBOUNDED if max_bytes is None else max_bytes
        # Two streams, so that how often somebody samples does not change what is kept.
        self._keeping = generator(seed, 0)
        self._sampling = generator(seed, 1)
        self._n_offered = 0
        self._store = Store()
        self._due = _ROOM  # events in the store when it is to be looked through
        self._places = np.arange(16)  # 0, 1, …: see `choose`

    @abstractmethod
    def _numbers(self) -> NDArray[np.int64]:
        """Return the numbers of the events held, in an order of the buffer's own."""

    @abstractmethod
    def _keep(self, batch: Batch, costs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take what is to be held of events that take so many bytes; return their places, ascending.

        Some of them may not be held any more at the end. Raises before anything has changed.
        """

    def _skips(self, n: int) -> bool:
        """Whether none of the next `n` events is to be held, whatever they are."""
        return not n

    @abstractmethod
    def _start_from(self, numbers: NDArray[np.int64]) -> None:
        """Hold these events of the store (ascending) and none else, as if it had just begun with them."""

    @abstractmethod
    def _rest_of_state(self) -> State:
        """Return what a subclass knows beside the numbers of what it holds."""

    @abstractmethod
    def _resume(self, numbers: NDArray[np.int64], state: Any) -> None:
        """Take the numbers and the rest of a state; raise ValueError (or what comes of it) if they are bad.

        Nothing may be changed in place: this is a shallow copy of a buffer that has to survive it.
        """

    def __len__(self) -> int:
        """Events held."""
        return len(self._numbers())

    @property
    def n_offered(self) -> int:
        """Events offered so far."""
        return self._n_offered

    def offer(self, batch: Batch) -> None:
        """Take what is to be kept of `batch`; copies it.

        Raises
        ------
        PenstockError
            If labels are not numbers yet, or not such as the buffer needs; as a `BadRecord`, if a row
            cannot be expressed as JSON. Nothing of the batch has been taken then.
        """
        if batch.labels.dtype != np.float64:
            raise PenstockError(f"replay needs numbered labels (float64), got {batch.labels.dtype}")
        if self._skips(len(batch)):
            self._n_offered += len(batch)
            return
        rows = as_json(batch.rows)
        places = self._keep(batch, costs_of_events(batch, rows))
        arrivals = places + self._n_offered
        self._n_offered += len(batch)
        if len(places):
            self._store.append(batch, rows, places, arrivals)
            if len(self._store) >= self._due:
                self._tidy()

    def _tidy(self) -> None:
        """Drop what is not held any more, if that is half of the store."""
        self._due = 2 * len(self) + _ROOM
        if len(self._store) >= self._due:
            self._store.keep(self._store.positions(np.sort(self._numbers())))

    def sample(self, n: int) -> Batch | None:
        """Draw `n` different events (all there are, if fewer) in random order; None if there are none.

        Raises
        ------
        PenstockError
            If `n` is negative.
        """
        numbers = self._numbers()
        n = self._drawable(n, len(numbers))
        if not n:
            return None
        while len(self._places) < len(numbers):
            self._places = np.arange(2 * len(self._places))
        chosen, swaps = np.empty(n, np.int64), np.empty(n, np.int64)
        choose(self._sampling, len(numbers), self._places, chosen, swaps)
        return self._store.take(self._store.positions(numbers[chosen]))

    @staticmethod
    def _drawable(n: int, held: int) -> int:
        if n < 0:
            raise PenstockError(f"n: expected a number of events, got {n}")
        return min(n, held)

    def contents(self, since: int = 0) -> Batch | None:
        """Every event held, the oldest first, but none of the first `since` offered; None if none is left."""
        numbers = self.arrivals()
        numbers = numbers[numbers >= since]
        return self._store.take(self._store.positions(numbers)) if len(numbers) else None

    def arrivals(self) -> NDArray[np.int64]:
        """Return which of the events offered, counted from 0, each of the `contents` was."""
        return np.sort(self._numbers())

    def forget(self, before: int) -> None:
        """Drop every event that was offered as one of the first `before`, and go on with the others."""
        numbers = self.arrivals()
        numbers = numbers[numbers >= before]
        self._store.keep(self._store.positions(numbers))
        self._start_from(numbers)

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        contents = self.contents()
        return {
            "size": self.size,
            "n_offered": self._n_offered,
            "numbers": self._numbers().copy(),
            "keeping": state_of(self._keeping),
            "sampling": state_of(self._sampling),
            **self._rest_of_state(),
            **({} if contents is None else prefixed(contents.state(), "events")),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of such a buffer of this size; nothing has changed then.
        """
        resumed = copy.copy(self)
        try:
            resumed._restore(dict(state))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise StoreError(
                f"not the state of a {self.kind} of {self.size} events: {type(error).__name__}: {error}"
            ) from error
        vars(self).update(vars(resumed))

    def _restore(self, state: Any) -> None:
        if int(state["size"]) != self.size:
            raise ValueError(f"it is one of {state['size']}")
        self._n_offered = int(state["n_offered"])
        self._keeping, self._sampling = generator_from(state["keeping"]), generator_from(state["sampling"])
        numbers = np.array(state["numbers"], np.int64)
        ordered = np.sort(numbers)
        if len(numbers) > self.size or (np.diff(ordered, prepend=-1, append=self._n_offered) <= 0).any():
            raise ValueError(f"it holds {len(numbers)} of {self._n_offered} events")
        self._store = Store()
        if len(numbers):
            events = Batch.from_state(section(state, "events"))
            check_columns(events)
            if len(events) != len(numbers):
                raise ValueError(f"there are {len(events)} of {len(numbers)} events")
            self._store.append(events, as_json(events.rows), np.arange(len(events)), ordered)
        if int(self._store.costs().sum()) > self._limit:
            raise ValueError(f"it takes more than {self._limit} bytes")
        self._resume(numbers, state)
