"""ADWIN: a window over the newest values that shrinks when its old part no longer resembles its new part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from penstock._native.drift import LARGEST, ROWS, adwin, first_unusable
from penstock.drift.base import Domain, Drift, Knob
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.state import State

__all__ = ["ADWIN"]

Direction = Literal["both", "up"]

_WIDEST: Final = 2**52  # a window may still grow past any stream's end before its width is inexact


class ADWIN:
    """Adaptive windowing: alarms when the mean of the watched number has changed.

    The window is kept as an exponential histogram of O(max_buckets · log(width)) buckets. Every `clock`
    values each boundary between buckets is tried as a cut; while the two sides' means differ by more
    than chance allows, the oldest bucket is dropped. The value after an alarm starts a new window, so
    alarms, widths and means are those of River's ``drift.ADWIN``.

    The bound holds for independent values of a bounded range: clip losses, and do not feed it
    autocorrelated numbers (block means of 30 to 50 events help).

    Parameters
    ----------
    delta : float, in (0, 1)
        Confidence of a single look: the smaller, the fewer false alarms and the longer the delay.
    clock : int
        Look for a cut every `clock` values.
    max_buckets : int
        Buckets of one size; more of them make cuts finer, and looks slower.
    min_window : int
        Either side of a cut holds at least this many values.
    grace : int
        No look before the window is wider than this.
    direction : "both" or "up"
        Whether every change is an alarm, or only one to a higher mean (of a loss: to worse). The window
        shrinks after a change in either direction.

    References
    ----------
    Bifet and Gavaldà (2007), Learning from time-changing data with adaptive windowing, SDM 443-448.

    Examples
    --------
    >>> values = np.repeat([0.0, 1.0], 1000)
    >>> ADWIN().update(values)
    Drift(index=1023, before=0.0, after=0.42857142857142855, width=56)
    """

    domain: ClassVar[Domain] = "numbers"
    knob: ClassVar[Knob] = Knob(name="delta", start=0.9, loud=0.999999, quiet=1e-200, scale="log")

    def __init__(
        self,
        *,
        delta: Annotated[float, Gt(0), Lt(1)] = 0.002,
        clock: Annotated[int, Ge(1)] = 32,
        max_buckets: Annotated[int, Ge(2)] = 5,
        min_window: Annotated[int, Ge(1)] = 5,
        grace: Annotated[int, Ge(0)] = 10,
        direction: Direction = "both",
    ) -> None:
        if not 0 < delta < 1:
            raise ConfigError(f"delta: expected a number in (0, 1), got {delta!r}")
        for name, value, least in (
            ("clock", clock, 1),
            ("max_buckets", max_buckets, 2),
            ("min_window", min_window, 1),
            ("grace", grace, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name}: expected an integer of at least {least}, got {value!r}")
        if direction not in get_args(Direction):
            raise ConfigError(f"direction: expected 'both' or 'up', got {direction!r}")
        self.delta = delta
        self.clock = clock
        self.max_buckets = max_buckets
        self.min_window = min_window
        self.grace = grace
        self.direction = direction
        self.reset()

    @property
    def width(self) -> int:
        """Values in the window."""
        return int(self._clocks[0])

    @property
    def estimation(self) -> float:
        """Mean of the window; 0.0 while it is empty."""
        return float(self._sums[0] / self._clocks[0]) if self._clocks[0] else 0.0

    def update(self, values: NDArray[np.float64]) -> Drift | None:
        """Take all `values`, shape (n,), in stream order; return the first alarm among them.

        Raises
        ------
        BadRecord
            Names the first value that is not finite (or larger than 1e100, whose squares would not
            be); none of the values has been taken then.
        """
        values = np.ascontiguousarray(values, dtype=np.float64)
        if values.ndim != 1:
            raise BadRecord("values of shape (n,)", values.shape, path="values.shape")
        unusable = first_unusable(values)
        if unusable >= 0:
            raise BadRecord(
                f"a finite number of magnitude at most {LARGEST:g}",
                float(values[unusable]),
                path=f"values[{unusable}]",
            )
        alarm = adwin(
            values,
            self._totals,
            self._m2,
            self._counts,
            self._sums,
            self._clocks,
            self.delta,
            self.clock,
            self.min_window,
            self.grace,
            self.direction == "up",
        )
        if alarm is None:
            return None
        index, before, after, width = alarm
        return Drift(index=index, before=before, after=after, width=width)

    def reset(self) -> None:
        """Forget everything, as after a reaction that changed what is watched."""
        shape = ROWS, self.max_buckets + 1
        self._totals = np.zeros(shape)
        self._m2 = np.zeros(shape)
        self._counts = np.zeros(ROWS, np.int64)
        self._sums = np.zeros(2)
        self._clocks = np.zeros(3, np.int64)

    def state(self) -> State:
        """Everything needed to resume *after* the last value taken.

        ========= ============================== ====================================================
        totals    float64 (56, max_buckets + 1)  row i, oldest first: sum over a bucket of 2**i values
        m2        float64 (56, max_buckets + 1)  likewise, squared deviations from the bucket's mean
        counts    int64 (56,)                    buckets in use in each row
        sums      float64 (2,)                   sum and squared deviations of the whole window
        clocks    int64 (3,)                     width; values since the window began; alarmed last
        ========= ============================== ====================================================
        """
        return {
            "totals": self._totals.copy(),
            "m2": self._m2.copy(),
            "counts": self._counts.copy(),
            "sums": self._sums.copy(),
            "clocks": self._clocks.copy(),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of an ADWIN with as many buckets; nothing has changed then.
        """
        shape = ROWS, self.max_buckets + 1
        totals = _array(state, "totals", np.float64, shape)
        m2 = _array(state, "m2", np.float64, shape)
        counts = _array(state, "counts", np.int64, (ROWS,))
        sums = _array(state, "sums", np.float64, (2,))
        clocks = _array(state, "clocks", np.int64, (3,))
        if ((counts < 0) | (counts > self.max_buckets)).any():
            raise StoreError(f"ADWIN state: counts must lie in 0..{self.max_buckets}")
        width = sum(int(count) << row for row, count in enumerate(counts))
        if width != clocks[0] or width > _WIDEST or clocks[1] < width or clocks[2] not in (0, 1):
            raise StoreError(f"ADWIN state: clocks {clocks.tolist()} do not fit buckets of {width} values")
        self._totals, self._m2, self._counts, self._sums, self._clocks = totals, m2, counts, sums, clocks


def _array(
    state: Mapping[str, Any], name: str, dtype: type[np.generic], shape: tuple[int, ...]
) -> NDArray[Any]:
    value = state.get(name)
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise StoreError(f"ADWIN state: expected {name} to be {np.dtype(dtype)} {shape}, got {got}")
    if not np.isfinite(value).all():
        raise StoreError(f"ADWIN state: {name} holds a number that is not finite")
    return np.array(value, order="C")
