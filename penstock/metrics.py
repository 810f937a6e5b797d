"""Prequential metrics: how good the predictions made so far were, overall, lately and in the last window.

Every prediction that is scored was made before its label was learned, so no hold-out set is needed.
Three views answer three questions: *cumulative* (was it worth it?), *window* (how is it on the last events,
exactly?) and *fading* (the same, smoothly).

References
----------
Gama, Sebastião and Rodrigues (2013), On evaluating stream learning algorithms, Machine Learning 90, 317-346.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import ArrayLike, NDArray

from penstock._native import metrics as native
from penstock.errors import BadRecord, ConfigError, StoreError
from penstock.events import Task, TaskKind
from penstock.state import State

__all__ = ["HIGHER_IS_BETTER", "PRIMARY", "LossKind", "Metrics", "bounded_losses"]

Floats: TypeAlias = NDArray[np.float64]
LossKind: TypeAlias = Literal["brier", "logloss", "error", "absolute"]

HIGHER_IS_BETTER: Final[Mapping[str, bool]] = {
    "logloss": False,
    "accuracy": True,
    "roc_auc": True,
    "kappa": True,
    "kappa_temporal": True,
    "f1": True,
    "brier": False,
    "ece": False,
    "mae": False,
    "rmse": False,
    "r2": True,
}
"""Direction of each metric that has one, in the order of tables; `calibration` is best at 0."""

PRIMARY: Final[Mapping[TaskKind, str]] = {"binary": "logloss", "multiclass": "accuracy", "regression": "mae"}
"""The one metric to show where there is room for one."""

_UNCERTAIN: Final = 1e-12  # a denominator this small is the rounding of zero
_LEAST_P: Final = 1e-3  # for bounded log loss: what is below loses everything
_EXPECTED: Final[Mapping[TaskKind, Mapping[int, str]]] = {
    "binary": {
        native.BAD_PREDICTION: "a probability",
        native.BAD_LABEL: "0 or 1",
        native.BAD_WEIGHT: "a finite number >= 0",
    },
    "multiclass": {
        native.BAD_PREDICTION: "probabilities",
        native.BAD_LABEL: "a class number below 1048576",
        native.BAD_WEIGHT: "a finite number >= 0",
    },
    "regression": {
        native.BAD_PREDICTION: "a finite number",
        native.BAD_LABEL: "a finite number",
        native.BAD_WEIGHT: "a finite number >= 0",
    },
}


class Metrics:
    """All metrics of one learner on one stream, in the three views.

    ============== ============================================================================== =========
    name           meaning (all sums are weighted)                                                 task
    ============== ============================================================================== =========
    logloss        mean -log p of the label, p clipped to [1e-15, 1 - 1e-15]                       b, m
    accuracy       share of labels that were the predicted class                                   b, m
    roc_auc        probability that a 1 was scored above a 0, ties counting half                   b
    kappa          (accuracy - chance) / (1 - chance): Cohen's, chance from the marginals          b, m
    kappa_temporal the same against predicting the label before; 0 is no better than no change     b, m
    f1             of class 1; multiclass: mean over the classes that were labels or predictions   b, m
    brier          mean squared error of p; multiclass: half the squared distance                  b, m
    ece            calibration error over 15 equal bins of the score                               b, m
    calibration    sum(score - hit) / sum(hit): calibration in the large, 0 is best                b, m
    mae, rmse, r2  of the estimate                                                                 r
    ============== ============================================================================== =========

    The class predicted is 1 where p >= 0.5 (binary), or the most probable one, the lowest of equals. A
    multiclass row of zeros is no answer: it counts as wrong in everything. The score is p (binary; a hit
    is the label 1) or the probability of the predicted class (a hit is that it was right). Expected
    calibration error is biased upward by chance: perfect probabilities show about 0.04 over 1 000
    events; `calibration` is not.

    AUC is exact in the window. Over the whole stream it comes from a histogram of 5 122 score bins, in
    each of which all scores count as ties, so it errs by at most half of sum(ones * zeros) over bins /
    (all ones * all zeros): below 0.002 for evenly spread scores, and in practice far less, since errors
    within a bin cancel.

    Parameters
    ----------
    task : Task
    window : int
        Events in the windowed view.
    fading : float, in (0, 1]
        In the fading view an event counts this much less than the next: ``S = l + fading * S``, over
        ``N = 1 + fading * N``. An effective window of 1 / (1 - fading). It has no AUC, and no F1 of many
        classes, whose mean would keep every class that was ever seen.

    Examples
    --------
    >>> metrics = Metrics(Task("binary"))
    >>> metrics.update(np.array([0.75, 0.25]), np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    >>> report = metrics.report()
    >>> report["accuracy"], report["window_brier"], round(report["logloss"], 4)
    (0.5, 0.3125, 0.837)
    """

    def __init__(
        self,
        task: Task,
        *,
        window: Annotated[int, Ge(1)] = 1000,
        fading: Annotated[float, Gt(0), Le(1)] = 0.999,
    ) -> None:
        if not isinstance(window, int) or window < 1:
            raise ConfigError(f"window: expected an integer of at least 1, got {window!r}")
        if not 0 < fading <= 1:
            raise ConfigError(f"fading: expected a number in (0, 1], got {fading!r}")
        self.task = task
        self.window = window
        self.fading = fading
        columns = native.NUMBER_COLUMNS if task.kind == "regression" else native.CLASS_COLUMNS
        self._n_events = 0
        self._ring = np.zeros((window, columns))
        self._sums = _no_sums(task)
        self._fading_sums = _no_sums(task)
        self._scores = np.zeros((2, native.AUC_BINS if task.kind == "binary" else 0))

    @property
    def n_events(self) -> int:
        """Events of positive weight scored so far."""
        return self._n_events

    @property
    def total_weight(self) -> float:
        """Sum of the weights scored so far."""
        regression = self.task.kind == "regression"
        return float(self._sums[native.NUMBER_TOTAL if regression else native.TOTAL])

    def update(self, predictions: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> None:
        """Score events, in stream order. Those of weight 0 are ignored.

        Parameters
        ----------
        predictions : float64, shaped as `Task` says
            A class never seen before may lie beyond the last column: its probability was 0.
        labels, weights : float64, shape (n,)

        Raises
        ------
        BadRecord
            Names the first prediction, label or weight that cannot be one; nothing has been scored then.
        """
        if self.task.kind == "binary":
            p, y, w = _columns(self.task, predictions, labels, weights)
            kept, at, what = native.score_binary(
                p,
                y,
                w,
                self._n_events,
                self._ring,
                self._sums,
                self._fading_sums,
                1.0 / self.fading,
                self._scores,
            )
            _require_usable(self.task, p, y, w, at, what)
            self._n_events += kept
            return
        previous = -1.0
        if self._n_events and self.task.kind != "regression":
            previous = float(self._ring[(self._n_events - 1) % self.window, native.LABEL])
        rows = _summarise(self.task, predictions, labels, weights, previous)
        self._sums = _grown(self.task, self._sums, rows)
        self._fading_sums = _grown(self.task, self._fading_sums, rows)
        _add(self.task, rows, self._sums)
        _add(self.task, rows, self._fading_sums, growth=1.0 / self.fading)
        native.remember(rows, self._ring, self._n_events)
        self._n_events += len(rows)

    def report(self) -> dict[str, float]:
        """All metrics that are defined yet: cumulative, ``window_`` and ``fading_`` ones."""
        start = self._n_events % self.window if self._n_events > self.window else 0
        older, newer = self._ring[start : self._n_events], self._ring[:start]
        window_sums = np.zeros_like(self._sums)
        window_sums[native.SCALE] = 1.0
        _add(self.task, older, window_sums)
        _add(self.task, newer, window_sums)

        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out below
            report = _read(self.task, self._sums)
            window = _read(self.task, window_sums)
            fading = _read(self.task, self._fading_sums)
            if self.task.kind == "binary":
                report["roc_auc"] = _auc(*self._scores)
                window["roc_auc"] = _exact_auc(np.concatenate((older, newer)))
        if self.task.kind == "multiclass":
            fading.pop("f1", None)
        report |= {f"window_{name}": value for name, value in window.items()}
        report |= {f"fading_{name}": value for name, value in fading.items()}
        return {name: value for name, value in report.items() if math.isfinite(value)}

    def state(self) -> State:
        """Everything needed to go on as if nothing had happened."""
        return {
            "n_events": self._n_events,
            "ring": self._ring.copy(),
            "sums": self._sums.copy(),
            "fading_sums": self._fading_sums.copy(),
            "scores": self._scores.copy(),
        }

    def restore(self, state: State) -> None:
        """Become what `state` was taken from.

        Raises
        ------
        StoreError
            If it is not the state of metrics of this task and window; nothing has changed then.
        """
        n_events = state.get("n_events")
        if not isinstance(n_events, int) or n_events < 0:
            raise StoreError(f"metrics state: expected n_events to be a count, got {n_events!r}")
        ring = _array(state, "ring", self._ring.shape)
        sums = _array(state, "sums", None if self.task.kind == "multiclass" else self._sums.shape)
        if sums.ndim != 1 or len(sums) < len(_no_sums(self.task)):
            raise StoreError(
                f"metrics state: sums of shape {sums.shape} are not those of a {self.task.kind} task"
            )
        fading_sums = _array(state, "fading_sums", sums.shape)
        scores = _array(state, "scores", self._scores.shape)
        self._n_events, self._ring, self._sums, self._fading_sums, self._scores = (
            n_events,
            ring,
            sums,
            fading_sums,
            scores,
        )


def bounded_losses(
    task: Task,
    predictions: ArrayLike,
    labels: ArrayLike,
    *,
    kind: LossKind | None = None,
    scale: float = 1.0,
) -> Floats:
    """Loss of each prediction, in [0, 1], for gates and drift detectors.

    Parameters
    ----------
    task : Task
    predictions : float64, shaped as `Task` says
    labels : float64, shape (n,)
    kind : "brier", "logloss", "error" or "absolute"
        brier is (p - y)², or half the squared distance of a multiclass row to the label's; logloss is
        -log p of the label over log 1000, p clipped to [0.001, 0.999]; error is 0 or 1, with the classes
        predicted as `Metrics` says. These are for classes; absolute, min(1, |y - p| / scale), is for
        numbers. Where not given: brier or absolute. A multiclass row of zeros loses 1.
    scale : float
        What a number may be off before all is lost.

    Returns
    -------
    float64, shape (n,)

    Raises
    ------
    BadRecord
        Names the first prediction or label that cannot be one.
    ConfigError
        If `kind` is not a loss for `task`, or `scale` is not positive.

    Examples
    --------
    >>> bounded_losses(Task("binary"), [0.5, 0.0], [1.0, 1.0])
    array([0.25, 1.  ])
    >>> bounded_losses(Task("regression"), [10.0, 3.0], [12.0, 30.0], scale=10.0)
    array([0.2, 1. ])
    """
    if kind is None:
        kind = "absolute" if task.kind == "regression" else "brier"
    accepted = ("absolute",) if task.kind == "regression" else ("brier", "logloss", "error")
    if kind not in accepted:
        raise ConfigError(f"loss of a {task.kind} task: expected {' or '.join(accepted)}, got {kind!r}")
    if not (scale > 0 and math.isfinite(scale)):
        raise ConfigError(f"scale: expected a positive number, got {scale!r}")
    losses: Floats
    if task.kind == "binary" and kind == "brier":  # what most ask for needs no row an event
        p, y, _ = _columns(task, predictions, labels)
        losses = np.empty(len(y))
        _, at, what = native.squared_losses(p, y, losses)
        if at >= 0:
            _require_usable(task, p, y, y, at, what)
        return losses
    rows = _summarise(task, predictions, labels, np.ones(np.shape(labels)), -1.0)
    if kind == "error":
        losses = (rows[:, native.PREDICTED] != rows[:, native.LABEL]).astype(np.float64)
    elif kind == "absolute":
        losses = np.abs(rows[:, native.NUMBER_ESTIMATE] - rows[:, native.NUMBER_LABEL]) / scale
    elif kind == "brier":
        losses = rows[:, native.BRIER].copy()  # above 1 where the probabilities of a row add up to more
    else:
        worst = -math.log(_LEAST_P)
        losses = np.maximum(rows[:, native.LOGLOSS], -math.log1p(-_LEAST_P)) / worst
        losses[rows[:, native.PREDICTED] < 0] = 1.0
    return np.minimum(losses, 1.0, order="C")


def _summarise(
    task: Task, predictions: ArrayLike, labels: ArrayLike, weights: ArrayLike, previous: float
) -> Floats:
    """One row an event of positive weight, columns as in the kernel."""
    p, y, w = _columns(task, predictions, labels, weights)
    if task.kind == "regression":
        rows = np.empty((len(y), native.NUMBER_COLUMNS))
        kept, at, what = native.summarise_numbers(p, y, w, rows)
    else:
        rows = np.empty((len(y), native.CLASS_COLUMNS))
        summarise = native.summarise_binary if task.kind == "binary" else native.summarise_multiclass
        kept, at, what = summarise(p, y, w, previous, rows)
    _require_usable(task, p, y, w, at, what)
    return rows[:kept]


def _columns(
    task: Task, predictions: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> tuple[Floats, Floats, Floats]:
    """Return what fits together; labels twice where nothing has a weight."""
    p = np.ascontiguousarray(predictions, dtype=np.float64)
    y = np.ascontiguousarray(labels, dtype=np.float64)
    w = y if weights is None else np.ascontiguousarray(weights, dtype=np.float64)
    shape = (len(y), p.shape[1]) if task.kind == "multiclass" and p.ndim == 2 else y.shape
    if y.ndim != 1 or w.shape != y.shape or p.shape != shape or (task.kind == "multiclass" and p.ndim != 2):
        columns = "(n, K)" if task.kind == "multiclass" else "(n,)"
        raise BadRecord(
            f"predictions {columns}, labels (n,) and weights (n,)", (p.shape, y.shape, w.shape), path="shapes"
        )
    return p, y, w


def _require_usable(task: Task, p: Floats, y: Floats, w: Floats, at: int, what: int) -> None:
    """Refuse the event that a kernel found unusable, if it did."""
    if at >= 0:
        name, values = {
            native.BAD_PREDICTION: ("predictions", p),
            native.BAD_LABEL: ("labels", y),
            native.BAD_WEIGHT: ("weights", w),
        }[what]
        raise BadRecord(_EXPECTED[task.kind][what], values[at].tolist(), path=f"{name}[{at}]")


def _no_sums(task: Task) -> Floats:
    if task.kind == "regression":
        sums = np.zeros(native.NUMBER_SUMS)
        sums[native.NUMBER_SCALE] = 1.0
    else:
        sums = np.zeros(native.BINARY_SUMS if task.kind == "binary" else native.CLASSES)
        sums[native.SCALE] = 1.0
    return sums


def _grown(task: Task, sums: Floats, rows: Floats) -> Floats:
    """Return the sums, with room for every class in `rows`."""
    if task.kind != "multiclass" or not len(rows):
        return sums
    n_classes = int(max(rows[:, native.LABEL].max(), rows[:, native.PREDICTED].max())) + 1
    missing = native.CLASSES + 3 * n_classes - len(sums)
    return np.concatenate((sums, np.zeros(missing))) if missing > 0 else sums


def _add(task: Task, rows: Floats, sums: Floats, growth: float = 1.0) -> None:
    if task.kind == "regression":
        native.add_numbers(rows, sums, growth)
    else:
        native.add_classified(rows, sums, growth, task.kind == "multiclass")


def _read(task: Task, sums: Floats) -> dict[str, float]:
    """Metrics from sums; NaN where one is undefined."""
    if task.kind == "regression":
        total, m2 = sums[native.NUMBER_TOTAL], sums[native.LABEL_M2]
        return {
            "mae": _ratio(sums[native.SUM_ABSOLUTE], total),
            "rmse": math.sqrt(_ratio(sums[native.SUM_SQUARED], total)),
            "r2": 1.0 - _ratio(sums[native.SUM_SQUARED], m2),
        }
    total = sums[native.TOTAL]
    labels, predictions, hits = sums[native.CLASSES :].reshape(-1, 3).T
    accuracy = _ratio(sums[native.CORRECT], total)
    chance = _ratio((labels * predictions).sum(), total * total)
    pairs = sums[native.PAIRS]
    occurrences = labels + predictions
    seen = occurrences > 0
    f1 = 2.0 * hits[seen] / occurrences[seen]
    if task.kind == "binary":
        f1 = f1[-1:] if seen[1] else f1[:0]
    bins = sums[native.CALIBRATION : native.CLASSES].reshape(-1, 3)
    return {
        "logloss": _ratio(sums[native.SUM_LOGLOSS], total),
        "accuracy": accuracy,
        "kappa": _above(accuracy, chance),
        "kappa_temporal": _above(
            _ratio(sums[native.PAIRS_CORRECT], pairs), _ratio(sums[native.PAIRS_UNCHANGED], pairs)
        ),
        "f1": _ratio(f1.sum(), len(f1)),
        "brier": _ratio(sums[native.SUM_BRIER], total),
        "ece": _ratio(np.abs(bins[:, 1] - bins[:, 2]).sum(), total),
        "calibration": _ratio(sums[native.SUM_SCORE] - sums[native.SUM_HITS], sums[native.SUM_HITS]),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else math.nan


def _above(accuracy: float, reference: float) -> float:
    """How much of what a reference leaves to be gained was gained."""
    return (accuracy - reference) / (1.0 - reference) if 1.0 - reference > _UNCERTAIN else math.nan


def _auc(zeros: Floats, ones: Floats) -> float:
    """Area under the curve from the weights of 0s and 1s in ascending bins of the score."""
    below = np.cumsum(zeros) - zeros
    return _ratio((ones * (below + zeros / 2)).sum(), ones.sum() * zeros.sum())


def _exact_auc(rows: Floats) -> float:
    scores, bin_of = np.unique(rows[:, native.SCORE], return_inverse=True)
    weights, labels = rows[:, native.WEIGHT], rows[:, native.LABEL]
    histogram = np.zeros((2, len(scores)))
    np.add.at(histogram, (labels.astype(np.int64), bin_of), weights)
    return _auc(*histogram)


def _array(state: Mapping[str, Any], name: str, shape: tuple[int, ...] | None) -> Floats:
    value = state.get(name)
    if not isinstance(value, np.ndarray) or value.dtype != np.float64 or shape not in (None, value.shape):
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise StoreError(f"metrics state: expected {name} to be float64 {shape or ''}, got {got}")
    return np.array(value, order="C")
