"""KSWIN: the distribution of the recent against that of the older values of a sliding window."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from penstock._native import sequential as native
from penstock.drift.base import Knob
from penstock.drift.sequential import Found, Sequential, require_count, require_number, stored
from penstock.errors import ConfigError
from penstock.state import State

__all__ = ["KSWIN"]


class KSWIN(Sequential):
    """Alarms when the newest values of a window are, by Kolmogorov and Smirnov's test, unlike the older ones.

    It sees every kind of change, also of the spread alone. Unlike its paper and River it compares the recent
    values with *all* older ones of the window, not with a random few of them: that takes no chance, and no
    luck. An alarm empties the window. Their levels ring falsely 13 times in 10 000 continuous values; the
    default here is smaller.

    Parameters
    ----------
    alpha : float, in (0, 1)
        Level of one test, asymptotically: the smaller, the fewer false alarms and the longer the delay.
    window : int
        Values in the window.
    recent : int
        How many of them are recent.
    clock : int
        Test at every `clock`-th value.

    References
    ----------
    Raab, Heusinger and Schleif (2020), Reactive soft prototype computing for concept drift streams,
    Neurocomputing 416, 340-351.

    Examples
    --------
    >>> KSWIN().update(np.repeat([0.0, 1.0], 1000))
    Drift(index=1016, before=0.0, after=0.5666666666666667, width=30)
    """

    size: ClassVar[int] = native.KSWIN
    knob: ClassVar[Knob] = Knob(name="alpha", start=0.1, loud=0.999, quiet=1e-200, scale="log", cost=10)

    def __init__(
        self,
        *,
        alpha: Annotated[float, Gt(0), Lt(1)] = 0.00005,
        window: Annotated[int, Ge(2)] = 100,
        recent: Annotated[int, Ge(1)] = 30,
        clock: Annotated[int, Ge(1)] = 3,
    ) -> None:
        require_number("alpha", alpha, 0.0, 1.0)
        require_count("window", window, 2)
        require_count("recent", recent, 1)
        require_count("clock", clock, 1)
        if recent >= window:
            raise ConfigError(f"recent: expected less than the window of {window}, got {recent}")
        self.alpha: Final = alpha
        self.window: Final = window
        self.recent: Final = recent
        self.clock: Final = clock
        older = window - recent
        self._critical = math.sqrt(-math.log(alpha / 2.0) / 2.0 * window / (older * recent))
        super().__init__()

    def _run(self, values: NDArray[np.float64]) -> Found:
        return native.kswin(
            values, self._memory, self._window, *self._sorted, self.recent, self.clock, self._critical
        )

    def reset(self) -> None:
        """Forget everything, as after a reaction that changed what is watched."""
        super().reset()
        self._window = np.zeros(self.window)
        self._sorted = np.zeros(self.window), np.zeros(self.window)

    def state(self) -> State:
        """Everything needed to resume: ``memory``, and ``window``, the values in a ring."""
        return {**super().state(), "window": self._window.copy()}

    def restore(self, state: State) -> None:
        """Become what `state` was taken from; raises as `Sequential.restore`."""
        memory, window = self._stored_memory(state), stored(state, "window", self.window, "KSWIN")
        n = int(memory[1])
        held = min(n, self.window)
        age = (n - 1 - np.arange(self.window)) % self.window  # of each place of the ring; 0 is the newest
        order = np.argsort(window[:held], kind="stable")  # the ring fills from its first place on
        keys, recent = np.zeros(self.window), np.zeros(self.window)
        keys[:held] = window[:held][order]
        recent[:held] = age[:held][order] < self.recent
        self._memory, self._window, self._sorted = memory, window, (keys, recent)
