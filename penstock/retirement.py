"""Arms that a pipeline forgets as of a time: where that is in the log, however often a run is resumed."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from penstock.errors import StoreError
from penstock.feedback import DecisionEvent
from penstock.state import State

__all__ = ["Retirements"]


class Retirements:
    """Says between which decisions arms retire: before the first one that is not older than the time given.

    That is a place in the log, not a moment of the run. So an arm can be retired in the middle of a run that
    is resumed, and the log replayed from its beginning gives the same state, to the bit.

    Parameters
    ----------
    times : mapping of arm to float
        Event time in seconds since the Unix epoch.

    Examples
    --------
    >>> def decided(time):
    ...     return DecisionEvent(id="x", time=time, context={}, actions=("a",), chosen=0, propensity=1.0)
    >>> list(Retirements({"film": 5.0}).parts([decided(3.0), decided(4.0), decided(6.0)], 0, 3))
    [([], 0, 2), (['film'], 2, 3)]
    """

    def __init__(self, times: Mapping[str, float]) -> None:
        self._times = dict(times)
        self._reset(-math.inf)

    def _reset(self, learned_to: float) -> None:
        self._learned_to = learned_to
        waiting = ((time, arm) for arm, time in self._times.items() if time > learned_to)
        self._waiting = sorted(waiting, reverse=True)  # the next one last

    def parts(
        self, decisions: Sequence[DecisionEvent], start: int, stop: int
    ) -> Iterator[tuple[list[str], int, int]]:
        """Cut decisions, in order of their time, wherever arms retire.

        Yields
        ------
        arms : list of str
            What is to be retired before this part.
        low, high : int
            The part; none is empty, and together they are ``start … stop``.
        """
        low = start
        while low < stop:
            arms = []
            while self._waiting and self._waiting[-1][0] <= decisions[low].time:
                arms.append(self._waiting.pop()[1])
            high = stop
            if self._waiting:
                high = bisect_left(decisions, self._waiting[-1][0], low, stop, key=lambda event: event.time)
            self._learned_to = decisions[high - 1].time
            yield arms, low, high
            low = high

    def state(self) -> State:
        """Who has retired, and up to which decision it is decided."""
        gone = {arm: time for arm, time in sorted(self._times.items()) if time <= self._learned_to}
        return {"retired": json.dumps(gone), "learned_to": self._learned_to}

    def restore(self, state: State) -> None:
        """Go on from what `state` was taken from; who retires later may have changed since.

        Raises
        ------
        StoreError
            If the times given now would have made the state another one.
        """
        gone = json.loads(str(state["retired"]))
        learned_to = float(state["learned_to"])  # type: ignore[arg-type]
        for arm, time in gone.items():
            if self._times.get(arm) != time:
                raise StoreError(
                    f"`retired.{arm}`: was retired as of {_written(time)}, and what was forgotten cannot "
                    "come back: undo the change, or move the checkpoint away to learn from the beginning"
                )
        for arm, time in self._times.items():
            if arm not in gone and time <= learned_to:
                raise StoreError(
                    f"`retired.{arm}`: {_written(time)} is too early, as decisions up to "
                    f"{_written(learned_to)} have been learned: give a later time, "
                    "or move the checkpoint away to learn from the beginning"
                )
        self._reset(learned_to)


def _written(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(time)
