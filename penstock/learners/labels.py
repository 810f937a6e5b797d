"""Which labels and weights can be learned from, and the classes that they make."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.linear import first_bad_label
from penstock.errors import BadRecord
from penstock.events import Batch, Task

__all__ = ["Sighted", "classes_in", "learnable"]

_SLACK: Final = 1e-9  # how far probabilities may add up beside 1 by rounding
_FLOAT64_MAX: Final = float(np.finfo(np.float64).max)
_MAX_CLASSES: Final = 1 << 16  # more are a mistake: numbers or identifiers taken for classes

# Per task: lowest and highest label, whether it must be whole, and how to say so.
_ACCEPTED: Final = {
    "binary": (0.0, 1.0, True, "0 or 1 as label"),
    "multiclass": (0.0, _MAX_CLASSES - 1.0, True, f"a class number 0..{_MAX_CLASSES - 1} as label"),
    "regression": (-_FLOAT64_MAX, _FLOAT64_MAX, False, "a finite number as label"),
}


def learnable(task: Task, batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return labels and weights of `batch`, both float64 of shape (n,), if all can be learned from.

    Raises
    ------
    BadRecord
        Names the first label that `task` does not have, or weight that is not finite and >= 0.

    Examples
    --------
    >>> learnable(Task("binary"), Batch.from_rows([{}, {}], [1.0, 2.0]))
    Traceback (most recent call last):
    ...
    penstock.errors.BadRecord: expected 0 or 1 as label, got 2.0 - at `$.label`, event 1 of the batch
    """
    low, high, whole, expected = _ACCEPTED[task.kind]
    labels = np.ascontiguousarray(batch.labels, dtype=np.float64)
    weights = np.ascontiguousarray(batch.weights, dtype=np.float64)
    bad = first_bad_label(labels, weights, low, high, whole)
    if bad >= 0:
        position = f"event {bad} of the batch" if len(labels) > 1 else ""
        weight = float(weights[bad])
        if not (weight >= 0 and math.isfinite(weight)):
            raise BadRecord("a finite weight >= 0", weight, path="$.weight", position=position)
        raise BadRecord(expected, float(labels[bad]), path="$.label", position=position)
    return labels, weights


def classes_in(labels: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[int, int]:
    """How many classes the labels have that carry a weight, and how many there are in all.

    Only the former are learned; a prediction has room for the latter too.

    Examples
    --------
    >>> classes_in(np.array([0.0, 1.0, 4.0]), np.array([1.0, 2.0, 0.0]))
    (2, 5)
    """
    if not len(labels):
        return 0, 0
    return int(labels.max(where=weights > 0, initial=-1.0)) + 1, int(labels.max()) + 1


class Sighted:
    """The classes that carried a weight so far: no other has a probability.

    Parameters
    ----------
    numbers : iterable of int
        Those sighted already, as `state` returned them.

    Examples
    --------
    >>> classes = Sighted([0, 2])
    >>> len(classes), classes.distribution({0: 3.0, 1: 5.0, 2: 1.0}.items(), 3)
    (3, array([0.75, 0.  , 0.25]))
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._numbers = set(map(int, numbers))
        self._n_classes = max(self._numbers, default=-1) + 1

    def __len__(self) -> int:
        """One more than the highest number sighted."""
        return self._n_classes

    def add(self, number: int) -> None:
        """Sight a class."""
        if number not in self._numbers:
            self._numbers.add(number)
            self._n_classes = max(self._n_classes, number + 1)

    def distribution(self, scores: Iterable[tuple[Any, float]], width: int) -> NDArray[np.float64]:
        """Probabilities over `width` classes: the positive scores of sighted ones, divided by their sum.

        The same for all sighted ones if there is no such score, or one is not finite.
        """
        row = np.zeros(width)
        for number, score in scores:
            if number in self._numbers and not score <= 0.0:
                row[number] = score
        total = math.fsum(row)
        if not 0.0 < total < math.inf:  # also NaN
            row[list(self._numbers)] = 1.0 / max(len(self._numbers), 1)
        elif abs(total - 1.0) > _SLACK:
            row /= total
        return row

    def state(self) -> NDArray[np.int64]:
        """Return the numbers sighted, in order."""
        return np.array(sorted(self._numbers), dtype=np.int64)
