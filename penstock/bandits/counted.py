"""Policies without context: the sums they keep of every arm, live (`Counted`) and frozen (`FrozenCounts`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.tally import RULES, STATS, TOTALS, Tally
from penstock.bandits.arms import ArmPolicy, Outcomes, Roster, Slots, required_json
from penstock.bandits.base import exact
from penstock.decisions import Logged, Offers
from penstock.errors import ConfigError, StoreError
from penstock.learners.sgd_model import required_array
from penstock.state import State

__all__ = ["Counted", "FrozenCounts"]

_SAMPLED: Final = ("beta", "gaussian")  # rules that draw
_LAST: Final = STATS.index("last")
_TOTAL: Final = STATS.index("total")
_CLIPPED: Final = TOTALS.index("clipped")
_PATHS: Final = ("exp3", "exp3s", "tsallis_inf")  # rules whose scores are not sums of rewards
_LARGEST: Final = 1e18  # of a reward and a weight, as the kernel has it


class _Counts:
    """A rule, and what it knows of every arm."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)
        self.kernel = Tally(**self.settings)
        self.roster = Roster()
        self.stats = np.zeros((2, len(STATS)))
        self.totals = np.zeros(len(TOTALS))
        window = self.settings["window"]
        self.ring_slots = np.full(window, -1, np.int64)
        self.ring_values = np.zeros((window, 2))

    def run(self, offers: Offers, logged: Logged | None, out: NDArray[np.float64] | None) -> None:
        found = Slots(self.roster, offers, draws=self.settings["rule"] in _SAMPLED)
        outcomes = Outcomes(logged) if logged else None
        self.kernel.run(
            self.stats,
            self.totals,
            self.ring_slots,
            self.ring_values,
            offers.starts,
            found.slots,
            np.zeros(len(found.slots), np.uint64) if found.hashes is None else found.hashes,
            offers.keys,
            outcomes.chosen if outcomes else None,
            outcomes.propensities if outcomes else None,
            outcomes.rewards if outcomes else None,
            outcomes.weights if outcomes else None,
            out,
        )

    def copy(self) -> _Counts:
        twin = _Counts.__new__(_Counts)
        twin.settings, twin.kernel = self.settings, self.kernel
        twin.roster = self.roster.copy()
        twin.stats, twin.totals = self.stats.copy(), self.totals.copy()
        twin.ring_slots, twin.ring_values = self.ring_slots, self.ring_values
        return twin

    def state(self) -> State:
        return {
            **self.roster.state(),
            "settings": json.dumps(self.settings),
            "stats": self.stats[1 : len(self.roster) + 1].copy(),
            "totals": self.totals.copy(),
        }

    def fill(self, state: Mapping[str, Any]) -> None:
        roster = Roster.from_state(state)
        n = len(roster)
        rows = required_array(state, "stats", np.float64, (n, len(STATS)), what="policy state")
        totals = required_array(state, "totals", np.float64, (len(TOTALS),), what="policy state")
        if not (np.isfinite(rows).all() and np.isfinite(totals).all()):
            raise StoreError("policy state: stats and totals must be finite")
        cursor = totals[TOTALS.index("cursor")]
        if not (0 <= cursor < max(self.settings["window"], 1) and cursor % 1 == 0):
            raise StoreError(f"policy state: cursor must lie within the window, got {cursor}")
        self.roster = roster
        self.stats = np.concatenate((np.zeros((1, len(STATS))), rows))
        self.totals = totals.copy()


class FrozenCounts:
    """What a policy without context knew when it was frozen. Threads may share one."""

    def __init__(self, counts: _Counts) -> None:
        self._counts = counts

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Distribution over the offered actions of every event, one after the other, shape (m,)."""
        out = np.empty(len(offers.arms))
        self._counts.run(offers, None, out)
        return exact(out, offers.starts)

    def state(self) -> State:
        """Everything that `from_state` needs, for a snapshot."""
        return self._counts.state()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FrozenCounts:
        """Rebuild what `state` wrote.

        Raises
        ------
        StoreError
            If it is not the state of such a policy; names the entry.
        """
        settings = required_json(state, "settings")
        if not isinstance(settings, dict) or settings.get("rule") not in RULES:
            raise StoreError("policy state: settings name no rule")
        try:
            counts = _Counts(settings)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StoreError(f"policy state: settings cannot be used: {error!r}") from None
        counts.fill(state)
        return cls(counts)


class Counted(ArmPolicy):
    """A policy without context: children say which rule, and with what.

    Parameters
    ----------
    seed : int
    rule : str
        One of ``penstock._native.tally.RULES``.
    max_arms : int
    low, high : float
        Range of the rewards; what lies outside is cut to it and counted. Equal where there is none.
    settings
        As `penstock._native.tally.Tally` has them.

    Raises
    ------
    ConfigError
        If `low` is not below `high`, or there is both a discount and a window.
    """

    def __init__(
        self,
        rule: str,
        *,
        seed: int,
        max_arms: int,
        low: float | None = None,
        high: float | None = None,
        discount: float = 1.0,
        window: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(max_arms)
        if low is not None and high is not None and not low < high:
            raise ConfigError(f"high: expected a number > low ({low}), got {high}")
        if window is not None and discount < 1.0:
            raise ConfigError(f"window: has no meaning with a discount ({discount}), got {window}")
        self._counts = _Counts(
            {
                "rule": rule,
                "seed": seed,
                "low": low or 0.0,
                "high": high or 0.0,
                "discount": discount,
                "window": window or 0,
                **settings,
            }
        )

    @property
    def corrects(self) -> bool:
        """Whether `correct` is exact: sums of rewards, all of one age, and none of them forgotten."""
        settings = self._counts.settings
        return (
            settings["rule"] not in _PATHS
            and settings["discount"] == 1.0
            and not settings["window"]
            and not self._roster.evicted
        )

    def correct(self, logged: Logged, old: NDArray[np.float64], new: NDArray[np.float64]) -> None:
        """Become what the policy would be had it learned `new` and not `old`, but for rounding.

        Parameters
        ----------
        logged : Logged
            Decisions learned before, n of them; their rewards play no part.
        old, new : float64, shape (n,)

        Raises
        ------
        ValueError
            If the policy does not sum rewards, or has forgotten some; see `corrects`.
        """
        if not self.corrects:
            raise ValueError("only undiscounted sums, none of them forgotten, can be corrected")
        counts = self._counts
        low, high = counts.settings["low"], counts.settings["high"]
        arms = logged.offers.arms[logged.entries]
        for arm, weight, was, now in zip(arms, logged.weights, old, new, strict=True):
            slot = self._roster.index.get(arm, 0)
            if slot < 1 or not weight > 0.0:  # it was not learned, or its arm has been retired
                continue
            if high > low:
                counts.totals[_CLIPPED] += float(not low <= now <= high) - float(not low <= was <= high)
                change = (min(max(now, low), high) - min(max(was, low), high)) / (high - low)
            else:
                change = min(max(now, -_LARGEST), _LARGEST) - min(max(was, -_LARGEST), _LARGEST)
            counts.stats[slot, _TOTAL] += min(weight, _LARGEST) * change

    def freeze(self) -> FrozenCounts:
        """Return a policy of what is known now, that later learning does not touch."""
        return FrozenCounts(self._counts.copy())

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened; shares no memory with the policy.

        =========== ================= ============================================================
        arms        str               names, as JSON, in the order of the rows
        retired     str               names, as JSON
        evicted     int               arms that had to make room
        settings    str               as JSON; must be equal to be restored
        stats       float64 (K, 4)    columns as in ``penstock._native.tally.STATS``
        totals      float64 (4,)      as in ``penstock._native.tally.TOTALS``
        ring_slots  int64 (window,)   row + 1 of the arm of each event in the window, or less
        ring_values float64 (window, 2) its weight and reward
        =========== ================= ============================================================
        """
        counts = self._counts
        return {
            **counts.state(),
            "ring_slots": counts.ring_slots.copy(),
            "ring_values": counts.ring_values.copy(),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of a policy with the same parameters; nothing has changed then.
        """
        counts = self._counts
        window = counts.settings["window"]
        if required_json(state, "settings") != json.loads(json.dumps(counts.settings)):
            raise StoreError(f"policy state: expected settings {counts.settings}, got {state['settings']!r}")
        ring_slots = required_array(state, "ring_slots", np.int64, (window,), what="policy state")
        ring_values = required_array(state, "ring_values", np.float64, (window, 2), what="policy state")
        n_arms = len(Roster.from_state(state))
        if ((ring_slots < -1) | (ring_slots > n_arms)).any() or not np.isfinite(ring_values).all():
            raise StoreError("policy state: the window holds an event of no arm")
        counts.fill(state)
        counts.ring_slots = ring_slots.copy()
        counts.ring_values = ring_values.copy()

    @staticmethod
    def load(state: dict[str, Any]) -> FrozenCounts:
        """Rebuild a frozen policy from its state; arrays may be read-only memory maps.

        Raises
        ------
        StoreError
            If it is not the state of such a policy.
        """
        return FrozenCounts.from_state(state)

    @property
    def _roster(self) -> Roster:
        return self._counts.roster

    def _decide(self, offers: Offers, out: NDArray[np.float64]) -> None:
        self._counts.run(offers, None, out)

    def _advance(self, logged: Logged, out: NDArray[np.float64] | None) -> None:
        self._counts.run(logged.offers, logged, out)

    def _reserve(self, n_arms: int) -> None:
        counts = self._counts
        if n_arms + 1 > len(counts.stats):
            grown = np.zeros((2 * (n_arms + 1), len(STATS)))
            grown[: len(counts.stats)] = counts.stats
            counts.stats = grown

    def _oldest(self) -> int:
        return int(np.argmin(self._counts.stats[1 : self._max_arms + 1, _LAST])) + 1

    def _forget(self, slot: int) -> None:
        self._counts.stats[slot] = 0.0
        self._counts.ring_slots[self._counts.ring_slots == slot] = -1

    def _remove(self, slot: int) -> None:
        counts = self._counts
        self._forget(slot)
        counts.stats = np.delete(counts.stats, slot, axis=0)
        counts.ring_slots[counts.ring_slots > slot] -= 1
