"""Decisions meet their rewards: labelled decisions in the order in which they were made.

Rewards come late, early, twice or never, and how late they come depends on what they are: clicks come
soon, their absence is known only when the window has passed. Learning in the order in which labels become
known would see too many clicks first, and a sequential test fed in that order promotes falsely. So a
decision waits until nothing can change its label any more, and decisions are emitted in their own order.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.errors import BadRecord, StoreError
from penstock.feedback import DecisionEvent, RewardEvent, decision_of, plain
from penstock.state import State

__all__ = ["Aggregate", "Correction", "Joined", "Joiner"]

Aggregate: TypeAlias = Literal["first", "last", "sum", "mean", "min", "max"]
_Earned: TypeAlias = "tuple[float, float]"  # event time, value

_COUNTS: Final = (
    "decisions",  # taken
    "emitted",  # of them
    "dropped",  # without a reward, where there is no default
    "duplicate_decisions",
    "late_decisions",  # came when later ones had been emitted
    "defaulted",  # emitted without a reward
    "evicted",  # emitted, or dropped, before their time, for lack of room
    "rewards",  # taken
    "used",  # by the time their decision was emitted
    "duplicate_rewards",
    "outside_window",
    "late_rewards",  # came when their decision had been emitted
    "unknown_rewards",  # whose decision never came
    "evicted_rewards",  # waited for a decision that had not come, and lacked room
    "corrections",
    "forgotten",  # emitted decisions whose late rewards can no longer be told, for lack of room
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A late reward has changed the label of a decision that was emitted with another.

    Attributes
    ----------
    decision : DecisionEvent
    old : float or None
        What it was emitted with, or last corrected to; None if it was dropped for want of a reward.
    new : float
    after : int
        How many of the decisions that were emitted by the same call came before it: where it belongs in the
        order of learning, however the events are cut into calls.
    """

    decision: DecisionEvent
    old: float | None
    new: float
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What became certain.

    Attributes
    ----------
    decisions : list of DecisionEvent, length n
        In decision order: none is older than one that was emitted before.
    rewards : float64, shape (n,)
    defaulted : bool, shape (n,)
        Whether the reward is the default, because none came.
    corrections : list of Correction
        In the order in which the late rewards came.
    """

    decisions: list[DecisionEvent]
    rewards: NDArray[np.float64]
    defaulted: NDArray[np.bool_]
    corrections: list[Correction]

    def __len__(self) -> int:
        return len(self.decisions)


class _Entry:
    """A decision that waits, or has been emitted and is remembered."""

    __slots__ = ("emitted", "event", "id", "label", "rewards", "time")

    def __init__(self, event: DecisionEvent) -> None:
        self.id = event.id
        self.time = event.time
        self.event: DecisionEvent | None = event  # None once it is remembered by name only
        self.rewards: dict[str | int, _Earned] | None = None
        self.emitted = False
        self.label: float | None = None  # of one that is emitted; None if it was dropped


class _Output:
    def __init__(self) -> None:
        self.decisions: list[DecisionEvent] = []
        self.rewards: list[float] = []
        self.defaulted: list[bool] = []
        self.corrections: list[Correction] = []

    def joined(self) -> Joined:
        return Joined(
            decisions=self.decisions,
            rewards=np.array(self.rewards, dtype=np.float64),
            defaulted=np.array(self.defaulted, dtype=np.bool_),
            corrections=self.corrections,
        )


class Joiner:
    """Joins decisions with their rewards in event time, within bounded memory.

    The *watermark* is the newest event time seen, minus `lateness_s`, minus `window_s`: no reward that
    counts can still come for a decision before it, if nothing comes later than `lateness_s`. Such decisions
    are emitted, by time, and by arrival where times are equal. As long as nothing is later than that, the
    order of arrival changes nothing; how the events are cut into calls never does.

    A reward counts if its time is in ``[decision - lateness_s, decision + window_s]`` (the clocks of two
    machines may differ), whether it arrives before or after its decision. What cannot be used is counted,
    see `counts`, and never silently gone.

    Parameters
    ----------
    window_s : float
        Seconds after a decision within which rewards count.
    default_reward : float or None
        Of a decision that got none. None: it is dropped.
    aggregate : "first", "last", "sum", "mean", "min" or "max"
        What several rewards of a decision add up to. First and last by event time, where that is equal by
        value; sums are exact before they are rounded: the order of arrival plays no part in either.
    lateness_s : float
        Seconds by which an event may arrive after newer ones. Longer costs memory and delay.
    max_pending : int
        Room: as many decisions may wait, as many emitted ones be remembered, and as many rewards be held.
        If more wait, the oldest are emitted before their time, with the rewards that have come so far.
    late : "correct" or "count"
        What happens to a reward that counts but comes when its decision has been emitted: it gives a
        `Correction`, for statistics from which a reward can be taken back, or is only counted.
    memory_s : float, optional
        Seconds after their emission for which decisions are remembered, to recognise late rewards and
        repetitions; ``window_s + lateness_s`` where not given.

    Notes
    -----
    One event from the future moves the watermark there, and everything after it is late: convert units
    before. A decision that is delivered again is recognised by its id while it waits or is remembered, and
    is too late after that, so it is never learned twice. Contexts are not copied.

    Examples
    --------
    >>> def decided(id, time):
    ...     return DecisionEvent(id=id, time=time, context={}, actions=("a",), chosen=0, propensity=1.0)
    >>> joiner = Joiner(window_s=10.0)
    >>> events = [decided("x", 1.0), decided("y", 2.0), RewardEvent(id="y", time=3.0, value=1.0)]
    >>> len(joiner.take(events))  # rewards until 11.0 may still come for "x"
    0
    >>> joined = joiner.take([decided("z", 12.5)])
    >>> [d.id for d in joined.decisions], joined.rewards.tolist()
    (['x', 'y'], [0.0, 1.0])
    """

    def __init__(
        self,
        *,
        window_s: float,
        default_reward: float | None = 0.0,
        aggregate: Aggregate = "last",
        lateness_s: float = 0.0,
        max_pending: int = 1_000_000,
        late: Literal["correct", "count"] = "count",
        memory_s: float | None = None,
    ) -> None:
        if default_reward is not None and not math.isfinite(default_reward):
            raise ValueError(f"expected a finite default_reward or None, got {default_reward}")
        if aggregate not in _AGGREGATES:
            raise ValueError(f"expected aggregate to be one of {', '.join(_AGGREGATES)}, got {aggregate!r}")
        if late not in ("correct", "count"):
            raise ValueError(f"expected late to be 'correct' or 'count', got {late!r}")
        if max_pending < 1:
            raise ValueError(f"expected max_pending >= 1, got {max_pending}")
        memory_s = window_s + lateness_s if memory_s is None else memory_s
        for name, seconds in (("window_s", window_s), ("lateness_s", lateness_s), ("memory_s", memory_s)):
            if not 0.0 <= seconds < math.inf:
                raise ValueError(f"expected {name} >= 0 and finite, got {seconds}")
        self._window = window_s
        self._lateness = lateness_s
        self._slack = window_s + lateness_s
        self._memory_s = memory_s
        self._default = default_reward
        self._aggregate: Callable[[Collection[_Earned]], float] = _AGGREGATES[aggregate]
        self._corrects = late == "correct"
        self._max = max_pending
        self._reset()

    def _reset(self) -> None:
        self._newest = -math.inf  # event time
        self._last = -math.inf  # time of the decision emitted last
        self._arrivals = 0
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._known: dict[str, _Entry] = {}
        # What waits, in two queues of which each is in order: what came in order, which is nearly all of it,
        # needs no heap.
        self._queue: deque[tuple[float, int, _Entry]] = deque()
        self._stragglers: list[tuple[float, int, _Entry]] = []
        self._emitted: deque[_Entry] = deque()  # what is remembered, in order
        # Rewards whose decision has not come: with the number of their arrival.
        self._early: dict[str, dict[str | int, tuple[float, float, int]]] = {}
        self._early_order: list[tuple[float, int, str, str | int]] = []  # a heap; entries may be gone
        self._n_early = 0
        self._n_held = 0  # rewards, early ones too

    @property
    def watermark(self) -> float:
        """Event time up to which everything has been emitted; -inf before the first event."""
        return self._newest - self._slack

    @property
    def n_pending(self) -> int:
        """Decisions that wait."""
        return len(self._queue) + len(self._stragglers)

    @property
    def counts(self) -> dict[str, int]:
        """How often everything has happened that can happen to a decision or a reward.

        ``decisions = emitted + dropped + duplicate_decisions + late_decisions`` + those that wait, and
        ``rewards = used + duplicate_rewards + outside_window + late_rewards + unknown_rewards +
        evicted_rewards`` + those that wait.
        """
        return dict(self._counts)

    def take(self, events: Iterable[DecisionEvent | RewardEvent]) -> Joined:
        """Take events in their order of arrival; return what became certain by them."""
        output = _Output()
        for event in events:
            if type(event) is RewardEvent:
                self._take_reward(event, output)
            else:
                self._take_decision(event)  # type: ignore[arg-type]
            if event.time > self._newest:
                self._newest = event.time
                self._settle(output)
            if self._n_held > self._max or len(self._queue) + len(self._stragglers) > self._max:
                self._make_room(output)
        return output.joined()

    def flush(self) -> Joined:
        """Emit everything that waits, as at the end of a log."""
        output = _Output()
        while self.n_pending:
            self._emit(output)
        while self._n_early:
            self._drop_early("unknown_rewards")
        return output.joined()

    def _take_decision(self, event: DecisionEvent) -> None:
        self._counts["decisions"] += 1
        self._arrivals += 1
        if event.id in self._known:
            self._counts["duplicate_decisions"] += 1
            return
        if event.time < self._last or event.time < self._newest - self._slack:
            self._counts["late_decisions"] += 1
            return
        entry = self._known[event.id] = _Entry(event)
        item = (event.time, self._arrivals, entry)
        if not self._queue or self._queue[-1][0] <= event.time:
            self._queue.append(item)
        else:
            heapq.heappush(self._stragglers, item)
        early = self._early.pop(event.id, None)
        if early is not None:
            self._n_early -= len(early)
            counting = {
                key: (time, value) for key, (time, value, _) in early.items() if self._counts_for(entry, time)
            }
            self._counts["outside_window"] += len(early) - len(counting)
            self._n_held -= len(early) - len(counting)
            entry.rewards = counting or None

    def _take_reward(self, event: RewardEvent, output: _Output) -> None:
        self._counts["rewards"] += 1
        self._arrivals += 1
        key = self._arrivals if event.reward_id is None else event.reward_id
        entry = self._known.get(event.id)
        if entry is None:
            self._hold(event, key)
        elif not self._counts_for(entry, event.time):
            self._counts["outside_window"] += 1
        elif entry.rewards is not None and key in entry.rewards:
            self._counts["duplicate_rewards"] += 1
        elif not entry.emitted or self._corrects:
            if entry.rewards is None:
                entry.rewards = {}
            entry.rewards[key] = (event.time, event.value + 0.0)  # no -0.0, which equals 0.0 and is not it
            self._n_held += 1
            if entry.emitted:
                self._correct(entry, output)
        else:
            self._counts["late_rewards"] += 1

    def _counts_for(self, entry: _Entry, time: float) -> bool:
        return -self._lateness <= time - entry.time <= self._window

    def _correct(self, entry: _Entry, output: _Output) -> None:
        assert entry.event is not None
        assert entry.rewards is not None
        self._counts["late_rewards"] += 1
        label = self._aggregate(entry.rewards.values())
        if label != entry.label:
            self._counts["corrections"] += 1
            output.corrections.append(
                Correction(decision=entry.event, old=entry.label, new=label, after=len(output.decisions))
            )
            entry.label = label

    def _hold(self, event: RewardEvent, key: str | int) -> None:
        """Keep a reward whose decision may still come."""
        if event.time < self._newest - self._slack - self._lateness:
            self._counts["unknown_rewards"] += 1
            return
        early = self._early.setdefault(event.id, {})
        if key in early:
            self._counts["duplicate_rewards"] += 1
            return
        early[key] = (event.time, event.value + 0.0, self._arrivals)
        self._n_early += 1
        self._n_held += 1
        heapq.heappush(self._early_order, (event.time, self._arrivals, event.id, key))
        if len(self._early_order) > 2 * self._n_early + 64:  # mostly of decisions that have come since
            self._early_order = [item for item in self._early_order if self._is_early(item)]
            heapq.heapify(self._early_order)

    def _is_early(self, item: tuple[float, int, str, str | int]) -> bool:
        _, arrival, id_, key = item
        earned = self._early.get(id_, {}).get(key)
        return earned is not None and earned[2] == arrival

    def _drop_early(self, reason: str) -> None:
        """Drop the oldest reward whose decision has not come."""
        while not self._is_early(item := heapq.heappop(self._early_order)):
            pass
        _, _, id_, key = item
        early = self._early[id_]
        del early[key]
        if not early:
            del self._early[id_]
        self._n_early -= 1
        self._n_held -= 1
        self._counts[reason] += 1

    def _settle(self, output: _Output) -> None:
        """Emit, expire and forget what the watermark has passed."""
        watermark = self._newest - self._slack
        queue, stragglers = self._queue, self._stragglers
        while (queue and queue[0][0] < watermark) or (stragglers and stragglers[0][0] < watermark):
            self._emit(output)
        while self._n_early and self._early_order[0][0] < watermark - self._lateness:
            if self._is_early(self._early_order[0]):
                self._drop_early("unknown_rewards")
            else:
                heapq.heappop(self._early_order)
        while self._emitted and self._emitted[0].time < watermark - self._memory_s:
            self._forget()

    def _make_room(self, output: _Output) -> None:
        """Give up what is least likely to matter, until everything fits again."""
        while self.n_pending > self._max:
            self._counts["evicted"] += 1
            self._emit(output)
        while self._n_held > self._max:
            if self._corrects and self._emitted:
                self._counts["forgotten"] += 1
                self._forget()
            elif self._n_early:
                self._drop_early("evicted_rewards")
            else:
                self._counts["evicted"] += 1
                self._emit(output)

    def _emit(self, output: _Output) -> None:
        """Emit the oldest decision that waits."""
        queue, stragglers = self._queue, self._stragglers
        if not stragglers or (queue and queue[0] < stragglers[0]):
            time, _, entry = queue.popleft()
        else:
            time, _, entry = heapq.heappop(stragglers)
        event, rewards = entry.event, entry.rewards
        assert event is not None
        self._last = time
        if rewards is None:
            entry.label = self._default
        else:
            entry.label = self._aggregate(rewards.values())
            self._counts["used"] += len(rewards)
        if entry.label is None:
            self._counts["dropped"] += 1
        else:
            self._counts["emitted"] += 1
            self._counts["defaulted"] += rewards is None
            output.decisions.append(event)
            output.rewards.append(entry.label)
            output.defaulted.append(rewards is None)
        entry.emitted = True
        if not self._corrects:
            self._n_held -= 0 if rewards is None else len(rewards)
            entry.event = entry.rewards = None
        self._emitted.append(entry)
        if len(self._emitted) > self._max:
            self._counts["forgotten"] += 1
            self._forget()

    def _forget(self) -> None:
        entry = self._emitted.popleft()
        del self._known[entry.id]
        self._n_held -= 0 if entry.rewards is None else len(entry.rewards)

    def state(self) -> State:
        """Everything needed to go on in the middle of a window."""
        waiting = sorted([*self._queue, *self._stragglers])
        entries = [*(entry for _, _, entry in waiting), *self._emitted]
        held = [
            (owner, key, *earned)
            for owner, entry in enumerate(entries)
            if entry.rewards is not None
            for key, earned in sorted(entry.rewards.items(), key=_by_time)
        ]
        early = sorted(filter(self._is_early, self._early_order))
        return {
            "clock": np.array([self._newest, self._last]),
            "arrivals": self._arrivals,
            "counts": np.array([self._counts[name] for name in _COUNTS], np.int64),
            "waiting/arrivals": np.array([arrival for _, arrival, _ in waiting], np.int64),
            "known/records": _packed(map(_record, entries)),
            "known/labels": np.array(
                [math.nan if entry.label is None else entry.label for entry in self._emitted], np.float64
            ),
            "rewards/owners": np.array([owner for owner, *_ in held], np.int64),
            "rewards/keys": _packed([key for _, key, *_ in held]),
            "rewards/earned": np.array([earned for _, _, *earned in held], np.float64).reshape(-1, 2),
            "early/keys": _packed([item[2:] for item in early]),
            "early/arrivals": np.array([item[1] for item in early], np.int64),
            "early/earned": np.array(
                [self._early[id_][key][:2] for *_, id_, key in early], np.float64
            ).reshape(-1, 2),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from; the parameters are the constructor's.

        Raises
        ------
        StoreError
            If it is not the state of a joiner.
        """
        other = object.__new__(Joiner)
        other.__dict__.update(self.__dict__)
        other._reset()
        try:
            other._fill(state)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, BadRecord) as error:
            raise StoreError(f"not the state of a joiner: {type(error).__name__}: {error}") from error
        self.__dict__.update(other.__dict__)

    def _fill(self, state: Mapping[str, Any]) -> None:
        self._newest, self._last = state["clock"].tolist()
        self._arrivals = int(state["arrivals"])
        self._counts = dict(zip(_COUNTS, state["counts"].tolist(), strict=True))
        entries = [_entry(record) for record in _unpacked(state["known/records"])]
        arrivals = state["waiting/arrivals"].tolist()
        n_waiting = len(arrivals)
        for arrival, entry in zip(arrivals, entries[:n_waiting], strict=True):
            self._queue.append((entry.time, arrival, entry))
        for label, entry in zip(state["known/labels"].tolist(), entries[n_waiting:], strict=True):
            entry.emitted = True
            entry.label = None if math.isnan(label) else label
            self._emitted.append(entry)
        self._known = {entry.id: entry for entry in entries}
        for owner, key, earned in zip(
            state["rewards/owners"].tolist(),
            _unpacked(state["rewards/keys"]),
            state["rewards/earned"].tolist(),
            strict=True,
        ):
            rewards = entries[owner].rewards = entries[owner].rewards or {}
            rewards[key] = (earned[0], earned[1])
            self._n_held += 1
        for (id_, key), arrival, earned in zip(
            _unpacked(state["early/keys"]),
            state["early/arrivals"].tolist(),
            state["early/earned"].tolist(),
            strict=True,
        ):
            self._early.setdefault(id_, {})[key] = (earned[0], earned[1], arrival)
            self._early_order.append((earned[0], arrival, id_, key))
            self._n_held += 1
            self._n_early += 1


def _by_time(reward: tuple[str | int, _Earned]) -> tuple[_Earned, str]:
    """Order of the rewards of a decision in a state: how they came to lie in memory must not show."""
    key, earned = reward
    return earned, str(key)


def _first(rewards: Collection[_Earned]) -> float:
    return min(rewards)[1]


def _last(rewards: Collection[_Earned]) -> float:
    return max(rewards)[1]


def _smallest(rewards: Collection[_Earned]) -> float:
    return min(value for _, value in rewards)


def _largest(rewards: Collection[_Earned]) -> float:
    return max(value for _, value in rewards)


def _sum(rewards: Collection[_Earned]) -> float:
    try:
        return math.fsum(value for _, value in rewards)
    except OverflowError:  # it may have been on the way only
        return _rounded(sum(Fraction(value) for _, value in rewards))


def _mean(rewards: Collection[_Earned]) -> float:
    try:
        return math.fsum(value for _, value in rewards) / len(rewards)
    except OverflowError:
        return _rounded(sum(Fraction(value) for _, value in rewards) / Fraction(len(rewards)))


def _rounded(exact: Fraction | int) -> float:
    """Return the nearest finite float."""
    try:
        return float(exact)
    except OverflowError:
        return sys.float_info.max if exact > 0 else -sys.float_info.max


_AGGREGATES: Final[Mapping[str, Callable[[Collection[_Earned]], float]]] = {
    "first": _first,
    "last": _last,
    "sum": _sum,
    "mean": _mean,
    "min": _smallest,
    "max": _largest,
}


def _record(entry: _Entry) -> Any:
    return [entry.id, entry.time] if entry.event is None else entry.event.record()


def _entry(record: Any) -> _Entry:
    if isinstance(record, dict):
        return _Entry(decision_of(record))
    entry = object.__new__(_Entry)
    entry.id, entry.time = record
    entry.event = entry.rewards = None
    return entry


def _packed(values: Iterable[Any]) -> NDArray[np.uint8]:
    """Write a JSON array, one value after the other: so many objects at once keep the collector busy."""
    try:
        packed = b",".join([orjson.dumps(value, default=plain) for value in values])
    except TypeError as error:
        raise StoreError(f"a decision that waits cannot be kept: {error}") from error
    return np.frombuffer(b"[" + packed + b"]", np.uint8)


def _unpacked(data: NDArray[np.uint8]) -> Any:
    return orjson.loads(data.tobytes())
