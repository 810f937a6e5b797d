"""What every learner has to beat: the average so far, and the last label seen.

Labels of a stream are often autocorrelated, and then a learner that only repeats the last label looks
good. Both baselines are shown beside every learner so that nobody is fooled (Bifet et al. 2013, "Pitfalls
in benchmarking data stream classification and how to avoid them", ECML PKDD).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from penstock._native.baselines import average, of_ones, repeats
from penstock.events import Batch, Row, Task, TaskKind
from penstock.learners.labels import classes_in, learnable
from penstock.state import State

__all__ = ["ConstantModel", "NoChange", "Prior"]

_LEAST_SURE: Final = 0.51  # of the no-change baseline: less would be the prediction of a change


class ConstantModel:
    """A frozen baseline: the same prediction for every event.

    Parameters
    ----------
    prediction : float, or float64 of shape (K,)
        Copied.
    """

    def __init__(self, prediction: float | NDArray[np.float64]) -> None:
        self._prediction = np.array(prediction, dtype=np.float64)
        self._prediction.setflags(write=False)

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event of `batch`; shape (n,), or (n, K) for multiclass."""
        return np.tile(self._prediction, (len(batch), *[1] * self._prediction.ndim))

    def predict_one(self, row: Row) -> NDArray[np.float64] | float:
        """Predict one dict, whatever is in it."""
        return self._prediction.copy() if self._prediction.ndim else float(self._prediction)

    def state(self) -> State:
        """Everything that ``load`` of the learner needs."""
        return {"prediction": self._prediction.copy()}


class _Baseline(ABC):
    """What the baselines share: a prediction that does not look at the features."""

    reads_rows: ClassVar[bool] = False

    def __init__(self, task: Task, *, seed: int = 0) -> None:
        self._task = task
        self._kind: TaskKind = task.kind
        self._n_classes = 0  # seen with a weight, multiclass only

    @abstractmethod
    def _now(self) -> float | NDArray[np.float64]:
        """Return the prediction for the next event."""

    @abstractmethod
    def _run(
        self, labels: NDArray[np.float64], weights: NDArray[np.float64], n_classes: int
    ) -> NDArray[np.float64]:
        """Learn every event; return the prediction before each, over `n_classes` if multiclass."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Predict every event with what is known now. Changes nothing."""
        return self.freeze().predict(batch)

    def learn(self, batch: Batch) -> None:
        """Learn every event, in order."""
        self.progress(batch)

    def progress(self, batch: Batch) -> NDArray[np.float64]:
        """For each event in order: predict it, then learn it. Returns the predictions.

        Raises
        ------
        BadRecord
            If a label or a weight cannot be learned from; nothing of the batch has been learned then.
        """
        labels, weights = learnable(self._task, batch)
        n_classes = 0
        if self._kind == "multiclass":
            learned, present = classes_in(labels, weights)
            n_classes = max(self._n_classes, present)
            self._n_classes = max(self._n_classes, learned)
        return self._run(labels, weights, n_classes)

    def freeze(self) -> ConstantModel:
        """Return a model of what is known now, that later learning does not touch."""
        return ConstantModel(self._now())

    @staticmethod
    def load(state: dict[str, Any]) -> ConstantModel:
        """Rebuild a frozen model from its state."""
        return ConstantModel(state["prediction"])


class Prior(_Baseline):
    """Predicts the average of the labels seen so far, each counted with its weight.

    A binary prediction is ``(sum + 1/2) / (weight + 1)``, the estimator of Krichevsky and Trofimov (1981),
    which starts at 0.5 and is never sure; a class's probability is its share of the weight, 0 before it was
    seen; a regression's prediction is the weighted mean, 0 before the first label.

    Parameters
    ----------
    task : Task
    seed : int
        Not used: nothing here is random.

    Examples
    --------
    >>> prior = Prior(Task("binary"))
    >>> prior.progress(Batch.from_rows([{}, {}, {}], [1.0, 0.0, 0.0])).round(3).tolist()
    [0.5, 0.75, 0.5]
    """

    def __init__(self, task: Task, *, seed: int = 0) -> None:
        super().__init__(task, seed=seed)
        binary = task.kind == "binary"
        self._weight = 1.0 if binary else 0.0
        # The weight of each class, or of one column: the sum of weight * label.
        self._sums = np.full(0 if task.kind == "multiclass" else 1, 0.5 if binary else 0.0)

    def _now(self) -> float | NDArray[np.float64]:
        if self._kind == "multiclass":
            return self._sums / self._weight if self._weight > 0 else np.zeros(len(self._sums))
        return float(self._sums[0]) / self._weight if self._weight > 0 else 0.0

    def _run(
        self, labels: NDArray[np.float64], weights: NDArray[np.float64], n_classes: int
    ) -> NDArray[np.float64]:
        if self._kind != "multiclass":
            before = np.empty(len(labels))
            total, self._weight = average(labels, weights, float(self._sums[0]), self._weight, before)
            self._sums = np.array([total])
            return before
        # np.cumsum adds one after the other, from the sums so far: the same bits as event by event.
        weight = np.cumsum(np.concatenate(([self._weight], weights)))
        sums = np.zeros((len(labels) + 1, n_classes))
        sums[0, : len(self._sums)] = self._sums
        sums[np.arange(1, len(sums)), labels.astype(np.int64)] = weights
        np.cumsum(sums, axis=0, out=sums)

        shares = np.zeros((len(labels), n_classes))
        np.divide(sums[:-1], weight[:-1, np.newaxis], out=shares, where=weight[:-1, np.newaxis] > 0)
        self._weight = float(weight[-1])
        self._sums = sums[-1, : self._n_classes].copy()
        return shares

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        return {"weight": self._weight, "sums": self._sums.copy()}

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        self._weight = float(state["weight"])  # type: ignore[arg-type]
        self._sums = np.array(state["sums"], dtype=np.float64)
        self._n_classes = len(self._sums) if self._kind == "multiclass" else 0


class NoChange(_Baseline):
    """Predicts that the last label comes again.

    Where labels are classes, with the probability with which they did come again so far: of n chances r,
    ``(r + 1/2) / (n + 1)``, but not less than 0.51, for then it would predict a change; the rest is shared by
    the other classes. Before the first label: 0.5 for a binary task, zeros for a multiclass one, 0 for a
    regression. A label with weight 0 does not count as seen; other weights do not matter.

    Parameters
    ----------
    task : Task
    seed : int
        Not used: nothing here is random.

    Examples
    --------
    >>> no_change = NoChange(Task("regression"))
    >>> no_change.progress(Batch.from_rows([{}, {}, {}], [3.5, 2.0, 7.0])).tolist()
    [0.0, 3.5, 2.0]
    >>> NoChange(Task("binary")).progress(Batch.from_rows([{}, {}, {}], [1.0, 1.0, 0.0])).tolist()
    [0.5, 0.51, 0.75]
    """

    def __init__(self, task: Task, *, seed: int = 0) -> None:
        super().__init__(task, seed=seed)
        self._last: float | None = None
        self._n_chances = 0  # labels seen that had one before them
        self._n_repeats = 0
        self._seen = np.zeros(0, dtype=bool)  # multiclass: of each class, whether it was

    def _now(self) -> float | NDArray[np.float64]:
        silent = np.zeros(1)  # one event that teaches nothing: its prediction is the one for now
        before = self._run(silent, silent, self._n_classes)[0]
        return before if self._kind == "multiclass" else float(before)

    def _run(
        self, labels: NDArray[np.float64], weights: NDArray[np.float64], n_classes: int
    ) -> NDArray[np.float64]:
        before, share = np.empty(len(labels)), np.empty(len(labels))
        last = np.nan if self._last is None else self._last
        last, self._n_chances, self._n_repeats = repeats(
            labels, weights, last, self._n_chances, self._n_repeats, before, share
        )
        self._last = None if math.isnan(last) else last

        if self._kind == "binary":
            of_ones(before, share, _LEAST_SURE, before)
            return before
        known = ~np.isnan(before)
        if self._kind == "regression":
            return np.where(known, before, 0.0)
        sure = np.maximum(share, _LEAST_SURE)
        return self._shared(sure, before, known, labels, weights, n_classes)

    def _shared(
        self,
        sure: NDArray[np.float64],
        last: NDArray[np.float64],
        known: NDArray[np.bool_],
        labels: NDArray[np.float64],
        weights: NDArray[np.float64],
        n_classes: int,
    ) -> NDArray[np.float64]:
        """Give the last class its probability, and the other classes seen before each event the rest."""
        seen = np.zeros((len(labels) + 1, n_classes), dtype=bool)
        seen[0, : len(self._seen)] = self._seen
        learned = np.flatnonzero(weights > 0)
        seen[learned + 1, labels[learned].astype(np.int64)] = True
        np.logical_or.accumulate(seen, axis=0, out=seen)
        self._seen = seen[-1, : self._n_classes].copy()
        n_seen = seen[:-1].sum(axis=1)
        rest = np.divide(1.0 - sure, n_seen - 1, out=np.zeros(len(sure)), where=n_seen > 1)
        predictions: NDArray[np.float64] = seen[:-1] * rest[:, np.newaxis]
        events = np.flatnonzero(known)
        predictions[events, last[events].astype(np.int64)] = np.where(n_seen > 1, sure, 1.0)[events]
        return predictions

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        return {
            "last": self._last,
            "n_chances": self._n_chances,
            "n_repeats": self._n_repeats,
            "seen": self._seen.copy(),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from."""
        last = state["last"]
        self._last = None if last is None else float(last)  # type: ignore[arg-type]
        self._n_chances = int(state["n_chances"])  # type: ignore[arg-type]
        self._n_repeats = int(state["n_repeats"])  # type: ignore[arg-type]
        self._seen = np.array(state["seen"], dtype=bool)
        self._n_classes = len(self._seen)
