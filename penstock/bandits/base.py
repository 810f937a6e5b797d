"""The two protocols of everything that chooses: `Policy` (learns) and `FrozenPolicy` (serves)."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock._native.tally import are_distributions
from penstock.decisions import Logged, Offers
from penstock.state import State

__all__ = ["Corrects", "FrozenPolicy", "Policy", "Retires", "exact"]

_SUM_TOLERANCE = 1e-9
_STRICTER = 1e-10  # a sum taken in another order than numpy does, and within this, is within that too


@runtime_checkable
class FrozenPolicy(Protocol):
    """An immutable policy: what is compared in shadow, stored in a snapshot, and decides."""

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Distribution over the offered actions of every event, one after the other, shape (m,)."""
        ...

    def state(self) -> State:
        """Everything that ``Policy.load`` needs, for a snapshot."""
        ...


@runtime_checkable
class Policy(Protocol):
    """Chooses among actions and learns from what they earned. Owned by the engine.

    Built with ``Class(seed=…, **parameters)``; the annotations of its constructor are its schema. However a
    log is cut, the state after it is the same, to the bit. All chance comes from the seed and the keys of
    the decisions, so that a distribution can be recomputed from (state, key).
    """

    def probabilities(self, offers: Offers) -> NDArray[np.float64]:
        """Return the exact distribution that is to be sampled and logged, shape (m,). Changes nothing.

        The entries of an event are >= 0 and sum to 1 (see `exact`).
        """
        ...

    def learn(self, logged: Logged) -> None:
        """Learn every decision, in order; those of weight 0 change nothing."""
        ...

    def progress(self, logged: Logged) -> NDArray[np.float64]:
        """For each decision in order: give the distribution, then learn it. Returns shape (m,)."""
        ...

    def freeze(self) -> FrozenPolicy:
        """Return a policy of what is known now, that later learning does not touch."""
        ...

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened; shares no memory with the policy."""
        ...

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        ...

    @staticmethod
    def load(state: dict[str, Any]) -> FrozenPolicy:
        """Rebuild a frozen policy from `FrozenPolicy.state`; arrays may be read-only memory maps."""
        ...


@runtime_checkable
class Corrects(Protocol):
    """What a policy may also do: exchange the reward of a decision that it has learned already."""

    @property
    def corrects(self) -> bool:
        """Whether `correct` is exact now; it depends on parameters, and on what has been forgotten."""
        ...

    def correct(self, logged: Logged, old: NDArray[np.float64], new: NDArray[np.float64]) -> None:
        """Become what the policy would be had it learned `new` and not `old`, but for rounding.

        Parameters
        ----------
        logged : Logged
            Decisions learned before, n of them; their rewards play no part.
        old, new : float64, shape (n,)
        """
        ...


@runtime_checkable
class Retires(Protocol):
    """What a policy that keeps something of every arm may also do."""

    def retire(self, arm: str) -> None:
        """Never choose `arm` again, and forget what it earned."""
        ...


def exact(probabilities: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Check distributions and return them: what does not sum to 1 does not leave the engine.

    What rounding put above 1 is 1.

    Parameters
    ----------
    probabilities : float64, shape (m,)
    starts : int64, shape (n + 1,)
        As in `Offers`.

    Raises
    ------
    ArithmeticError
        Names the first event whose entries are not a distribution.

    Examples
    --------
    >>> exact(np.array([0.25, 0.75, 1.0]), np.array([0, 2, 3]))
    array([0.25, 0.75, 1.  ])
    """
    probabilities = np.ascontiguousarray(probabilities, np.float64)
    if are_distributions(probabilities, starts, _STRICTER):
        return probabilities
    sums = np.add.reduceat(probabilities, starts[:-1]) if len(starts) > 1 else np.empty(0)
    wrong = ~(np.abs(sums - 1.0) <= _SUM_TOLERANCE)
    negative = ~(probabilities >= 0.0)
    if negative.any():
        wrong[np.searchsorted(starts, np.flatnonzero(negative), side="right") - 1] = True
    if wrong.any():
        event = int(np.argmax(wrong))
        entries = probabilities[starts[event] : starts[event + 1]]
        raise ArithmeticError(f"not a distribution: event {event} has {entries[:8]}, sum {entries.sum()!r}")
    return np.minimum(probabilities, 1.0)
