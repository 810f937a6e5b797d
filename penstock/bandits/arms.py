"""Which arm sits in which slot of a policy's tables, and the policy that is made of such tables."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.tally import look_up
from penstock.bandits.base import exact
from penstock.decisions import Logged, Offers
from penstock.errors import StoreError
from penstock.state import State

__all__ = ["ArmPolicy", "Outcomes", "Roster", "Slots", "required_count", "required_json"]

_RETIRED: Final = -1


class Slots:
    """The slot of every arm in some offers, and if it is to draw, the hash of its name."""

    __slots__ = ("hashes", "slots")

    def __init__(self, roster: Roster, offers: Offers, *, draws: bool) -> None:
        m = len(offers.arms)
        self.hashes = np.empty(m, np.uint64) if draws else None
        if roster.index or draws:
            self.slots = np.empty(m, np.int64)
            look_up(roster.index, offers.arms.tolist(), self.slots, self.hashes)
        else:
            self.slots = np.zeros(m, np.int64)


class Outcomes:
    """What was chosen and what came of it, as kernels want it."""

    __slots__ = ("chosen", "propensities", "rewards", "weights")

    def __init__(self, logged: Logged) -> None:
        self.chosen = np.ascontiguousarray(logged.chosen, np.int64)
        self.propensities = np.ascontiguousarray(logged.propensities, np.float64)
        self.rewards = np.ascontiguousarray(logged.rewards, np.float64)
        self.weights = np.ascontiguousarray(logged.weights, np.float64)


class Roster:
    """Arms by name. Slot 0 is nobody's: it stands for every arm that was never played.

    Attributes
    ----------
    names : list of str
        The arm of slot s is ``names[s - 1]``; in order of their first reward.
    index : dict
        Slot of each name; -1 for a retired one.
    evicted : int
        How many arms had to make room for others.
    """

    __slots__ = ("evicted", "index", "names")

    def __init__(self, names: Iterable[str] = (), retired: Iterable[str] = (), evicted: int = 0) -> None:
        self.names = list(names)
        self.index = {name: slot for slot, name in enumerate(self.names, 1)} | dict.fromkeys(
            retired, _RETIRED
        )
        self.evicted = evicted

    def __len__(self) -> int:
        return len(self.names)

    @property
    def retired(self) -> tuple[str, ...]:
        """Names of the arms that are not to be chosen any more, sorted."""
        return tuple(sorted(name for name, slot in self.index.items() if slot == _RETIRED))

    def add(self, name: str) -> int:
        """Give a new arm the next slot, and return it."""
        self.names.append(name)
        self.index[name] = len(self.names)
        return len(self.names)

    def replace(self, slot: int, name: str) -> None:
        """Give the slot of one arm to a new one."""
        del self.index[self.names[slot - 1]]
        self.names[slot - 1] = name
        self.index[name] = slot
        self.evicted += 1

    def retire(self, name: str) -> int:
        """Mark an arm; later slots move down by one. Returns the slot it had, or 0 if it had none."""
        slot = self.index.get(name, 0)
        self.index[name] = _RETIRED
        if slot > 0:
            del self.names[slot - 1]
            self.index.update((later, s) for s, later in enumerate(self.names[slot - 1 :], slot))
        return max(slot, 0)

    def copy(self) -> Roster:
        """Return a roster that shares nothing with this one."""
        return Roster(self.names, self.retired, self.evicted)

    def state(self) -> State:
        """Return the names, as JSON, and the count."""
        return {
            "arms": json.dumps(self.names),
            "retired": json.dumps(self.retired),
            "evicted": self.evicted,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Roster:
        """Rebuild what `state` wrote.

        Raises
        ------
        StoreError
            If the names are not different strings, or the count is none.
        """
        arms, retired = required_json(state, "arms"), required_json(state, "retired")
        for what, names in (("arms", arms), ("retired", retired)):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise StoreError(f"policy state: {what} must be a list of names")
        if len({*arms, *retired}) != len(arms) + len(retired):
            raise StoreError("policy state: an arm is named twice")
        return cls(arms, retired, required_count(state, "evicted"))


def required_json(state: Mapping[str, Any], name: str) -> Any:
    """Return what the JSON text `name` of a state says.

    Raises
    ------
    StoreError
        If there is none, or it is not JSON.
    """
    try:
        return json.loads(state[name])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"policy state: {name} cannot be read: {error!r}") from None


def required_count(state: Mapping[str, Any], name: str) -> int:
    """Return the count `name` of a state.

    Raises
    ------
    StoreError
        If it is missing, or not an integer >= 0.
    """
    value = state.get(name)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise StoreError(f"policy state: {name} must be a count, got {value!r}")
    return value


class ArmPolicy(ABC):
    """A policy that keeps something of every arm it has played, in a table with a row an arm.

    An arm takes a row with its first reward; before that it is what the prior says, and takes no memory.
    Past `max_arms` the arm whose last reward is longest ago makes room. A retired arm has probability 0 and
    learns nothing more; only where nothing but retired arms is offered, they count as new ones.

    Parameters
    ----------
    max_arms : int
    """

    def __init__(self, max_arms: int) -> None:
        self._max_arms = max_arms

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Return the exact distribution that is to be sampled and logged, shape (m,). Changes nothing."""
        out = np.empty(len(offers.arms))
        self._decide(offers, out)
        return exact(out, offers.starts)

    def learn(self, logged: Logged) -> None:
        """Learn every decision, in order; those of weight 0, and those of retired arms, change nothing."""
        self._run(logged, None)

    def progress(self, logged: Logged) -> NDArray[np.float64]:
        """For each decision in order: give the distribution, then learn it. Returns shape (m,)."""
        out = np.empty(len(logged.offers.arms))
        self._run(logged, out)
        return exact(out, logged.offers.starts)

    def retire(self, arm: str) -> None:
        """Never choose `arm` again, and forget what it earned.

        Examples
        --------
        >>> from penstock.bandits import build
        >>> policy = build("uniform")
        >>> policy.retire("news")
        >>> policy.probabilities(Offers.from_rows([{}], [["news", "sport"]]))
        array([0., 1.])
        """
        slot = self._roster.retire(arm)
        if slot:
            self._remove(slot)

    @property
    def retired(self) -> tuple[str, ...]:
        """Names of the retired arms, sorted."""
        return self._roster.retired

    @property
    @abstractmethod
    def _roster(self) -> Roster: ...

    @abstractmethod
    def _decide(self, offers: Offers, out: NDArray[np.float64]) -> None:
        """Write the distribution of every event."""

    @abstractmethod
    def _advance(self, logged: Logged, out: NDArray[np.float64] | None) -> None:
        """Learn every event, and write its distribution before it was learned; all arms have a slot."""

    @abstractmethod
    def _reserve(self, n_arms: int) -> None:
        """Make room for so many arms; new rows are at the prior."""

    @abstractmethod
    def _oldest(self) -> int:
        """Slot of the arm whose last reward is longest ago."""

    @abstractmethod
    def _forget(self, slot: int) -> None:
        """Set a row back to the prior."""

    @abstractmethod
    def _remove(self, slot: int) -> None:
        """Take a row out; those behind it move up."""

    def _run(self, logged: Logged, out: NDArray[np.float64] | None) -> None:
        """Learn every event, up to the next eviction at a time, and give the distributions before."""
        start, n = 0, len(logged)
        while start < n:
            stop = self._admit(logged, start)
            evicts = stop == start
            if evicts:
                stop += 1
            part = logged if stop - start == n else logged.slice(start, stop)
            low, high = logged.offers.starts[start], logged.offers.starts[stop]
            ours = None if out is None else out[low:high]
            if evicts:  # the event is decided by what was known before
                if ours is not None:
                    self._decide(part.offers, ours)
                slot = self._oldest()
                self._roster.replace(slot, part.offers.arms[part.chosen[0]])
                self._forget(slot)
                self._advance(part, None)
            else:
                self._advance(part, ours)
            start = stop

    def _admit(self, logged: Logged, start: int) -> int:
        """Give arms played from `start` on their slots; return the event for which one must be evicted."""
        roster, n = self._roster, len(logged)
        entries = logged.offers.starts[start:-1] + logged.chosen[start:]
        arms = logged.offers.arms[entries].tolist()
        if roster.index.keys() >= set(arms):
            return n
        stop = n
        for i in np.flatnonzero(logged.weights[start:] > 0.0).tolist():
            arm = arms[i]
            if arm in roster.index:
                continue
            if len(roster) == self._max_arms:
                stop = start + i
                break
            roster.add(arm)
        self._reserve(len(roster))
        return stop
