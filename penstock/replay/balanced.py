"""As many events of each class, however rare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.replay import Classes
from penstock.errors import PenstockError
from penstock.events import Batch
from penstock.replay.held import Held, MaxBytes, Seed, Size
from penstock.state import State

__all__ = ["Balanced"]

_MAX_CLASSES: Final = 65536


class Balanced(Held):
    """A uniform sample of each class; classes share the room as evenly as the stream allows.

    Once there is no room, an event of a class that was never a largest one takes the place of a random
    event of a largest class; one of any other class takes a place in its class's sample with the
    probability that keeps that sample uniform.

    Parameters
    ----------
    size : int
        Events held at most.
    correct_prior : bool
        Weigh what is drawn by the share that its class has of everything offered, over its share of what is
        held: replay then does not shift the predicted frequencies of classes, and rare or past classes
        count as little as they did in the stream.
    max_bytes : int, optional
        What they may take together; see `penstock.replay.held.Held`.
    seed : int

    References
    ----------
    Chrysakis and Moens (2020), Online continual learning from imbalanced data, ICML.

    Examples
    --------
    >>> buffer = Balanced(size=20, seed=0)
    >>> rare = (np.arange(1000) % 50 == 0).astype(float)
    >>> buffer.offer(Batch.from_rows([{"x": i} for i in range(1000)], rare))
    >>> int(buffer.contents().labels.sum())
    10
    """

    kind: ClassVar[str] = "class-balanced reservoir"
    needs_classes: ClassVar[bool] = True

    def __init__(
        self,
        *,
        size: Size = 5000,
        correct_prior: bool = False,
        max_bytes: MaxBytes = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(size, max_bytes, seed)
        self.correct_prior = correct_prior
        self._slots = np.empty(size, np.int64)  # number of the event in each
        self._costs = np.empty(size, np.int64)
        self._classes = Classes(size, self._limit)

    def _numbers(self) -> NDArray[np.int64]:
        return self._slots[: self._classes.n_held]

    def _keep(self, batch: Batch, costs: NDArray[np.int64]) -> NDArray[np.int64]:
        labels = _class_numbers(batch.labels)
        kept = np.empty(len(labels), np.int64)
        n_kept = self._classes.offer(
            self._keeping, self._n_offered, labels, costs, self._slots, self._costs, kept
        )
        return kept[:n_kept]

    def sample(self, n: int) -> Batch | None:
        """Draw `n` different events in random order, as likely one as another; None if there are none."""
        batch = super().sample(n)
        if batch is None or not self.correct_prior:
            return batch
        _, classes = self._classes.dump()
        seen = np.array([seen for seen, _, _ in classes], np.float64)
        held = np.array([len(slots) for _, _, slots in classes], np.float64)
        shares = seen / seen.sum() / np.maximum(held / held.sum(), 1.0 / self.size)
        return replace(batch, weights=batch.weights * shares[batch.labels.astype(np.int64)])

    def _start_from(self, numbers: NDArray[np.int64]) -> None:
        """Go on as if what is left were all that was ever offered."""
        labels = _class_numbers(self._store.labels)
        slots = [np.flatnonzero(labels == c).tolist() for c in range(int(labels.max(initial=-1)) + 1)]
        self._load(numbers, len(numbers) == self.size, [(len(of), False, of) for of in slots])

    def _load(self, numbers: NDArray[np.int64], filled: bool, classes: list[Any]) -> None:
        self._slots, self._costs = np.empty(self.size, np.int64), np.empty(self.size, np.int64)
        self._slots[: len(numbers)] = numbers
        self._costs[: len(numbers)] = self._store.costs()[self._store.positions(numbers)]
        self._classes = Classes(self.size, self._limit)
        self._classes.load(filled, classes, self._costs[: len(numbers)])

    def _rest_of_state(self) -> State:
        filled, classes = self._classes.dump()
        return {
            "filled": filled,
            "seen": np.array([seen for seen, _, _ in classes], np.int64),
            "full": np.array([full for _, full, _ in classes], np.bool_),
            "held": np.array([len(slots) for _, _, slots in classes], np.int64),
            "slots": np.array([slot for _, _, slots in classes for slot in slots], np.int64),
        }

    def _resume(self, numbers: NDArray[np.int64], state: Any) -> None:
        held, slots = np.array(state["held"], np.int64), np.array(state["slots"], np.int64)
        if (held < 0).any() or held.sum() != len(slots):
            raise ValueError("its classes do not share out its slots")
        of_class = [part.tolist() for part in np.split(slots, np.cumsum(held)[:-1])] if len(held) else []
        seen, full = state["seen"].tolist(), state["full"].tolist()
        self._load(numbers, bool(state["filled"]), list(zip(seen, full, of_class, strict=True)))
        labels = self._store.labels[self._store.positions(numbers)]
        if any((labels[of] != c).any() for c, of in enumerate(of_class)):
            raise ValueError("an event is held in the slot of another class")


def _class_numbers(labels: NDArray[np.float64]) -> NDArray[np.int64]:
    numbers = np.zeros(len(labels), np.int64)
    usable = (labels >= 0.0) & (labels < _MAX_CLASSES)
    numbers[usable] = labels[usable]
    wrong = np.flatnonzero(numbers != labels)
    if len(wrong):
        raise PenstockError(
            f"a class-balanced buffer needs classes numbered from 0 to {_MAX_CLASSES - 1}, got the label "
            f"{labels[wrong[0]]}"
        )
    return numbers
