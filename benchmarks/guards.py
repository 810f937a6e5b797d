"""What the guards cost: metrics, drift detection, replay, the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.harness import Answer, AtMost, Case, Extras, Measured, Ratio, Size, compare, main
from benchmarks.workload import Events, bare_engine, events
from penstock import Batch
from penstock.events import Task
from penstock.learners.sgd import SGD

__all__ = ["ask"]

_READ: Final = 4096
_DRIFT: Final = [{"kind": "adwin", "on": "loss"}]
_BUFFER: Final = {"kind": "reservoir", "size": 5000}

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
    "all of them": {"drift": _DRIFT, "replay": {**_BUFFER, "ratio": 0.5}, "shadow": {}},
}

_METHOD: Final = """\
The same events, in batches that were built before the clock started: only learning and guarding is timed.
*Bare* is `SGD.progress`, which is the floor. Every other row is an engine with metrics and both baselines,
and the guards that it names. Replay learns half as many events again; the reservoir holds 5,000 events, and
is dearer while it fills. The gate compares what serves with what learns on every event, and freezes new
weights every 1,000."""


def ask(size: Size) -> Answer:
    """Answer the question for `size`."""
    stream = events(size.events)
    batches = [
        Batch.from_rows(stream.rows[start : start + _READ], stream.labels[start : start + _READ])
        for start in range(0, len(stream), _READ)
    ]
    measured = compare(
        [
            Case("bare: SGD.progress", partial(_bare, stream, batches)),
            *(Case(name, partial(_guarded, batches, rules)) for name, rules in _GUARDS.items()),
        ],
        items=len(stream),
        rounds=size.rounds,
    )
    bare, engine, *guarded, everything = measured.values()
    return Answer(
        title="Guards on against bare learning",
        method=_METHOD,
        item="event",
        measured=list(measured.values()),
        ratios=[
            *(Ratio(bare, one) for one in (engine, *guarded)),
            _at_most_triple(everything, bare),
            _at_most_triple(everything, engine),
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


def _guarded(batches: list[Batch], rules: Mapping[str, Any]) -> Callable[[], Extras]:
    engine = bare_engine(**rules)

    def run() -> Extras:
        for batch in batches:
            engine.progress(batch)
        return {"log loss": engine.metrics()["sgd"]["logloss"]}

    return run


if __name__ == "__main__":
    main(ask)
