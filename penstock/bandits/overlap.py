"""On which logged decisions policies can be compared: where each of them may take only what the log might."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.bandits.terms import weight_limit
from penstock.decisions import Logged
from penstock.state import State

__all__ = ["Overlap"]

_ROUNDING: Final = 1e-6  # of propensities: logs keep them as float32, or in six decimals
_MISSES: Final = 7.0  # times that an action is expected; that it never comes has then probability 0.001


class Overlap:
    """Tells the decisions that say nothing about what else might have been done.

    A log holds the probability of what was taken, and none of the others. That is enough for two verdicts,
    which depend on no policy, and on what was drawn only where there is nothing to choose from:

    - A decision made with probability 1 supports no other action: nobody can be compared on it. Nor can
      anybody on one that offers an action which the log, as far as is known, never takes.
    - One whose propensity p is below 1 / max_weight, or leaves less than 1 / max_weight for each of the other
      actions, breaks the bound of a comparison, whose verdict is then void.

    Parameters
    ----------
    max_weight : float
        No action has a logged probability below 1 / max_weight.

    Examples
    --------
    >>> from penstock.decisions import Offers
    >>> log = Logged(
    ...     offers=Offers.from_rows([{}] * 3, [["news", "sport"]] * 3),
    ...     chosen=np.zeros(3, np.int64),
    ...     propensities=np.array([0.5, 0.98, 1.0]),
    ...     rewards=np.ones(3),
    ...     weights=np.ones(3),
    ... )
    >>> overlap = Overlap(20.0)
    >>> overlap.comparable(log), overlap.is_broken
    (array([ True,  True, False]), True)
    """

    def __init__(self, max_weight: float) -> None:
        self.max_weight: Final = max_weight
        self.is_broken = False  # whether a decision of this tick was too improbable for the bound
        self.n_left_out = 0  # decisions of this tick that nobody can be compared on
        self.missing: frozenset[str] = frozenset()  # offered, and never taken, when this tick began
        self.retired: frozenset[str] = frozenset()  # no policy takes them any more
        self.is_told = False  # whether it has been said that nothing can be compared

    def comparable(self, logged: Logged) -> NDArray[np.bool_]:
        """Take decisions, in order; say which of them policies can be compared on, shape (n,)."""
        if not len(logged):
            return np.ones(0, np.bool_)
        propensities = logged.propensities
        others = self._others(logged)
        comparable = ~((propensities > 1.0 - _ROUNDING) & (others > 0))
        if self.missing:
            absent = self._marked(logged, self.missing)
            comparable &= ~np.logical_or.reduceat(absent, logged.offers.starts[:-1])
        improbable = propensities * weight_limit(self.max_weight) < 1.0
        improbable |= (1.0 - propensities + _ROUNDING) * self.max_weight < others
        self.is_broken |= bool((improbable & comparable & (logged.weights > 0.0)).any())
        self.n_left_out += int(np.count_nonzero(~comparable))
        return comparable

    @property
    def hopeless(self) -> float:
        """How often chance would have taken an action that, if it is never taken, has too little probability.

        Chance takes at most one of two, and a probability of 1 / max_weight needs that many offers.
        """
        return _MISSES * self.max_weight / 2.0

    def end_tick(self, missing: frozenset[str], *, is_told: bool) -> None:
        """Begin the next tick, knowing what the log has never taken so far."""
        self.missing = missing
        self.is_told = is_told
        self.is_broken = False
        self.n_left_out = 0

    def _others(self, logged: Logged) -> NDArray[np.int64]:
        """How many actions there were beside the one taken; those that have retired are none."""
        sizes = np.diff(logged.offers.starts)
        if not self.retired:
            return sizes - 1
        gone = self._marked(logged, self.retired)
        offered = sizes - np.add.reduceat(gone.astype(np.int64), logged.offers.starts[:-1])
        return offered - ~gone[logged.entries]

    @staticmethod
    def _marked(logged: Logged, arms: Collection[str]) -> NDArray[np.bool_]:
        offered = logged.offers.arms.tolist()
        return np.fromiter((arm in arms for arm in offered), np.bool_, len(offered))

    def state(self) -> State:
        """Everything it knows; nothing where every action has been likely enough."""
        state: State = {}
        for name in ("missing", "retired"):
            if arms := getattr(self, name):
                state[name] = json.dumps(sorted(arms))
        if self.n_left_out:
            state["n_left_out"] = self.n_left_out
        if self.is_told:
            state["is_told"] = True
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        self.missing = frozenset(json.loads(str(state.get("missing", "[]"))))
        self.retired = frozenset(json.loads(str(state.get("retired", "[]"))))
        self.n_left_out = int(state.get("n_left_out", 0))  # type: ignore[arg-type]
        self.is_told = bool(state.get("is_told", False))
