"""What those detectors share whose whole memory is one short array of numbers."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import LARGEST, Domain, Drift
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.state import State

__all__ = [
    "Direction",
    "Found",
    "Sequential",
    "checked",
    "directions",
    "require_count",
    "require_number",
    "stored",
]

Direction: TypeAlias = Literal["both", "up", "down"]
Found: TypeAlias = "tuple[int, float, float, int] | None"

_DIRECTIONS = {"both": native.BOTH, "up": native.UP, "down": native.DOWN}
_ACCEPTED: dict[Domain, tuple[float, float, str]] = {
    "numbers": (-LARGEST, LARGEST, f"a finite number of magnitude at most {LARGEST:g}"),
    "unit": (0.0, 1.0, "a number in [0, 1]"),
    "bits": (0.0, 1.0, "0 or 1"),
}


class Sequential:
    """A detector with a memory of `size` numbers, all zeros before the first value.

    What it takes is its `domain`; its kernel is `_run`. The value after an alarm finds it as new.
    """

    domain: ClassVar[Domain] = "numbers"
    size: ClassVar[int]

    def __init__(self) -> None:
        self.reset()

    def _run(self, values: NDArray[np.float64]) -> Found:
        raise NotImplementedError

    def update(self, values: NDArray[np.float64]) -> Drift | None:
        """Take all `values`, shape (n,), in stream order; return the first alarm among them.

        Raises
        ------
        BadRecord
            Names the first value that is not in the detector's `domain`; none has been taken then.
        """
        alarm = self._run(checked(values, self.domain))
        if alarm is None:
            return None
        index, before, after, width = alarm
        return Drift(index=index, before=before, after=after, width=width)

    def reset(self) -> None:
        """Forget everything, as after a reaction that changed what is watched."""
        self._memory = np.zeros(self.size)

    def state(self) -> State:
        """Everything needed to resume *after* the last value taken: ``memory``, as the kernel lays it out."""
        return {"memory": self._memory.copy()}

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of such a detector; nothing has changed then.
        """
        self._memory = self._stored_memory(state)

    def _stored_memory(self, state: State) -> NDArray[np.float64]:
        who = type(self).__name__
        memory = stored(state, "memory", self.size, who)
        if memory[0] not in (0.0, 1.0) or not (0.0 <= memory[1] < 2.0**53 and memory[1].is_integer()):
            raise StoreError(f"{who} state: no stream of values leads to the memory {memory[:2].tolist()}…")
        return memory


def checked(values: NDArray[np.float64], domain: Domain) -> NDArray[np.float64]:
    """Return `values`, contiguous, if a detector of `domain` can take them.

    Raises
    ------
    BadRecord
        Names the first one that it cannot.
    """
    values = np.ascontiguousarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise BadRecord("values of shape (n,)", values.shape, path="values.shape")
    low, high, accepted = _ACCEPTED[domain]
    outside = native.first_outside(values, low, high, domain == "bits")
    if outside >= 0:
        raise BadRecord(accepted, float(values[outside]), path=f"values[{outside}]")
    return values


def directions(direction: Direction) -> int:
    """Return what the kernels take for `direction`.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if direction not in get_args(Direction):
        raise ConfigError(f"direction: expected 'both', 'up' or 'down', got {direction!r}")
    return _DIRECTIONS[direction]


def require_number(
    name: str, value: float, low: float, high: float = LARGEST, *, open_low: bool = True
) -> None:
    """Refuse a parameter that is not in (low, high), or in [low, high) with `open_low` False.

    Raises
    ------
    ConfigError
        Names it.
    """
    if not (low < value < high or (value == low and not open_low)):
        brackets = f"{'(' if open_low else '['}{low:g}, {high:g})"
        raise ConfigError(f"{name}: expected a number in {brackets}, got {value!r}")


def require_count(name: str, value: int, low: int) -> None:
    """Refuse a parameter that is no integer, or less than `low`.

    Raises
    ------
    ConfigError
        Names it.
    """
    if not isinstance(value, int) or not low <= value < 2**31:
        raise ConfigError(f"{name}: expected an integer of at least {low}, got {value!r}")


def stored(state: State, name: str, size: int, who: str) -> NDArray[np.float64]:
    """Return a copy of an array of `size` finite numbers in `state`.

    Raises
    ------
    StoreError
        If there is none.
    """
    value = state.get(name)
    if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.shape != (size,):
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise StoreError(f"{who} state: expected {name} to be float64 ({size},), got {got}")
    if not np.isfinite(value).all():
        raise StoreError(f"{who} state: {name} holds a number that is not finite")
    return np.array(value, order="C")
