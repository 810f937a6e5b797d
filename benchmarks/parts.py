"""How fast the detector and the metrics are by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river import drift, metrics

from benchmarks.harness import Answer, Case, Extras, Ratio, Size, compare, main
from penstock.drift.adwin import ADWIN
from penstock.events import Task
from penstock.metrics import Metrics

__all__ = ["ask_drift", "ask_metrics"]

_TICK: Final = 256  # events at a time, as the engine hands them over

_METHOD_DRIFT: Final = """\
Losses between 0 and 1 whose mean rises from 0.25 to 0.5 at each quarter of the stream and falls back at the
next. Penstock's detector takes them 256 at a time, as the engine hands them over; River's one by one, as
River does. Both are the same algorithm with the same parameters (`delta=0.002, clock=32`), and the table
shows how many alarms each found."""

_METHOD_METRICS: Final = """\
Predicted probabilities and labels, 256 at a time for Penstock: eleven metrics over everything, over a
window of 1,000 and fading. River's metrics are the five that both have, over everything only, updated one
by one."""


def ask_drift(size: Size) -> Answer:
    """Answer the question of the detector for `size`."""
    rng = np.random.default_rng(5)
    means = np.resize(np.repeat([0.25, 0.5], max(size.events // 4, 1)), size.events)
    losses = rng.beta(4 * means, 4 * (1 - means))
    ours, theirs = "Penstock ADWIN", "River ADWIN"
    measured = compare(
        [Case(ours, partial(_adwin, losses)), Case(theirs, partial(_river_adwin, losses))],
        items=size.events,
        rounds=size.rounds,
    )
    return Answer(
        title="Drift detection",
        method=_METHOD_DRIFT,
        item="value",
        measured=list(measured.values()),
        ratios=[Ratio(measured[ours], measured[theirs])],
    )


def ask_metrics(size: Size) -> Answer:
    """Answer the question of the metrics for `size`."""
    rng = np.random.default_rng(6)
    predictions = rng.random(size.events)
    labels = (rng.random(size.events) < predictions).astype(np.float64)
    ours, theirs = "Penstock Metrics", "River, five metrics"
    measured = compare(
        [
            Case(ours, partial(_metrics, predictions, labels)),
            Case(theirs, partial(_river, predictions, labels)),
        ],
        items=size.events,
        rounds=size.rounds,
    )
    return Answer(
        title="Metrics",
        method=_METHOD_METRICS,
        item="event",
        measured=list(measured.values()),
        ratios=[Ratio(measured[ours], measured[theirs])],
    )


def _ticks(n: int) -> Iterator[slice]:
    return (slice(start, start + _TICK) for start in range(0, n, _TICK))


def _adwin(losses: NDArray[np.float64]) -> Callable[[], Extras]:
    detector = ADWIN()

    def run() -> Extras:
        alarms = [detector.update(losses[tick]) for tick in _ticks(len(losses))]
        return {"alarms": sum(alarm is not None for alarm in alarms)}

    return run


def _river_adwin(losses: NDArray[np.float64]) -> Callable[[], Extras]:
    detector = drift.ADWIN()
    values = losses.tolist()

    def run() -> Extras:
        alarms = 0
        for value in values:
            detector.update(value)
            alarms += detector.drift_detected
        return {"alarms": alarms}

    return run


def _metrics(predictions: NDArray[np.float64], labels: NDArray[np.float64]) -> Callable[[], Extras]:
    scores = Metrics(Task("binary"))
    weights = np.ones(len(labels))

    def run() -> Extras:
        for tick in _ticks(len(labels)):
            scores.update(predictions[tick], labels[tick], weights[tick])
        return _chosen(scores.report())

    return run


def _river(predictions: NDArray[np.float64], labels: NDArray[np.float64]) -> Callable[[], Extras]:
    of_probability = {"logloss": metrics.LogLoss(), "roc_auc": metrics.ROCAUC()}
    of_class: dict[str, Any] = {
        "accuracy": metrics.Accuracy(),
        "kappa": metrics.CohenKappa(),
        "f1": metrics.F1(),
    }
    every = of_class | of_probability
    pairs = list(zip((labels == 1.0).tolist(), predictions.tolist(), strict=True))

    def run() -> Extras:
        for label, p in pairs:
            probabilities = {False: 1.0 - p, True: p}
            for metric in of_probability.values():
                metric.update(label, probabilities)
            for metric in of_class.values():
                metric.update(label, p >= 0.5)
        return _chosen({name: metric.get() for name, metric in every.items()})

    return run


def _chosen(report: Extras) -> Extras:
    return {"log loss": report["logloss"], "AUC": report["roc_auc"], "kappa": report["kappa"]}


if __name__ == "__main__":
    main(ask_drift, ask_metrics)
