"""What replay buffers, and consolidation, save from being forgotten, and what that costs.

``python -m benchmarks.forgetting [--seeds N]`` prints the tables of docs/replay.md;
`benchmarks.forgetting_picture` draws its picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from river import datasets
from tqdm import tqdm

from penstock import Batch, Engine
from penstock.anchors import Anchors
from penstock.config import parse
from penstock.events import Task, TaskKind
from penstock.learners.sgd import SGD
from penstock.replay.balanced import Balanced

__all__ = ["BUFFERS", "CONSOLIDATED", "STREAMS", "Found", "Stream", "dumb", "engine_of", "forgetting"]

_RATIO: Final = 2.0  # replayed events for each live one
_WEIGHT: Final = 1.0
_PHASE: Final = 4096  # events
_EPOCHS: Final = 10  # of the learner that starts from scratch

BUFFERS: Final[Mapping[str, Mapping[str, Any] | None]] = {
    "none": None,
    "ring": {"kind": "ring"},
    "decayed, over two phases": {"kind": "decayed"},
    "reservoir": {"kind": "reservoir"},
    "prioritised": {"kind": "prioritised"},
    "balanced": {"kind": "balanced"},
    "balanced, prior corrected": {"kind": "balanced", "correct_prior": True},
}

CONSOLIDATED: Final[Mapping[str, tuple[float, str | None]]] = {
    "none": (0.0, None),
    "consolidation: 1": (1.0, None),
    "consolidation: 3": (3.0, None),
    "consolidation: 10": (10.0, None),
    "reservoir": (0.0, "reservoir"),
    "reservoir, consolidation: 1": (1.0, "reservoir"),
}
"""Strength of consolidation, and a buffer beside it."""

_ANCHORS_A_PHASE: Final = 4  # of consolidation, which is not told where phases end


class Found(NamedTuple):
    """What a run found: of the anchors of all phases but the last, and of every event when it came."""

    forgotten: float
    known: float  # mean accuracy on anchors at the end
    prequential: float  # accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Events in phases of equal length, and how much of each is set aside."""

    task: TaskKind
    events: Batch
    phase: int
    tick: int
    anchors: int
    buffer: int


def blobs(seed: int) -> Stream:
    """Ten classes, two of them in each of five phases: Gaussians around random centres in 20 dimensions."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(10, 20)) * 1.2
    labels = np.concatenate([rng.integers(2 * k, 2 * k + 2, _PHASE) for k in range(5)])
    return Stream(
        task="multiclass",
        events=_batch(centres[labels] + rng.normal(size=(len(labels), 20)), labels),
        phase=_PHASE,
        tick=256,
        anchors=400,
        buffer=500,
    )


def segments(seed: int) -> Stream:
    """River's ImageSegments: six kinds of image patches, 330 of each, two kinds in each of three phases."""
    rng = np.random.default_rng(seed)
    rows, names = zip(*datasets.ImageSegments(), strict=True)  # type: ignore[no-untyped-call]
    known = sorted(set(names))[:6]
    order = np.concatenate(
        [
            rng.permutation([i for i, name in enumerate(names) if name in known[2 * k : 2 * k + 2]])
            for k in range(3)
        ]
    )
    labels = [float(known.index(names[i])) for i in order.tolist()]
    return Stream(
        task="multiclass",
        events=Batch.from_rows([rows[i] for i in order.tolist()], labels),
        phase=660,
        tick=66,
        anchors=60,
        buffer=200,
    )


def recurring(seed: int) -> Stream:
    """Five binary concepts, one after the other, twice: each has its own kind of 0 and its own kind of 1.

    Kinds are Gaussians around random centres; one hyperplane could tell all kinds of 1 from all kinds of 0.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, 2, 20)) * 1.4
    concepts = np.repeat([*range(5), *range(5)], _PHASE)
    labels = rng.integers(0, 2, len(concepts))
    return _binary(centres[concepts, labels] + rng.normal(size=(len(concepts), 20)), labels)


def conflicting(seed: int) -> Stream:
    """Three concepts with a hyperplane each, one after the other, twice: no linear model knows them all."""
    rng = np.random.default_rng(seed)
    centres, boundaries = rng.normal(size=(3, 20)) * 1.2, rng.normal(size=(3, 20))
    concepts = np.repeat([0, 1, 2, 0, 1, 2], _PHASE)
    off = rng.normal(size=(len(concepts), 20))
    return _binary(centres[concepts] + off, (off * boundaries[concepts]).sum(axis=1) > 0.0)


def _binary(values: NDArray[np.float64], labels: NDArray[Any]) -> Stream:
    events = _batch(values, labels)
    return Stream(task="binary", events=events, phase=_PHASE, tick=256, anchors=400, buffer=500)


def _batch(values: NDArray[np.float64], labels: NDArray[Any]) -> Batch:
    names = [f"x{i}" for i in range(values.shape[1])]
    return Batch.from_rows(
        [dict(zip(names, row, strict=True)) for row in values.tolist()], labels.astype(float)
    )


STREAMS: Final[Mapping[str, Callable[[int], Stream]]] = {
    "classes, generated": blobs,
    "classes, ImageSegments": segments,
    "recurring concepts": recurring,
    "conflicting concepts": conflicting,
}


def engine_of(
    stream: Stream, buffer: Mapping[str, Any] | None, seed: int = 0, *, consolidation: float = 0.0
) -> Engine:
    """Build what learns a stream: one native learner, with or without a buffer and consolidation."""
    rules: dict[str, Any] = {}
    if buffer is not None:
        rules["replay"] = {"size": stream.buffer, "ratio": _RATIO, "weight": _WEIGHT, **buffer}
        if buffer["kind"] == "decayed":
            rules["replay"]["decay"] = 2.0 * stream.phase
    learner: dict[str, Any] = {"kind": "sgd"}
    if consolidation:
        learner |= {"consolidation": consolidation, "consolidate_every": stream.phase // _ANCHORS_A_PHASE}
    return Engine(
        parse(
            {
                "task": stream.task,
                "source": {"kind": "file", "path": "unread.jsonl"},
                "tick": stream.tick,
                "seed": seed,
                "learners": {"sgd": learner},
                "anchors": {
                    "strata": len(stream.events) // stream.phase,
                    "size": stream.anchors,
                    "every": stream.phase,
                },
                **rules,
            }
        )
    )


def forgetting(
    stream: Stream, buffer: Mapping[str, Any] | None, seed: int = 0, *, consolidation: float = 0.0
) -> Found:
    """Learn a stream with a buffer, or consolidated, or both."""
    engine = engine_of(stream, buffer, seed, consolidation=consolidation)
    engine.progress(stream.events)
    found = engine.forgetting()["sgd"]
    known = float(np.mean([one["now"] for one in found["strata"]]))
    return Found(found["average_forgetting"], known, engine.metrics()["sgd"]["accuracy"])


def dumb(stream: Stream, seed: int = 0) -> Found:
    """As `forgetting`, of GDumb: a balanced buffer, and a learner that starts from scratch when asked.

    References
    ----------
    Prabhu, Torr and Dokania (2020), GDumb: a simple approach that questions our progress in continual
    learning, ECCV.
    """
    strata = len(stream.events) // stream.phase
    anchors = Anchors(strata=strata, size=stream.anchors, every=stream.phase)
    buffer = Balanced(size=stream.buffer, seed=seed)
    rng = np.random.default_rng(seed)

    def score(events: Batch) -> dict[str, float]:
        return {"dumb": float((_answers(learner.predict(events)) == events.labels).mean())}

    for phase in range(strata):
        first = phase * stream.phase
        batch = stream.events.slice(first, first + stream.phase)
        aside = anchors.aside(first, len(batch))
        anchors.put(batch.take(np.flatnonzero(aside)))
        buffer.offer(batch.take(np.flatnonzero(~aside)))
        learner = SGD(Task(stream.task))
        held = buffer.contents()
        assert held is not None
        for _ in range(_EPOCHS):
            learner.learn(held.take(rng.permutation(len(held))))
        anchors.end_tick(first + stream.phase, score)
    found = anchors.measure(score)["dumb"]
    return Found(found["average_forgetting"], float(np.mean([one["now"] for one in found["strata"]])), np.nan)


def _answers(predictions: NDArray[np.float64]) -> NDArray[Any]:
    return predictions.argmax(axis=1) if predictions.ndim == 2 else predictions > 0.5


def _table(
    what: str,
    rows: Mapping[str, Callable[[Stream, int], Found]],
    drawn: Mapping[str, list[Stream]],
    cell: str,
) -> list[str]:
    lines = [f"| {what} | {' | '.join(drawn)} |", "| :--- |" + " ---: |" * len(drawn)]
    for name, run in tqdm(rows.items(), unit=" rows", disable=None, leave=False):
        found = [
            np.array([run(stream, seed) for seed, stream in enumerate(streams)]) for streams in drawn.values()
        ]
        cells = (cell.format(*means.mean(axis=0)) for means in found)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="streams of each kind (default: 10)")
    seeds = range(parser.parse_args().seeds)
    drawn = {name: [draw(seed) for seed in seeds] for name, draw in STREAMS.items()}
    buffers: dict[str, Callable[[Stream, int], Found]] = {
        name: lambda stream, seed, rule=rule: forgetting(stream, rule, seed)  # type: ignore[misc]
        for name, rule in BUFFERS.items()
    }
    buffers["*GDumb: from scratch each time*"] = dumb
    consolidated: dict[str, Callable[[Stream, int], Found]] = {
        name: lambda stream, seed, strength=strength, kind=kind: forgetting(  # type: ignore[misc]
            stream, None if kind is None else {"kind": kind}, seed, consolidation=strength
        )
        for name, (strength, kind) in CONSOLIDATED.items()
    }
    lines = _table("buffer", buffers, drawn, "{:.3f} ({:.3f})")
    lines += _table("learner", consolidated, drawn, "{:.3f} ({:.3f}), {:.3f}")
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    main()
