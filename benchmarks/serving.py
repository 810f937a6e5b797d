"""How long an application waits for one prediction."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from river import linear_model, preprocessing
from vowpalwabbit import pyvw

from benchmarks.harness import Answer, Case, Measured, Ratio, Size, compare, main
from benchmarks.workload import Events, events
from penstock import Batch, Predictor
from penstock.events import Task
from penstock.learners.sgd import SGD
from penstock.snapshots import SnapshotStore

__all__ = ["ask"]

_HOT: Final = 64  # different events: few enough to stay in the cache, as an event that was just made is
_POLL_S: Final = 0.5

_METHOD: Final = """\
One event at a time, 10 numbers and 10 strings, of a linear model that has learned all events before. The
same 64 events over and over, so that they are in the cache, as an event is that an application has just
made. `Predictor.predict(dict)` answers from a memory-mapped snapshot while its thread follows the alias,
and walks, hashes and checks the dict that it is given.

River's `predict_proba_one` of a `LogisticRegression` is asked in two ways, both with the strings one-hot
encoded *before* the clock started. *Model alone*: the numbers were scaled beforehand too, so it does
nothing but the dot product of two dicts. *Scaler and model*: the pipeline `StandardScaler |
LogisticRegression`, the model that has to be asked if events come as they are: the target is held against
it. pyvw is fed ready-made strings.

Times are of a plain loop; p50 and p99 are of single calls, and include the two readings of the clock that
the row *the clock itself* shows."""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    stream = events(size.events)
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        predictor = stack.enter_context(_predictor(path, stream))
        calls = _calls(predictor, stream)
        rows = stream.rows[:_HOT]
        turns = max(size.events // len(rows), 1)
        cases = [Case(name, _looped(call, xs, turns)) for name, (call, xs) in calls.items()]
        cases.append(Case("Penstock predict_many, 64 at once", lambda: lambda: _many(predictor, rows, turns)))
        measured = compare(cases, items=turns * len(rows), rounds=size.rounds)
        _add_percentiles(measured, calls, turns)
    ours = measured["Penstock Predictor.predict(dict)"]
    return Answer(
        title="Predicting one event",
        method=_METHOD,
        item="event",
        measured=list(measured.values()),
        ratios=[
            Ratio(ours, measured["River, scaler and model"], target=5.0),
            Ratio(ours, measured["River, model alone"]),
            Ratio(ours, measured["pyvw predict(str)"], target=25.0),
        ],
    )


def _predictor(path: Path, stream: Events) -> Predictor:
    learner = SGD(Task("binary"))
    learner.learn(Batch.from_rows(stream.rows, stream.labels))
    store = SnapshotStore(path)
    version = store.put(learner.freeze().state(), {"kind": "sgd", "task": "binary"})
    store.promote(version, sequence=1)
    return Predictor(path, poll_s=_POLL_S)


def _calls(predictor: Predictor, stream: Events) -> dict[str, tuple[Callable[[Any], Any], Sequence[Any]]]:
    """Return what is called, and with what, after everybody has learned the stream."""
    scaler, model = preprocessing.StandardScaler(), linear_model.LogisticRegression()
    pipeline = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    scaled, encoded = [], []
    for numbers, indicators, label in zip(stream.numbers, stream.indicators, stream.labels, strict=True):
        scaler.learn_one(numbers)
        scaled.append({**scaler.transform_one(numbers), **indicators})
        encoded.append({**numbers, **indicators})
        model.learn_one(scaled[-1], label == 1.0)
        pipeline.learn_one(encoded[-1], label == 1.0)
    vw = pyvw.Workspace("--quiet --loss_function logistic --link logistic")
    for line in stream.lines:
        vw.learn(line)
    unlabelled = [line.partition(" ")[2] for line in stream.lines[:_HOT]]
    return {
        "the clock itself": (lambda _: None, stream.rows[:_HOT]),
        "floor: one pass over each dict": (lambda row: tuple(row.items()), stream.rows[:_HOT]),
        "Penstock Predictor.predict(dict)": (predictor.predict, stream.rows[:_HOT]),
        "River, model alone": (model.predict_proba_one, scaled[:_HOT]),
        "River, scaler and model": (pipeline.predict_proba_one, encoded[:_HOT]),
        "pyvw predict(str)": (vw.predict, unlabelled),
    }


def _looped(call: Callable[[Any], Any], xs: Sequence[Any], turns: int) -> Callable[[], Callable[[], None]]:
    def run() -> None:
        for _ in range(turns):
            for x in xs:
                call(x)

    return lambda: run


def _many(predictor: Predictor, rows: list[dict[str, Any]], turns: int) -> None:
    for _ in range(turns):
        predictor.predict_many(rows)


def _add_percentiles(
    measured: dict[str, Measured], calls: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]], turns: int
) -> None:
    """Time single calls, in turns."""
    times: dict[str, list[int]] = {name: [] for name in calls}
    clock = time.perf_counter_ns
    gc.collect()
    gc.disable()
    try:
        for _ in range(turns):
            for name, (call, xs) in calls.items():
                keep = times[name].append
                for x in xs:
                    started = clock()
                    call(x)
                    keep(clock() - started)
    finally:
        gc.enable()
    for name, taken in times.items():
        p50, p99 = np.percentile(taken, [50, 99]) / 1000.0
        measured[name].extras |= {"p50 µs": float(p50), "p99 µs": float(p99)}


if __name__ == "__main__":
    main(ask)
