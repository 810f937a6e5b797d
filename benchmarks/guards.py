"""What the guards cost: metrics, drift detection, replay, the gate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness import Answer, AtMost, Case, Extras, Measured, Ratio, Size, compare, main
from benchmarks.workload import Events, bare_engine, events, write_json
from penstock import Batch
from penstock.config import parse
from penstock.evaluate import evaluate
from penstock.events import Task
from penstock.learners.sgd import SGD
from penstock.metrics import Metrics

__all__ = ["ask"]

_READ: Final = 4096
_DRIFT: Final = [{"kind": "adwin", "on": "loss"}]
_BUFFER: Final = {"kind": "reservoir", "size": 5000}

_ALL: Final = {"drift": _DRIFT, "replay": {**_BUFFER, "ratio": 0.5}, "shadow": {}}

_GUARDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "metrics and baselines": {},
    "and drift (ADWIN)": {"drift": _DRIFT},
    "and a replay buffer, not replayed": {"replay": {**_BUFFER, "ratio": 0}},
    "and replay, one event for two": {"replay": {**_BUFFER, "ratio": 0.5}},
    **{
        f"and replay ({kind})": {"replay": {"kind": kind, "size": 5000, "ratio": 0.5}}
        for kind in ("balanced", "ring", "decayed", "prioritised")
    },
    "and shadow and gate": {"shadow": {}},
    "all of them": _ALL,
}

_WIDE: Final = {"learners": {"sgd": {"kind": "sgd", "bits": 22}}}
_FURTHER: Final[Mapping[str, Mapping[str, Any]]] = {
    "all of them, ticks of 1,024": {**_ALL, "tick": 1024},
    "bits: 22, metrics and baselines": _WIDE,
    "bits: 22, all of them": {**_WIDE, **_ALL},
}

_METHOD: Final = """\
The same events, in batches that were built before the clock started: only learning and guarding is timed.
*Bare* is `SGD.progress`. *Floor* is what no arrangement of replay 0.5, a shadow and metrics can do without:
learning, half as much again, two frozen predictions an event, scores; in large batches, without an engine.
Every other row is an engine with metrics and both baselines, and the guards that it names. Replay learns
half as many events again; the reservoir holds 5,000 events, and is dearer while it fills. The gate compares
what serves with what learns on every event, and freezes new weights every 1,000. Guards work between ticks of
256 events: with longer ones there is less of that. Tables have 2^18 weights, or 2^22 where it says so, of
which few are ever touched; these rows begin when all events have been learned once, as the system clears
memory when it is first used, and a daemon has that behind it soon.

The last two rows are what a user waits for: `evaluate` of the same events as JSON lines, without guards and
with all of them, from opening the file to the digest of the final state."""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    stream = events(size.events)
    batches = [
        Batch.from_rows(stream.rows[start : start + _READ], stream.labels[start : start + _READ])
        for start in range(0, len(stream), _READ)
    ]
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        path = Path(directory) / "events.jsonl"
        write_json(path, stream)
        measured = compare(
            [
                Case("bare: SGD.progress", partial(_bare, stream, batches)),
                Case("floor: what all guards must compute", partial(_floor, stream, batches)),
                *(
                    Case(name, partial(_guarded, batches, rules))
                    for name, rules in {**_GUARDS, **_FURTHER}.items()
                ),
                Case("evaluate, JSON lines", lambda: partial(_evaluate, path, {})),
                Case("evaluate, JSON lines, all of them", lambda: partial(_evaluate, path, _ALL)),
            ],
            items=len(stream),
            rounds=size.rounds,
        )
    bare, floor, engine, *guarded, everything, longer, wide, guarded_wide, file, guarded_file = (
        measured.values()
    )
    return Answer(
        title="Guards on against bare learning",
        method=_METHOD,
        item="event",
        measured=list(measured.values()),
        ratios=[
            *(Ratio(bare, one) for one in (floor, engine, *guarded)),
            _at_most_triple(everything, bare),
            _at_most_triple(everything, engine),
            _at_most_triple(longer, engine),
            _at_most_triple(guarded_wide, wide),
            _at_most_triple(guarded_file, file),
        ],
    )


def _at_most_triple(guarded: Measured, floor: Measured) -> AtMost:
    return AtMost(
        what=f"*{guarded.name}* as a multiple of *{floor.name}*",
        values=[one / other for one, other in zip(guarded.wall, floor.wall, strict=True)],
        most=3.0,
    )


def _bare(stream: Events, batches: list[Batch]) -> Callable[[], Extras]:
    learner = SGD(Task("binary"))

    def run() -> Extras:
        return stream.log_loss(np.concatenate([learner.progress(batch) for batch in batches]))

    return run


def _floor(stream: Events, batches: list[Batch]) -> Callable[[], Extras]:
    task = Task("binary")
    learner, metrics = SGD(task), Metrics(task)
    first, second = learner.freeze(), learner.freeze()

    def run() -> Extras:
        predictions = []
        for batch in batches:
            for model in (first, second):
                model.predict(batch)
            predictions.append(learner.progress(batch))
            metrics.update(predictions[-1], batch.labels, batch.weights)
            learner.learn(batch.slice(0, len(batch) // 2))
        return stream.log_loss(np.concatenate(predictions))

    return run


def _guarded(batches: list[Batch], rules: Mapping[str, Any]) -> Callable[[], Extras]:
    engine = bare_engine(**rules)

    def run() -> Extras:
        for batch in batches:
            for _ in engine.follow(batch):  # as a run does: who keeps notices keeps their models
                pass
        return {"log loss": engine.metrics()["sgd"]["logloss"]}

    if "learners" in rules:  # those of larger tables
        run()
    return run


def _evaluate(path: Path, rules: Mapping[str, Any]) -> Extras:
    source: dict[str, Any] = {"kind": "file", "path": str(path)}
    return {"log loss": evaluate(parse({"source": source, **rules})).learners["sgd"]["logloss"]}


if __name__ == "__main__":
    main(ask)
