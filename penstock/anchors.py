"""What of the past is still known: events set aside from each stretch of the stream, and asked about later.

An anchor is never learned, by nobody, so how well a learner does on it does not flatter. Sets of anchors
are kept for a number of *strata*, stretches of the stream of equal length. When there are too many, every
second set is dropped and the stretches to come are twice as long: they cover the stream's whole life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock.events import Batch
from penstock.state import State, prefixed, section

__all__ = ["Anchors", "Score"]

Score: TypeAlias = "Callable[[Batch], Mapping[str, float]]"
"""From events to how well each learner predicts them now, in [0, 1]: higher is better."""

_SCATTER: Final = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio


@dataclass(slots=True)
class _Stratum:
    """One stretch of the stream: its anchors, and each learner's first, best and newest score on them."""

    first: int  # event it began with
    events: Batch
    scores: dict[str, tuple[float, float, float]] = field(default_factory=dict)


class Anchors:
    """Sets events aside, stratum by stratum, and measures what is forgotten of each.

    Of every block of ``every // size`` events one is set aside, at a place that differs from block to
    block, so that no rhythm of the stream decides what is asked.

    Parameters
    ----------
    strata : int
        Sets of anchors kept at most.
    size : int
        Events in each.
    every : int
        Events of a stratum.

    References
    ----------
    Lopez-Paz and Ranzato (2017), Gradient episodic memory for continual learning, NeurIPS: backward transfer.
    Chaudhry, Dokania, Ajanthan and Torr (2018), Riemannian walk for incremental learning, ECCV: forgetting.
    """

    def __init__(self, *, strata: int, size: int, every: int) -> None:
        self.strata = strata
        self.size = size
        self.every = every
        self._start = 0  # event that the open stratum began with
        self._open: list[Batch] = []
        self._closed: list[_Stratum] = []

    def aside(self, first: int, n: int) -> NDArray[np.bool_]:
        """Which of `n` events from the `first` (from 0) on are not to be learned; all of one stratum."""
        places = np.arange(first - self._start, first - self._start + n, dtype=np.uint64)
        width = np.uint64(self.every // self.size)
        blocks = places // width
        scattered = (blocks + np.uint64(self._start)) * np.uint64(_SCATTER) >> np.uint64(33)
        return np.asarray((places % width == scattered % width) & (blocks < self.size))

    def put(self, events: Batch) -> None:
        """Keep events that were set aside."""
        if len(events):
            self._open.append(events)

    def end_tick(self, event: int, score: Score) -> None:
        """Close the stratum if it ends here, and ask about all of them."""
        if event < self._start + self.every:
            return
        if self._open:
            self._closed.append(_Stratum(self._start, Batch.concat(self._open)))
        self._start, self._open = event, []
        if len(self._closed) > self.strata:
            self._closed = self._closed[::2]
            self.every *= 2
        for stratum in self._closed:
            for name, now in score(stratum.events).items():
                first, best, newest = stratum.scores.get(name, (now, now, now))
                stratum.scores[name] = (first, max(best, newest), now)

    @property
    def sets(self) -> list[tuple[int, Batch]]:
        """The event that each closed stratum began with, and its anchors."""
        return [(stratum.first, stratum.events) for stratum in self._closed]

    @property
    def newest(self) -> dict[int, dict[str, float]]:
        """The newest score of each learner on each closed stratum, by the event that it began with."""
        return {
            stratum.first: {name: newest for name, (_, _, newest) in stratum.scores.items()}
            for stratum in self._closed
        }

    def measure(self, score: Score) -> dict[str, dict[str, Any]]:
        """Compare what is known now of each stratum with what was known earlier.

        Returns
        -------
        dict
            For each learner, over the strata but for the newest: ``backward_transfer``, the mean of the
            score now minus that at the stratum's end; ``average_forgetting``, the mean of the best score so
            far minus that now; and ``strata``, the numbers of each. Empty with fewer than two strata.
        """
        found: dict[str, dict[str, Any]] = {}
        for stratum in self._closed[:-1]:
            for name, now in score(stratum.events).items():
                if name in stratum.scores:
                    first, best, newest = stratum.scores[name]
                    one = {"from": stratum.first, "first": first, "best": max(best, newest), "now": now}
                    found.setdefault(name, {"strata": []})["strata"].append(one)
        for numbers in found.values():
            strata = numbers["strata"]
            numbers["backward_transfer"] = sum(one["now"] - one["first"] for one in strata) / len(strata)
            numbers["average_forgetting"] = sum(one["best"] - one["now"] for one in strata) / len(strata)
        return found

    def state(self) -> State:
        """Everything it knows, anchors included."""
        state: State = {"every": self.every, "start": self._start}
        if self._open:
            state |= prefixed(Batch.concat(self._open).state(), "open")
        for i, stratum in enumerate(self._closed):
            state[f"closed/{i}/first"] = stratum.first
            state |= prefixed(stratum.events.state(), f"closed/{i}/events")
            for name, scores in stratum.scores.items():
                state[f"closed/{i}/scores/{name}"] = np.array(scores)
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        self.every, self._start = int(state["every"]), int(state["start"])  # type: ignore[arg-type]
        kept = section(state, "open")
        self._open = [Batch.from_state(kept)] if kept else []
        self._closed = []
        while one := section(state, f"closed/{len(self._closed)}"):
            scores: Mapping[str, Any] = section(one, "scores")
            self._closed.append(
                _Stratum(
                    int(one["first"]),  # type: ignore[arg-type]
                    Batch.from_state(section(one, "events")),
                    {name: tuple(values.tolist()) for name, values in scores.items()},
                )
            )
