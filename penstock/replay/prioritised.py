"""What is predicted badly, more often."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from penstock._native.replay import pick, plant
from penstock.errors import ConfigError, PenstockError
from penstock.events import Batch
from penstock.replay.held import Held, MaxBytes, Seed, Size
from penstock.state import State

__all__ = ["Prioritised"]

_LEAST: Final = 1e-3  # is added to a loss, so that nothing has no chance
_CAPPED_AT: Final = 0.95  # what is worse than this quantile is as likely noise in the label
_UNKNOWN: Final = 1.0  # loss of an event until somebody has told it: the highest there is


class Prioritised(Held):
    """The newest `size` events, drawn in proportion to ``(loss + 0.001) ** alpha``.

    An event may be drawn more than once. Its weight makes up for how likely it was to be drawn:
    ``(N P) ** -beta``, over the largest such weight among what is drawn.

    Losses are cut at their 95 % quantile, as known when the buffer was last looked over: after each
    eighth of its size in new losses.

    Parameters
    ----------
    size : int
        Events held at most.
    alpha : float, 0..1
        0 draws all alike.
    beta : float, 0..1
        How far to make up for it when it starts; 1 is in full.
    anneal_over : int
        Events offered until beta has risen to 1.
    max_bytes : int, optional
        What they may take together; see `penstock.replay.held.Held`.
    seed : int

    References
    ----------
    Schaul, Quan, Antonoglou and Silver (2016), Prioritized experience replay, ICLR.

    Examples
    --------
    >>> buffer = Prioritised(size=100, beta=0.0, seed=0)
    >>> buffer.offer(Batch.from_rows([{"x": i} for i in range(100)], [float(i < 50) for i in range(100)]))
    >>> buffer.weigh(np.repeat([0.0, 0.9], 50))
    >>> float(buffer.sample(100).labels.mean()) < 0.05
    True
    """

    kind: ClassVar[str] = "prioritised buffer"

    def __init__(
        self,
        *,
        size: Size = 5000,
        alpha: Annotated[float, Ge(0), Le(1)] = 0.6,
        beta: Annotated[float, Ge(0), Le(1)] = 0.4,
        anneal_over: Annotated[int, Gt(0)] = 100_000,
        max_bytes: MaxBytes = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(size, max_bytes, seed)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name}: expected a number from 0 to 1, got {value!r}")
        if not isinstance(anneal_over, int) or anneal_over < 1:
            raise ConfigError(f"anneal_over: expected an integer of at least 1, got {anneal_over!r}")
        self.alpha = alpha
        self.beta = beta
        self.anneal_over = anneal_over
        self._capacity = 1 << (size - 1).bit_length()
        # A ring: the event that came in as the k-th that fitted is in slot k modulo the size.
        self._ring = np.empty(size, np.int64)
        self._costs = np.zeros(size, np.int64)
        self._losses = np.zeros(size)
        self._tree = np.zeros(2 * self._capacity)
        self._first = 0  # k of the oldest event held
        self._end = 0  # k of the next
        self._total = 0
        self._cap = 1.0
        self._n_weighed = 0  # losses since the cap was last looked at
        self._drawn = np.empty(0, np.int64)  # slots

    def _slots(self) -> NDArray[np.int64]:
        return np.arange(self._first, self._end) % self.size

    def _numbers(self) -> NDArray[np.int64]:
        return self._ring[self._slots()]

    def __len__(self) -> int:
        """Events held."""
        return self._end - self._first

    def _keep(self, batch: Batch, costs: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.max_bytes is None:
            return self._keep_newest(len(costs))
        kept = np.flatnonzero(costs <= self._limit)
        changed = []
        for place, cost in zip(kept.tolist(), costs[kept].tolist(), strict=True):
            while self._end - self._first == self.size or self._total + cost > self._limit:
                oldest = self._first % self.size
                self._total -= int(self._costs[oldest])
                self._losses[oldest] = -_LEAST  # no chance at all
                changed.append(oldest)
                self._first += 1
            slot = self._end % self.size
            self._ring[slot] = self._n_offered + place
            self._costs[slot] = cost
            self._losses[slot] = _UNKNOWN
            self._total += cost
            self._end += 1
            changed.append(slot)
        self._plant(np.array(changed, np.int64))
        return kept

    def _keep_newest(self, n: int) -> NDArray[np.int64]:
        """As `_keep` where events may be of any size."""
        places = np.arange(max(n - self.size, 0), n)
        slots = (self._end + places) % self.size
        self._ring[slots] = self._n_offered + places
        self._losses[slots] = _UNKNOWN
        self._end += n
        self._first = max(self._first, self._end - self.size)
        self._plant(slots)
        return places

    def _plant(self, slots: NDArray[np.int64]) -> None:
        priorities = (np.minimum(self._losses[slots], self._cap) + _LEAST) ** self.alpha
        priorities[self._losses[slots] < 0.0] = 0.0
        plant(self._tree, slots, priorities)

    def weigh(self, losses: NDArray[np.float64]) -> None:
        """Take the losses, in [0, 1], of the newest events offered, in stream order."""
        slots = np.arange(max(self._first, self._end - len(losses)), self._end) % self.size
        places = self._ring[slots] - (self._n_offered - len(losses))
        self._n_weighed += len(losses)
        self._put(slots[places >= 0], losses[places[places >= 0]])

    def reweigh(self, losses: NDArray[np.float64]) -> None:
        """Take the losses of the events that `sample` drew last, in their order."""
        if len(losses) != len(self._drawn):
            raise PenstockError(f"{len(self._drawn)} events were drawn, got {len(losses)} losses")
        self._n_weighed += len(losses)
        self._put(self._drawn, losses)

    def _put(self, slots: NDArray[np.int64], losses: NDArray[np.float64]) -> None:
        if not ((losses >= 0.0) & (losses <= 1.0)).all():
            raise PenstockError("a loss has to lie in [0, 1]")
        self._losses[slots] = losses
        self._plant(slots)

    def sample(self, n: int) -> Batch | None:
        """Draw `n` events (as many as there are, if fewer), one more than once maybe; None if there are none.

        Raises
        ------
        PenstockError
            If `n` is negative.
        """
        n = self._drawable(n, len(self))
        if not n:
            return None
        if self._n_weighed >= max(self.size // 8, 1):
            self._cut_anew()
        drawn = np.empty(n, np.int64)
        pick(self._sampling, self._tree, drawn)
        self._drawn = drawn
        chances = self._tree[self._capacity + drawn] / self._tree[1]
        beta = self.beta + (1.0 - self.beta) * min(self._n_offered / self.anneal_over, 1.0)
        weights = (len(self) * chances) ** -beta
        batch = self._store.take(self._store.positions(self._ring[drawn]))
        return replace(batch, weights=batch.weights * (weights / weights.max()))

    def _cut_anew(self) -> None:
        """Look over all losses: cut them at their quantile from here on."""
        slots = self._slots()
        losses, before = self._losses[slots], self._cap
        place = math.ceil(_CAPPED_AT * len(losses)) - 1
        self._cap = float(np.partition(losses, place)[place])
        self._n_weighed = 0
        self._plant(slots[losses > min(self._cap, before)])  # of all others the priority is what it was

    def _start_from(self, numbers: NDArray[np.int64]) -> None:
        """Drop the oldest: what is left is at the end of the ring."""
        gone = self._slots()[: len(self) - len(numbers)]
        self._losses[gone] = -_LEAST
        self._total -= int(self._costs[gone].sum())
        self._first = self._end - len(numbers)
        self._plant(gone)
        self._drawn = np.empty(0, np.int64)

    def _rest_of_state(self) -> State:
        slots = self._slots()
        return {
            "first": self._first % self.size,
            "losses": self._losses[slots],
            "cap": self._cap,
            "n_weighed": self._n_weighed,
            "drawn": (self._drawn - self._first) % self.size,
        }

    def _resume(self, numbers: NDArray[np.int64], state: Any) -> None:
        losses, drawn = np.array(state["losses"], np.float64), np.array(state["drawn"], np.int64)
        first, cap, n_weighed = int(state["first"]), float(state["cap"]), int(state["n_weighed"])
        if losses.shape != numbers.shape or not ((losses >= 0.0) & (losses <= 1.0)).all():
            raise ValueError("its losses do not lie in [0, 1], or are not as many as there are events")
        if (np.diff(numbers) <= 0).any():
            raise ValueError("its events are not in order")
        if not (0 <= first < self.size and 0.0 <= cap <= 1.0 and n_weighed >= 0):
            raise ValueError(f"it begins in slot {first}, with a cap of {cap}")
        if len(drawn) and not 0 <= int(drawn.min()) <= int(drawn.max()) < self.size:
            raise ValueError("it drew an event from outside")
        costs = self._store.costs()
        self._first, self._end, self._total = first, first + len(numbers), int(costs.sum())
        slots = self._slots()
        self._ring, self._costs = np.empty(self.size, np.int64), np.zeros(self.size, np.int64)
        self._losses, self._tree = np.zeros(self.size), np.zeros(2 * self._capacity)
        self._ring[slots], self._costs[slots], self._losses[slots] = numbers, costs, losses
        self._cap, self._n_weighed, self._drawn = cap, n_weighed, (drawn + first) % self.size
        self._plant(slots)
